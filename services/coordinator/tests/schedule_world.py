"""A schedule on a virtual clock, with the engine's part played by hand: for tests of its pure core."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from tierflow_contracts.common.v1.schedule_pb2 import SwarmTemplate
from tierflow_coordinator.core.schedules import commands, events, states
from tierflow_coordinator.core.schedules.decide import decide
from tierflow_coordinator.core.schedules.firing import Firing, request_id
from tierflow_coordinator.core.schedules.react import react
from tierflow_coordinator.core.schedules.schedule import Schedule, evolve
from tierflow_coordinator.core.schedules.spec import SECOND, Spec
from tierflow_coordinator.core.schedules.times import local, moments, text_of
from tierflow_coordinator.schedules.machine import ScheduleMachine
from tierflow_runtime.values import Failure

ID = "0190b0a0-0000-7000-8000-000000000001"
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
START = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z
FAILURE = Failure(code="INTERNAL", message="it broke", tier=2)
MACHINE = ScheduleMachine()


class World:
    """A schedule, its moment, the swarms that it makes, and everything that it decided: replayed at the end."""

    def __init__(self, spec: Spec, *, now: int = START, paused: bool = False) -> None:
        self.schedule = Schedule(schedule_id=ID)
        self.now = now
        self.journal: list[tuple[int, events.ScheduleEvent]] = []
        self.requests: dict[str, str] = {}
        """Request id to swarm: what Tier 1 stores, once for each id."""
        self.asked: list[str] = []
        self.commands = 0
        self.tell(
            commands.CreateSchedule(name="n", tenant="t", user_id="u", roles=(), spec=spec, paused=paused), answer=False
        )

    def tell(self, command: commands.ScheduleCommand, *, answer: bool = True) -> commands.Reply:
        """Decides; carries the effects out as the engine does."""
        decision = decide(self.schedule, command, self.now)
        self.journal += [(self.now, event) for event in decision.events]
        for event in decision.events:
            for effect in react(event):
                if isinstance(effect, commands.MakeSwarm) and answer:
                    self.make(effect.firing_id)
        return decision.reply

    def make(self, firing_id: str) -> str:
        """Makes the firing's swarm as admission does: once for each request id. Returns it."""
        swarm_id = self.requests.setdefault(request_id(ID, firing_id), f"swarm-{len(self.requests)}")
        self.asked.append(firing_id)
        self.tell(commands.FiringMade(firing_id=firing_id, swarm_id=swarm_id))
        return swarm_id

    def end(self, outcome: str = "SUCCESS", firing_id: str = "") -> None:
        """Ends the oldest swarm that is at work, or one."""
        firing = self.schedule.open[firing_id] if firing_id else self.schedule.running[0]
        failure = FAILURE if outcome == "FAILURE" else None
        self.tell(
            commands.FiringOver(
                firing_id=firing.firing_id, swarm_id=firing.swarm_id, tenant="t", outcome=outcome, failure=failure
            )
        )

    def until(self, moment: int, *, ends: bool = True) -> None:
        """Lets time pass, waking the schedule at its moments; its swarms end at once where `ends`."""
        while (wake := self.schedule.wake_at) is not None and wake <= moment and not self.schedule.over:
            self.now = max(self.now, wake)
            self.tell(commands.WakeUp())
            while ends and self.schedule.running:
                self.end()
        self.now = max(self.now, moment)

    def say(self, kind: type[commands.Told], **fields: Any) -> commands.Reply:
        """Somebody's command."""
        self.commands += 1
        return self.tell(kind(command_id=f"c{self.commands}", actor="u", **fields))

    def fired(self, kind: str = states.SCHEDULED) -> list[str]:
        """Times that began, in order."""
        begun = [
            event.firing
            for _, event in self.journal
            if isinstance(event, events.FiringChanged) and event.firing.state == states.REQUESTED
        ]
        return [text_of(firing.time)[:16] for firing in begun if firing.kind == kind and firing.retry_at is None]

    def changes(self, state: str) -> list[Firing]:
        """Firings that came into a state."""
        found = [event.firing for _, event in self.journal if isinstance(event, events.FiringChanged)]
        return [firing for firing in found if firing.state == state]

    def check(self) -> None:
        """The state is what its journal gives, through its messages and through a snapshot (R16, V3)."""
        again = Schedule(schedule_id=ID)
        for seq, (time, event) in enumerate(self.journal, 1):
            batch = b"\x12" + _length(encoded := MACHINE.encode(event, seq, time)) + encoded
            for _, stored_at, stored in MACHINE.decode(batch):
                evolve(again, stored, stored_at)
        assert _plain(again) == _plain(self.schedule)
        assert _plain(MACHINE.load(MACHINE.dump(self.schedule))) == _plain(self.schedule)
        assert len(self.requests) == len(set(self.requests.values()))


def _length(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length])


def _plain(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(schedule, planned=None)


def template(text: str) -> bytes:
    """What a schedule makes."""
    return SwarmTemplate(correlation_id=text).SerializeToString()


def at(text: str, zone: str = "UTC") -> int:
    """A moment from local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def times(spec: Spec, after: int, count: int) -> list[str]:
    """The next times by the clock of the spec's zone."""
    found: list[str] = []
    for moment in moments(spec, ID, after):
        found.append(local(moment.time, spec.time_zone).strftime("%m-%d %H:%M %z"))
        if len(found) == count:
            break
    return found
