"""Virtual time: one world, an event loop for each process in it, and chance from one seed.

A loop keeps the order that asyncio promises (what was called first runs first); which of several processes runs next is not promised and drawn. Time goes on only
when nobody can run, apart from a few microseconds for each callback. A process that is frozen keeps what it was to do; one that is dead never does it.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

CALLBACK = 2e-6
"""Seconds that a callback takes."""

SET_RUNNING = asyncio._set_running_loop


class Handle:
    """A callback that is to run, now or at a moment."""

    __slots__ = ("_when", "args", "callback", "context", "loop")

    def __init__(
        self, loop: Loop, callback: Callable[..., Any], args: tuple[Any, ...], context: Any, when: float = 0.0
    ) -> None:
        self.loop = loop
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self._when = when

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class SimFuture(asyncio.Future):  # type: ignore[type-arg]
    """A future whose place in a set does not depend on where it lies in memory."""

    __slots__ = ("number",)

    def __hash__(self) -> int:
        return self.number


class Strand(asyncio.Task):  # type: ignore[type-arg]
    """Likewise a coroutine under way. They enter a set of asyncio's as they are made, so the number must be there before."""

    __slots__ = ("number",)

    def __new__(cls, coroutine: Any, loop: Loop, name: str | None, context: Any) -> Strand:
        task = super().__new__(cls)
        task.number = loop.world.number()
        return task

    def __init__(self, coroutine: Any, loop: Loop, name: str | None, context: Any) -> None:
        super().__init__(coroutine, loop=loop, name=name or f"t{self.number}", context=context)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.number


class World:
    """Everything that happens, in one order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        """Seconds since the world began."""
        self.loops: list[Loop] = []
        self.ready: list[Loop] = []
        """Loops with something to run, that are neither frozen nor dead."""
        self.timers: list[tuple[float, int, Handle]] = []
        self.count = 0
        self.handled = 0
        self.over = False
        self.errors: list[str] = []
        self.fate = Loop(self, "fate")
        """Runs what no process does: the network, the database, the faults."""

    def loop(self, name: str) -> Loop:
        """A loop for a new process."""
        loop = Loop(self, name)
        self.loops.append(loop)
        return loop

    def number(self) -> int:
        self.count += 1
        return self.count

    def at(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Calls at a moment, outside of any process."""
        return self.put(Handle(self.fate, callback, args, None, when), when)

    def after(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        return self.at(self.now + delay, callback, *args)

    def put(self, handle: Handle, when: float) -> Handle:
        self.count += 1
        heapq.heappush(self.timers, (when, self.count, handle))
        return handle

    def run(self, until: float, done: Callable[[], bool]) -> bool:
        """Runs until `done` says so (True) or the moment `until` (False)."""
        ready, timers = self.ready, self.timers
        pick = self.random.random
        try:
            while not done():
                while timers and timers[0][0] <= self.now:
                    self._fire(heapq.heappop(timers)[2])
                if ready:
                    place = int(pick() * len(ready)) if len(ready) > 1 else 0
                    loop = ready[place]
                    ready[place] = ready[-1]
                    ready.pop()
                    loop.turn()
                elif timers:
                    when = timers[0][0]
                    if when > until:
                        return False
                    self.now = when
                else:
                    return False
            return True
        finally:
            SET_RUNNING(None)

    def _fire(self, handle: Handle) -> None:
        if handle.callback is None:
            return
        loop = handle.loop
        if loop is self.fate:
            SET_RUNNING(None)
            handle.callback(*handle.args)
        else:
            loop.push(handle)


class Loop:
    """The event loop of one process: what asyncio asks of one, and no more."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.queue: deque[Handle] = deque()
        self.waiting = False
        """In the world's list of those that can run."""
        self.frozen = False
        self.dead = False
        self.fuse: int | None = None
        """So many callbacks until `blow` is called: a fault at any await."""
        self.blow: Callable[[], None] = lambda: None
        self.process: Any = None
        self.tasks: list[Any] = []

    # --- what the world does ---

    def push(self, handle: Handle) -> None:
        if self.dead:
            return
        self.queue.append(handle)
        if not self.waiting and not self.frozen:
            self.waiting = True
            self.world.ready.append(self)

    def turn(self) -> None:
        """Runs what was ready when it began, as one round of asyncio's loop does."""
        self.waiting = False
        if self.dead or self.frozen:
            return
        world = self.world
        queue = self.queue
        SET_RUNNING(self)
        count = len(queue)
        for _ in range(count):
            handle = queue.popleft()
            callback = handle.callback
            if callback is None:
                continue
            world.now += CALLBACK
            world.handled += 1
            try:
                context = handle.context
                if context is None:
                    callback(*handle.args)
                else:
                    context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio's loop: it is reported, and the loop goes on
                self.call_exception_handler({"message": "callback", "exception": error})
            if self.dead:
                return
            if self.fuse is not None:
                self.fuse -= 1
                if self.fuse <= 0:
                    self.fuse = None
                    SET_RUNNING(None)
                    self.blow()
                    if self.dead or self.frozen:
                        return
                    SET_RUNNING(self)
        if queue and not self.waiting:
            self.waiting = True
            world.ready.append(self)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        if self.queue and not self.waiting and not self.dead:
            self.waiting = True
            self.world.ready.append(self)

    def kill(self) -> None:
        """Nothing of this process happens any more."""
        self.dead = True
        self.queue.clear()

    # --- what asyncio asks ---

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        handle = Handle(self, callback, args, context if context is not None else contextvars.copy_context())
        self.push(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        context = context if context is not None else contextvars.copy_context()
        return self.world.put(Handle(self, callback, args, context, when), when)

    def deliver(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Calls at a moment, in this process, without the context of whoever asks: what comes from outside."""
        return self.world.put(Handle(self, callback, args, None, when), when)

    def create_future(self) -> Any:
        future = SimFuture(loop=self)
        future.number = self.world.number()
        return future

    def create_task(self, coroutine: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = Strand(coroutine, self, name, context)
        self.tasks.append(task)
        if len(self.tasks) > 2000:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """What others give to a thread takes a millisecond here."""
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001 - goes to whoever waits
                future.set_exception(error)

        self.deliver(self.world.now + 0.001, run)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What nobody caught is a defect (V39)."""
        if self.world.over or self.dead:
            return
        error = context.get("exception")
        self.world.errors.append(f"{self.name}: {context.get('message')}: {type(error).__name__}: {error}")
        self.world.last_error = error
