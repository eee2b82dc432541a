"""Dispatch: slots of executors for steps, attempts in flight, adoption after a crash, executors that are lost (rules R23 to R27)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.afterwards import afterwards, end_all
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros

from tierflow_orchestrator.claims import Refusals
from tierflow_orchestrator.discovery import follow
from tierflow_orchestrator.flights import REPLACED, Flight, Reports, name_of
from tierflow_orchestrator.hearing import Hearing
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.slots import Slots

log = get_log(__name__)

LOOK_EVERY = 1.0
MEETING = 5.0
"""Seconds that an executor at a known address is given to answer for the first time."""

EXECUTOR_LOST = 30.0
"""Seconds without an answer after which an executor's attempts are lost (rule R26)."""


class Dispatcher(Hearing):
    """All executors of this instance, and what runs there."""

    def __init__(
        self,
        targets: tuple[str, ...],
        reports: Reports,
        alive: Callable[[], bool],
        *,
        lost_after: float = EXECUTOR_LOST,
    ) -> None:
        self._targets = targets
        self._reports = reports
        self._alive = alive
        self._lost_after = lost_after
        self._links: dict[str, Link] = {}
        self._by_key: dict[str, Link] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}
        self.flights: dict[str, Flight] = {}
        self._by_run: dict[str, set[str]] = {}
        self.slots = Slots(self._by_key, lambda run_id, handler: self._reports.may_start(run_id, handler))
        self._replaces: list[str] = []
        self._begun = time.monotonic()
        self.changes = 0
        """How often an executor has come or gone for good."""
        self._greeting = asyncio.Event()
        self.identity = pb.OrchestratorHello()
        self.heartbeats: dict[tuple[str, str], Any] = {}
        self.refusals = Refusals()

    # --- executors ---

    def input_schema(self, handler: str) -> str:
        """The JSON Schema of a handler's input, as the executor says that was met last; empty where none says any."""
        return next((link.schemas[handler] for link in self.links() if handler in link.schemas), "")

    def is_side_effecting(self, handler: str) -> bool:
        """Whether any executor says that the handler changes the world outside."""
        return any(handler in link.side_effecting for link in self._by_key.values())

    def offered(self) -> frozenset[str]:
        """Handlers that some executor offers: one that is connected, or that may come back before it counts as lost."""
        return frozenset().union(*(link.handlers for link in self._by_key.values()))

    def missing(self, handlers: Iterable[str]) -> list[str]:
        """Of these handlers, those that no executor offers that was met."""
        offered = self.offered()
        return [name for name in handlers if name not in offered]

    async def missing_after_meeting(self, handlers: Sequence[str]) -> list[str]:
        """Of these handlers, those that no executor offers; waits, `MEETING` seconds at most, for executors that may be there and were not met yet."""
        while (missing := self.missing(handlers)) and (patience := self._meeting()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._greeting.wait(), patience)
        return missing

    def _meeting(self) -> float:
        """Seconds for which executors may still be on the point of introducing themselves."""
        ages = [link.age for link in self._links.values() if link.hello is None]
        if self._targets and not self._links:
            ages.append(time.monotonic() - self._begun)
        return MEETING - min(ages, default=MEETING)

    def links(self) -> list[Link]:
        """All executors that were ever met and are not known to be gone."""
        return [link for link in self._links.values() if link.hello is not None]

    # --- attempts ---

    def board(self, link: Link, attempt_id: str, run_id: str, step_id: str) -> None:
        """Takes the reserved slot for an attempt that was just decided (rule R24)."""
        link.used += 1
        self._add(Flight(attempt_id, run_id, step_id, link.key, link))

    def declared_timeout(self, attempt_id: str, handler: str) -> Micros | None:
        """The timeout that a handler declares at the executor which an attempt goes to."""
        flight = self.flights.get(attempt_id)
        return flight.link.timeouts.get(handler) if flight is not None and flight.link is not None else None

    def _add(self, flight: Flight) -> None:
        self.flights[flight.attempt_id] = flight
        self._by_run.setdefault(flight.run_id, set()).add(flight.attempt_id)

    def send(self, attempt_id: str, make: Callable[[], step_pb2.StepExecutionRequest]) -> None:
        """Sends an attempt whose event is committed."""
        flight = self.flights.get(attempt_id)
        if flight is None:
            return
        flight.make = make
        if flight.link is not None and flight.link.connected and flight.link.key == flight.executor:
            self._execute(flight, flight.link, make)

    def _execute(self, flight: Flight, link: Link, make: Callable[[], step_pb2.StepExecutionRequest]) -> None:
        try:
            request = make()
            link.frames.put("execute", request)
            flight.sent = True
            self._expect(flight, request)
        except FailureError as error:  # No message can carry it: another attempt would not help (Lesson 27).
            self.land(flight.attempt_id)
            self._reports.refused(flight.run_id, flight.attempt_id, error.failure)

    def _expect(self, flight: Flight, request: step_pb2.StepExecutionRequest) -> None:
        """Executors keep the timeout themselves; one that does not is not waited for much longer."""
        flight.due = time.monotonic() + request.options.timeout.ToMicroseconds() / 1e6 + self._lost_after

    def recover(
        self,
        attempt_id: str,
        run_id: str,
        step_id: str,
        executor: str,
        make: Callable[[], step_pb2.StepExecutionRequest],
    ) -> None:
        """An attempt of a run that was just adopted: ask its executor what it knows of it; only what nobody knows is sent again (rule R25)."""
        known = self.flights.get(attempt_id)
        if known is not None:
            known.make = make
            return
        flight = Flight(attempt_id, run_id, step_id, executor, self._by_key.get(executor))
        flight.make = make
        self._add(flight)
        self._ask(flight)

    def stop(self, attempt_id: str, run_id: str, executor: str, reason: str) -> None:
        """Tells the executor to stop an attempt, again after each reconnection until there is a receipt (rule R29)."""
        flight = self.flights.get(attempt_id)
        if flight is None:
            flight = Flight(attempt_id, run_id, "", executor, self._by_key.get(executor))
            self._add(flight)
            self._ask(flight)
        flight.stop_reason = reason
        if flight.link is not None and flight.link.connected:
            flight.link.frames.put_first(
                "cancel", pb.CancelStepRequest(attempt_id=attempt_id, reason=reason, run_id=run_id)
            )

    def _ask(self, flight: Flight) -> None:
        """Asks the executor of an attempt what it knows; where a later process of its name is connected, that one: its answer proves that the other is gone."""
        link = flight.link
        if link is not None:
            link.used += 1
        else:
            name = name_of(flight.executor)
            link = next((other for key, other in self._by_key.items() if name_of(key) == name), None)
        if link is not None and link.connected:
            link.frames.put("adopt", flight.attempt_id)

    def land(self, attempt_id: str) -> None:
        """An attempt is over here: its slot is free."""
        flight = self.flights.pop(attempt_id, None)
        if flight is None:
            return
        attempts = self._by_run.get(flight.run_id)
        if attempts is not None:
            attempts.discard(attempt_id)
            if not attempts:
                del self._by_run[flight.run_id]
        if flight.link is not None and flight.link.key == flight.executor:
            flight.link.used = max(0, flight.link.used - 1)

    def acknowledge(self, link: Link, attempt_id: str) -> None:
        """The result of an attempt is committed: the executor may forget it (rule R27)."""
        link.frames.put_first("acknowledge", attempt_id)

    def note_heartbeat(self, run_id: str, step_id: str, details: Any) -> None:
        """Where the present attempt of a step was, for the next one; None: there is nothing to hand on."""
        if details is None:
            self.heartbeats.pop((run_id, step_id), None)
        else:
            self.heartbeats[run_id, step_id] = details

    def forget_run(self, run_id: str, *, stop: bool) -> None:
        """The run is no longer owned here: its slots and its place in queues are free. `stop`: what still runs for it is told to stop."""
        for attempt_id in list(self._by_run.get(run_id, ())):
            flight = self.flights[attempt_id]
            if stop and flight.link is not None and flight.link.connected:
                request = pb.CancelStepRequest(attempt_id=attempt_id, reason="the run has ended", run_id=run_id)
                flight.link.frames.put_first("cancel", request)
            self.land(attempt_id)
        self.slots.forget(run_id)
        for key in [key for key in self.heartbeats if key[0] == run_id]:
            del self.heartbeats[key]

    def replaces(self, instance_id: str) -> None:
        """This instance has taken over what another owned: all executors are told before anything else is sent (rule R25)."""
        if instance_id in self._replaces:
            return
        self._replaces.append(instance_id)
        for link in self._by_key.values():
            if link.connected:
                link.frames.set("hello", self._hello())

    def _hello(self) -> pb.OrchestratorHello:
        hello = pb.OrchestratorHello()
        hello.CopyFrom(self.identity)
        hello.replaces.extend(self._replaces[-1000:])
        return hello

    # --- what executors say (Listener) ---

    def hello_of(self, link: Link) -> pb.ExecuteStepsRequest:
        """The first frame: who calls, whom it replaces."""
        return pb.ExecuteStepsRequest(hello=self._hello())

    def greeted(self, link: Link, hello: pb.ExecutorHello) -> None:
        """An executor has introduced itself: attempts of an older process of its name are lost, those of this one are adopted."""
        key = f"{hello.name}/{hello.executor_id}"
        if link.key != key:
            self._taken(link)
            link.key = key
            link.used = 0
        self._by_key[key] = link
        self.changes += 1
        self._greeting.set()
        self._greeting = asyncio.Event()
        log.info(
            "an executor is connected",
            address=link.address,
            executor=key,
            slots=hello.slots,
            handlers=len(hello.handlers),
        )
        self._adopt(link)
        # Only now: what is lost is given out again at once, and must go to this process by its name.
        self._lose_older(hello.name, key)
        self.slots.pump()

    def _taken(self, link: Link) -> None:
        """Another process answers at an address: the one that was met there may be at another, and has the time of a lost one to say so."""
        if self._by_key.get(link.key) is link:
            del self._by_key[link.key]
        for flight in self.flights.values():
            if flight.link is link and flight.executor == link.key:
                flight.link, flight.since = None, time.monotonic()

    def _adopt(self, link: Link) -> None:
        """What is at the process behind a link is heard of on that link from now on."""
        for flight in list(self.flights.values()):
            if flight.executor != link.key:
                continue
            if flight.link is not link:
                flight.link = link
                link.used += 1
            link.frames.put("adopt", flight.attempt_id)
            if flight.stop_reason is not None:
                link.frames.put_first(
                    "cancel",
                    pb.CancelStepRequest(attempt_id=flight.attempt_id, reason=flight.stop_reason, run_id=flight.run_id),
                )

    def _lose_older(self, name: str, key: str) -> None:
        for flight in list(self.flights.values()):
            if flight.executor != key and name_of(flight.executor) == name:
                self._lose(flight, REPLACED)
        for old in [other for other in self._by_key if other != key and name_of(other) == name]:
            del self._by_key[old]
            self.changes += 1

    def _lose(self, flight: Flight, reason: str) -> None:
        self.land(flight.attempt_id)
        self._reports.lost(flight.run_id, flight.attempt_id, reason)

    def parted(self, link: Link) -> None:
        """A stream is gone; what runs there goes on running. Where the process is met at another address too, it is heard there."""
        link.draining = False
        if not link.listed:
            self._drop(link)
        if self._by_key.get(link.key) is not link:
            return
        for other in self._links.values():
            if other is not link and other.connected and other.key == link.key:
                self._by_key[link.key] = other
                self._adopt(other)
                return

    # --- loops ---

    async def run(self) -> None:
        """Keeps the links to all executors, and gives up what is lost."""
        following = asyncio.create_task(follow(self._targets, self._appeared, self._vanished))
        await afterwards(self._look(), lambda: self._end(following))

    async def _look(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_EVERY)
            if time.monotonic() - before > 3 * LOOK_EVERY:
                self._count_anew()
            self._give_up()
            self.slots.pump()  # who could not take a slot in its turn is not left waiting for the next result

    async def _end(self, following: asyncio.Task[None]) -> None:
        await end_all((following, *self._loops.values()))

    def _appeared(self, address: str) -> None:
        if address in self._links:
            self._links[address].listed = True
            return
        link = self._links[address] = Link(address, self, self._alive)
        self._loops[address] = asyncio.create_task(link.run(), name=f"executor {address}")

    def _vanished(self, address: str) -> None:
        """An address is not listed any more. Who still answers there goes on: a process that ends is taken off the list before it has ended."""
        log.info("an executor's address is gone", address=address)
        link = self._links[address]
        link.listed = False
        if not link.connected:
            self._drop(link)

    def _drop(self, link: Link) -> None:
        del self._links[link.address]
        loop = self._loops.pop(link.address)
        asyncio.get_running_loop().call_soon(loop.cancel)
        link.lost_since = link.lost_since or time.monotonic()

    def _count_anew(self) -> None:
        """This process was asleep: who could not have been heard meanwhile is not to blame for silence."""
        now = time.monotonic()
        for flight in self.flights.values():
            flight.since = now
            flight.due = max(flight.due, now + self._lost_after) if flight.due else 0.0
        for link in self._by_key.values():
            if link.lost_since is not None:
                link.lost_since = now

    def _give_up(self) -> None:
        """Attempts whose executor has not answered for too long are lost (rule R26)."""
        if not self._alive():
            return
        now = time.monotonic()
        for flight in list(self.flights.values()):
            if now - flight.answered(now) > self._lost_after:
                self._lose(flight, f"its executor has not answered for {self._lost_after:.0f} seconds")
            elif flight.due and now > flight.due:
                self._overdue(flight, now)
        for key, link in list(self._by_key.items()):
            if not link.connected and link.lost_since is not None and now - link.lost_since > self._lost_after:
                del self._by_key[key]
                self.changes += 1

    def _overdue(self, flight: Flight, now: float) -> None:
        """An executor that is there has not said within the timeout how an attempt ended: it is told to stop it, and then not believed any more."""
        if flight.overdue:
            self.refusals.note("overdue", "result", flight.executor, flight.attempt_id)
            self._lose(flight, "its executor has not told how it ended, long after its timeout")
            return
        flight.overdue, flight.due = True, now + self._lost_after
        if flight.link is not None and flight.link.connected:
            request = pb.CancelStepRequest(attempt_id=flight.attempt_id, reason="timeout", run_id=flight.run_id)
            flight.link.frames.put_first("cancel", request)
