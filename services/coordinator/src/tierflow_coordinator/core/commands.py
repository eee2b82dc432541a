"""What can be asked of a swarm, what is answered, and the effects that its events demand."""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Failure, Micros, Options, Payload, Reuse, Usage

from tierflow_coordinator.core.plan import PlannedRun


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
    plan: tuple[PlannedRun, ...] = ()
    """Of a plan of several runs: then `run_id` is that of the first that takes place, and there is no flow."""
    plan_output: str = ""


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


class Shared(Command, kw_only=True):
    """Base of commands about what a swarm shares. Repeating a command id changes nothing. `run_id` and `step_id` name the agent that asks, where one does."""

    command_id: str
    actor: str = ""
    run_id: str = ""
    step_id: str = ""


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key to write, with its value as it is stored; None removes it. `expected` is the version that it must have, 0: none."""

    key: str
    value: Payload | None = None
    encoding: str = ""
    size: int = 0
    sha256: str = ""
    expected: int | None = None


class WriteKeys(Shared, kw_only=True):
    """Write keys of the blackboard, all of them or none."""

    changes: tuple[KeyChange, ...]


class UpdateContext(Shared, kw_only=True):
    """Change goal, limits, policy (a JSON object to merge in) or flags; None stays as it is."""

    expected: int
    goal: str | None = None
    limits: Allocation | None = None
    policy: str | None = None
    adaptive: bool | None = None
    reason: str = ""


class FundSwarm(Shared, kw_only=True):
    """Change what the swarm, and its run with it, may spend; None stays as it is, `cleared` are no longer limited."""

    limits: Allocation
    cleared: tuple[str, ...] = ()
    reason: str = ""


class CheckpointContext(Shared, kw_only=True):
    """Give what is shared now a name."""

    name: str


class RestoreContext(Shared, kw_only=True):
    """Go back to what has that name. `expected` is the revision that it must have now."""

    name: str
    expected: int | None = None
    reason: str = ""


SwarmCommand: TypeAlias = (
    CreateSwarm
    | TakeRun
    | RefuseRun
    | FinishRun
    | ReportRunState
    | SteerSwarm
    | WakeUp
    | WriteKeys
    | UpdateContext
    | FundSwarm
    | CheckpointContext
    | RestoreContext
)


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a command did: whether it changed anything, and the state after it."""

    applied: bool
    state: str
    generation: int = 1
    revision: int = 0
    """Of a command about what is shared: the revision that it made, or the present one where it changed nothing."""
    changed: int = 0
    """Of a restore: keys that are different from before."""


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
    allocation: Allocation | None = None
    """Of a retry: what all generations of the run together may spend, where anything is limited."""
    supersedes: tuple[str, ...] = ()
    """Earlier commands: those that reach the run later than this one change nothing there."""


class TellSchedule(Effect):
    """Tell the schedule that made the swarm how it ended, until that is committed there."""


class AnswerWaiting(Effect):
    """Bring the result to everybody who waits for it."""
