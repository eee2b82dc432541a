"""What can be asked of a swarm, what is answered, and the effects that its events demand."""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Failure, Micros, Options, Payload, Reuse, Usage


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True, gc=False):
    """Base of commands. They are tagged, so that they can be forwarded to a swarm's owner (rule R14)."""


class CreateSwarm(Command):
    """Accept a swarm that passed admission, and ask for its run. The service chose both ids."""

    context: Context
    run_id: str
    flow_hash: str
    flow_name: str
    flow_version: str
    input: Payload | None
    allocation: Allocation
    options: Options
    goal: str = ""
    reuse: Reuse | None = None


class TakeRun(Command):
    """An orchestrator has stored the run."""

    run_id: str


class RefuseRun(Command):
    """Tier 2 refused the run for good: nothing of it is stored there."""

    run_id: str
    failure: Failure


class FinishRun(Command):
    """The run ended: `state` is COMPLETED, FAILED or CANCELLED. Stale where it was told before or is of another run."""

    run_id: str
    generation: int
    state: str
    outcome: str
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE


class ReportRunState(Command):
    """Where the run is, as an orchestrator says (a name of RunState without prefix)."""

    run_id: str
    state: str


class SteerSwarm(Command):
    """A person's or program's command: one of `core.states.COMMANDS`. Repeating a command id changes nothing."""

    command: str
    command_id: str
    actor: str = ""
    reason: str = ""


class WakeUp(Command):
    """A moment that the swarm waited for has come."""


SwarmCommand: TypeAlias = CreateSwarm | TakeRun | RefuseRun | FinishRun | ReportRunState | SteerSwarm | WakeUp


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a command did: whether it changed anything, and the state after it."""

    applied: bool
    state: str
    generation: int = 1


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Effect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of effects: work that must follow a committed event. Each may be repeated."""


class RequestRun(Effect):
    """Ask Tier 2 for the run, or attach to it where it exists, until it is accepted or refused."""

    run_id: str
    generation: int


class CommandRun(Effect):
    """Tell the run to `pause`, `interrupt`, `resume`, `cancel` or `retry`, until there is a receipt (rule R29)."""

    run_id: str
    command: str
    command_id: str
    actor: str
    reason: str
    generation: int = 0
    """Of a retry: the generation to open."""
    deadline: Micros | None = None
    """Of a retry: when all of it must be over."""


class AnswerWaiting(Effect):
    """Bring the result to everybody who waits for it."""
