"""The runs that this instance's swarms asked for: sent to an orchestrator, again until accepted or refused, and told what to do until there is a receipt.

Everything here may be lost and is built again from the swarms' states (`core.react.open_effects`); nothing here is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Final

from tierflow_contracts.common.v1.blackboard_pb2 import ContextCall
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Context, FailureError
from tierflow_runtime.wire import RUN_STATES, failure_from_proto

from tierflow_coordinator import wire
from tierflow_coordinator.core import commands
from tierflow_coordinator.line import Line
from tierflow_coordinator.links import Link
from tierflow_coordinator.room import PROBE_EVERY
from tierflow_coordinator.wanted import FULL, IN_EFFECT, UNDONE, WEATHER, Answers, Fleet, Wanted

log = get_log(__name__)

RETRY_FIRST: Final = 2.0
RETRY_MOST: Final = 30.0
REATTACH_AFTER: Final = 1.0
POLL_FIRST: Final = 0.5
POLL_MOST: Final = 5.0
TICK: Final = 0.05
LONGEST_LOOK: Final = 0.25
SLICE: Final = 100


def _nobody() -> None:
    """Hears nothing."""


class Runs:
    """All wanted runs of this instance, and the retries. `Listener` of the links."""

    def __init__(self, answers: Answers, *, clock: Callable[[], float] | None = None) -> None:
        self._answers = answers
        self._clock = clock or asyncio.get_running_loop().time
        self.fleet: Fleet
        self.context_call: Callable[[Link, ContextCall], None]
        """Hears what attempts ask of their swarm's context."""
        self._wanted: dict[str, Wanted] = {}
        self._homeless: dict[str, Wanted] = {}
        """Runs and commands that found no orchestrator."""
        self._line = Line()
        self._probe_at = 0.0
        self._of_link: dict[Link, dict[str, Wanted]] = {}
        self._timers: list[tuple[float, int, Wanted]] = []
        self._order = itertools.count()
        self._timer_set = asyncio.Event()
        self.caught_up: Callable[[], None] = _nobody
        """Hears that fewer runs wait than before."""

    def __len__(self) -> int:
        return len(self._wanted)

    def position(self, run_id: str) -> int:
        """The run's place in the line of those for which no orchestrator has room, from 1; 0 where it does not stand in it."""
        return self._line.position(run_id)

    @property
    def waiting(self) -> int:
        """Runs for which no orchestrator has room."""
        return len(self._line)

    @property
    def behind(self) -> int:
        """Runs that wait because the orchestrators have not answered yet what they were asked before; not those for which nobody has room."""
        return len(self._line) if self._line and self.fleet.busy() else 0

    # --- what swarms want ---

    def request(self, swarm_id: str, run_id: str, build: Callable[[], run_pb2.RunExecutionRequest]) -> None:
        """Asks for a run, or attaches to it, until it is accepted or refused."""
        wanted = self._wanted.setdefault(run_id, Wanted(swarm_id, run_id, build))
        wanted.build = build
        self._send(wanted)

    def command(self, swarm_id: str, effect: commands.CommandRun, context: Context) -> None:
        """Brings a command to a run, until there is a receipt. The latest replaces what was not yet received. `context` is the run's."""
        wanted = self._wanted.get(effect.run_id)
        if wanted is None:
            wanted = self._wanted[effect.run_id] = Wanted(swarm_id, effect.run_id, None)
        if wanted.order is not None and wanted.order.command_id == effect.command_id:
            return
        wanted.order, wanted.context = effect, context
        wanted.polls = 0
        self._send_command(wanted)

    def forget(self, run_id: str, *, but_command: bool = False) -> None:
        """The swarm no longer waits for the run, or is no longer owned here; with `but_command` a command under way still gets its receipt."""
        wanted = self._wanted.get(run_id)
        if wanted is None:
            return
        wanted.build = None
        wanted.due = 0.0
        self._leave(wanted)
        if not but_command or wanted.order is None:
            del self._wanted[run_id]
            self._homeless.pop(run_id, None)
            self._line.leave(run_id)
            wanted.command_at = 0.0

    def settled(self, run_id: str) -> bool:
        """Whether the run is accepted and no command to it is under way: nothing would be missed if the swarm were let go."""
        wanted = self._wanted.get(run_id)
        return wanted is None or (wanted.accepted and wanted.order is None)

    def acknowledge(self, link: Link, run_id: str, generation: int) -> None:
        """Tells the orchestrator that brought a result that it is committed."""
        link.put_first("acknowledge", orchestrator.RunAcknowledgement(run_id=run_id, generation=generation))

    # --- what the links say ---

    def link_up(self, link: Link) -> None:
        """Sends what found no orchestrator."""
        homeless, self._homeless = self._homeless, {}
        for wanted in homeless.values():
            self._schedule(wanted, 0.0)
            if wanted.order is not None:
                wanted.command_at = self._clock()
                self._push(wanted.command_at, wanted)

    def link_down(self, link: Link) -> None:
        """What was on its way there is sent elsewhere: at once where it was not accepted, after a while where it only lost its listener."""
        lost = self._of_link.pop(link, {})
        link.outstanding = link.asked = 0
        for wanted in lost.values():
            wanted.link = None
            wanted.asked = False
            if wanted.accepted:
                # The run lives, and its result comes by any orchestrator (rule R28); attaching again finds it sooner.
                wanted.accepted = False
                self._schedule(wanted, REATTACH_AFTER * random.uniform(1.0, 2.0))
            else:
                self._schedule(wanted, 0.0)

    def received(self, link: Link, frame: orchestrator.ExecuteRunsResponse) -> None:
        """Hands out a frame, item by item."""
        for accepted in frame.accepted:
            self._accepted(link, accepted)
        for refused in frame.refused:
            self._refused(link, refused)
        for redirect in frame.redirects:
            self._redirected(redirect)
        for answer in frame.commands:
            self._answered(link, answer)
        for result in frame.results:
            self._answers.run_ended(link, result)
        for call in frame.context_calls:
            self.context_call(link, call)

    def _accepted(self, link: Link, answer: orchestrator.StartRunResponse) -> None:
        wanted = self._wanted.get(answer.run_id)
        if wanted is None or wanted.accepted or wanted.build is None:
            return
        wanted.accepted = True
        self._answered_for(wanted)
        wanted.due = 0.0
        wanted.tries = wanted.unanswered = 0
        self._enter(wanted, link)
        self._line.leave(wanted.run_id)
        self._answers.run_accepted(wanted.swarm_id, wanted.run_id)
        if wanted.order is not None:
            self._send_command(wanted)
        if not answer.created:
            self._answers.run_state(wanted.swarm_id, wanted.run_id, RUN_STATES.name(answer.state))

    def _refused(self, link: Link, refused: orchestrator.RunRefused) -> None:
        wanted = self._wanted.get(refused.run_id)
        if wanted is None or wanted.accepted:
            return
        wanted.unanswered -= 1
        refusal = failure_from_proto(refused.failure)
        if refusal.code in FULL:
            self._leave(wanted)
            if link.room.refused(link.outstanding):
                log.info("an orchestrator has no room", address=link.address, code=refusal.code, runs=link.outstanding)
            self._queue(wanted)
            return
        if refusal.code in WEATHER:
            after = refusal.retry_after / 1_000_000 if refusal.retry_after else RETRY_FIRST
            self._leave(wanted)
            self._schedule(wanted, after * random.uniform(1.0, 1.5))
            return
        self._answers.run_refused(wanted.swarm_id, wanted.run_id, refusal)

    def _redirected(self, redirect: orchestrator.RunRedirect) -> None:
        wanted = self._wanted.get(redirect.run_id)
        if wanted is None or wanted.build is None:
            return
        link = self.fleet.link_to(redirect.address)
        if link.ready and link is not wanted.link:
            wanted.accepted = False
            self._send(wanted, link)
        else:
            # Its owner is not connected yet, or no longer owns it: ask again, anyone.
            self._leave(wanted)
            self._schedule(wanted, REATTACH_AFTER)

    def _answered(self, link: Link, answer: orchestrator.CommandRunResponse) -> None:
        wanted = self._wanted.get(answer.run_id)
        if wanted is None or wanted.order is None or wanted.order.command_id != answer.command_id:
            return
        if answer.HasField("failure"):
            self._command_failed(wanted, wanted.order.command, failure_from_proto(answer.failure).code)
            return
        command, state = wanted.order.command, RUN_STATES.name(answer.state)
        if state in IN_EFFECT.get(command, (state,)):
            self._in_effect(link, wanted, command, state)
        else:
            # Received, not yet done: Tier 2 says so again when it is, and is asked in case that was lost.
            self._poll(wanted)
            if command == "pause" and answer.applied and state in UNDONE:
                self._answers.pause_undone(wanted.swarm_id)
        self._answers.run_state(wanted.swarm_id, wanted.run_id, state)

    def _in_effect(self, link: Link, wanted: Wanted, command: str, state: str) -> None:
        """The run is as the command wants it."""
        self._received(wanted, command)
        if command == "cancel" and state == "CANCELLED" and not wanted.accepted:
            self._send(wanted, link)  # Its tombstone refuses the request, or its result comes.

    def _command_failed(self, wanted: Wanted, command: str, code: str) -> None:
        if code in WEATHER or code == "NOT_FOUND":
            self._poll(wanted)
        else:
            self._received(wanted, command)

    def _received(self, wanted: Wanted, command: str) -> None:
        wanted.order = None
        wanted.command_at = 0.0
        if command == "cancel":
            self._answers.cancel_received(wanted.swarm_id, wanted.run_id)

    # --- sending ---

    def _send(self, wanted: Wanted, to: Link | None = None) -> None:
        if wanted.build is None:
            return
        link = to or self.fleet.pick()
        if link is None:
            self._leave(wanted)
            if self.fleet.any() is None:
                self._homeless[wanted.run_id] = wanted
            else:
                self._queue(wanted)
            return
        self._enter(wanted, link)
        if not wanted.asked:
            wanted.asked = True
            link.asked += 1
        wanted.tries += 1
        wanted.unanswered += 1
        self._schedule(wanted, min(RETRY_FIRST * 2 ** (wanted.tries - 1), RETRY_MOST) * random.uniform(0.9, 1.1))
        try:
            link.put("execute", wanted.build())
        except FailureError as error:
            self._answers.run_refused(wanted.swarm_id, wanted.run_id, error.failure)

    def _send_command(self, wanted: Wanted) -> None:
        order = wanted.order
        if order is None or (order.command != "cancel" and wanted.build is not None and not wanted.accepted):
            return  # Only a cancel may come before its run (rule R29); anything else follows the acceptance.
        link = wanted.link if wanted.link is not None and wanted.link.ready else self.fleet.any()
        if link is None:
            self._homeless[wanted.run_id] = wanted
            return
        # Only a cancel leaves a tombstone where the run is not there.
        context = wanted.context if order.command == "cancel" else None
        link.put_first("commands", wire.run_command(order, context))
        self._poll(wanted)

    def _poll(self, wanted: Wanted) -> None:
        wanted.polls += 1
        delay = min(POLL_FIRST * 2 ** (wanted.polls - 1), POLL_MOST)
        wanted.command_at = self._clock() + delay
        self._push(wanted.command_at, wanted)

    def _schedule(self, wanted: Wanted, delay: float) -> None:
        wanted.due = self._clock() + delay
        self._push(wanted.due, wanted)

    def _push(self, at: float, wanted: Wanted) -> None:
        heapq.heappush(self._timers, (at, next(self._order), wanted))
        self._timer_set.set()

    def _queue(self, wanted: Wanted) -> None:
        """All orchestrators are full: the run waits in line."""
        wanted.due = 0.0
        self._line.join(wanted)
        self._timer_set.set()

    def _advance(self) -> bool:
        """Sends those who wait as far as there is room, in slices. Returns whether there is more to do now."""
        now = self._clock()
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY
            self.fleet.probe(waiting=len(self._line))
        for _ in range(SLICE):
            link = self.fleet.pick() if self._line else None
            if link is None or (wanted := self._line.next()) is None:
                return False
            if wanted.build is not None and not wanted.accepted:
                self._send(wanted, link)
            self.caught_up()
        return True

    def _enter(self, wanted: Wanted, link: Link) -> None:
        if wanted.link is not link:
            self._leave(wanted)
            wanted.link = link
            self._of_link.setdefault(link, {})[wanted.run_id] = wanted
            link.outstanding += 1

    def _answered_for(self, wanted: Wanted) -> None:
        """Its link has one less to answer."""
        if wanted.asked:
            wanted.asked = False
            if wanted.link is not None:
                wanted.link.asked -= 1
            if self._line:
                self._timer_set.set()

    def _leave(self, wanted: Wanted) -> None:
        self._answered_for(wanted)
        link, wanted.link = wanted.link, None
        if link is not None and self._of_link.get(link, {}).pop(wanted.run_id, None) is not None:
            link.outstanding -= 1
            if self._line:
                self._timer_set.set()

    async def run(self) -> None:
        """Retries what got no answer, until cancelled. Looks at its timers together, never one by one: nearly all of them are past when they are due."""
        while True:
            if self._fire() | self._advance():
                await asyncio.sleep(0)
                continue
            self._timer_set.clear()
            if not self._timers and not self._line:
                await self._timer_set.wait()
            if self._line:
                # Room comes with the end of a run, which sets the event.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._timer_set.wait(), LONGEST_LOOK)
                continue
            await asyncio.sleep(max(TICK, min(LONGEST_LOOK, self._timers[0][0] - self._clock())))

    def _fire(self) -> bool:
        """Does what is due, in slices: after a lost stream that may be everything. Returns whether there is more."""
        now = self._clock()
        for _ in range(SLICE):
            if not self._timers or self._timers[0][0] > now:
                return False
            at, _, wanted = heapq.heappop(self._timers)
            # Both may be due at one moment, and the run itself need not be wanted any more: then only its command is.
            if at == wanted.due and not wanted.accepted:
                self._send(wanted)
            if at == wanted.command_at and wanted.order is not None:
                self._send_command(wanted)
        return True
