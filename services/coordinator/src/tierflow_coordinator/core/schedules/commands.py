"""What can be asked of a schedule, what is answered, and the effects that its events demand."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator.core.commands import Command, Effect
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.spec import Spec


class CreateSchedule(Command):
    """Accept a schedule that was checked."""

    name: str
    tenant: str
    user_id: str
    roles: tuple[str, ...]
    spec: Spec
    request_id: str = ""
    paused: bool = False
    reason: str = ""


class Told(Command):
    """Base of what a person or program asks. Repeating a command id changes nothing."""

    command_id: str
    actor: str = ""
    reason: str = ""


class UpdateSchedule(Told, kw_only=True):
    """Do something else from now on; `expected_version` 0 is any."""

    spec: Spec
    expected_version: int = 0


class PauseSchedule(Told):
    """Let times pass."""


class ResumeSchedule(Told):
    """Fire again, from now on."""


class TriggerSchedule(Told):
    """Fire now; `overlap` empty is as the schedule says."""

    overlap: str = ""


class BackfillSchedule(Told, kw_only=True):
    """Fire past times."""

    times: tuple[Micros, ...]
    concurrent: bool = False


class DeleteSchedule(Told):
    """End for good."""

    cancel_running: bool = False


class FiringMade(Command):
    """The firing's swarm is stored."""

    firing_id: str
    swarm_id: str


class FiringRefused(Command):
    """The firing's swarm was not made."""

    firing_id: str
    failure: Failure


class FiringOver(Command):
    """A swarm of the schedule has ended."""

    firing_id: str
    swarm_id: str
    tenant: str
    outcome: str
    failure: Failure | None = None
    ended_at: Micros | None = None


class WakeUp(Command):
    """A moment that the schedule waited for has come."""


ScheduleCommand: TypeAlias = (
    CreateSchedule
    | UpdateSchedule
    | PauseSchedule
    | ResumeSchedule
    | TriggerSchedule
    | BackfillSchedule
    | DeleteSchedule
    | FiringMade
    | FiringRefused
    | FiringOver
    | WakeUp
)


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command did: whether it changed anything, now or before; the state after it; the firing that it is about."""

    applied: bool
    state: str
    version: int = 1
    firing: Firing | None = None


class MakeSwarm(Effect):
    """Submit the firing's swarm, until it is stored or refused; the same request id each time."""

    firing_id: str


class CancelSwarm(Effect):
    """Cancel the firing's swarm, until it has ended."""

    firing_id: str
    swarm_id: str


class NoteFiring(Effect):
    """Count it."""

    firing: Firing


class NoteMissed(Effect):
    """Count them."""

    count: int
