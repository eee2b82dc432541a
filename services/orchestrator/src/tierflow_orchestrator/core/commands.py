"""What can be asked of a run, and the effects that its events demand."""

from __future__ import annotations

from typing import Any, TypeAlias, dataclass_transform

import msgspec
from tierflow_runtime.values import (
    NO_USAGE,
    Allocation,
    Context,
    Failure,
    LogLine,
    Micros,
    Options,
    Payload,
    RetryPolicy,
    Reuse,
    Usage,
)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True, gc=False):
    """Base of commands. They are tagged, so that they can be forwarded to a run's owner (rule R14)."""


class ReusedStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A result that a run starts with."""

    step_id: str
    output: Payload | None
    outcome: str


class CreateRun(Command):
    """Accept a run. The flow was found; the input is a JSON object; `reused` are the results that `reuse` names."""

    context: Context
    flow_hash: str
    flow_name: str
    flow_version: str
    input: Payload | None
    allocation: Allocation
    options: Options
    reuse: Reuse | None = None
    reused: tuple[ReusedStep, ...] = ()


class AssignSlot(Command):
    """A slot of an executor is reserved for a step that is READY (rule R24)."""

    step_id: str
    executor_id: str
    side_effecting: bool = False
    """Whether the handler says of itself that it changes the world outside."""
    tool: bool = False
    """Whether the handler says of itself that each attempt is a tool call."""
    input_schema: str = ""
    """JSON Schema that the executor's handler has for its input; empty where it takes anything."""
    child_run_id: str = ""
    """Of a step that runs another flow: the run that it is going to be."""


class Recall(Command):
    """What was found in the cache for a step: nothing, or a result."""

    step_id: str
    key_hash: str
    found: bool = False
    output: Payload | None = None
    run_id: str = ""
    made_by: str = ""
    stored_at: Micros = 0


class ReportStarted(Command):
    """The executor has started an attempt. Stale where the attempt is not the step's present one or has moved on."""

    attempt_id: str
    started_at: Micros


class ReportResult(Command):
    """An attempt ended: `state` is COMPLETED, FAILED or CANCELLED. Stale results are booked and refused (rule R23)."""

    attempt_id: str
    state: str
    outcome: str = "SUCCESS"
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE
    started_at: Micros | None = None
    logs: tuple[LogLine, ...] = ()
    executor_id: str = ""
    """Who says so; empty where it is this orchestrator itself. Only the executor that was given the attempt is believed."""


class ReportLost(Command):
    """The executor of an attempt is gone, or answered that it does not know it, and nobody knows how it ended (rule R26)."""

    attempt_id: str
    reason: str


class ReportUnconfirmed(Command):
    """The executor could not confirm within the grace time that a cancelled attempt is stopped."""

    attempt_id: str


class ReportTool(Command):
    """An attempt calls a tool, or says how that ended: then with `outcome`, one of SUCCESS, FAILURE, CANCELLED."""

    attempt_id: str
    number: int
    tool: str
    outcome: str = ""
    code: str = ""
    duration: Micros | None = None
    size: int = 0


class ReportTold(Command):
    """The run of a step has heard that it is to pause with its parent, or to go on."""

    attempt_id: str
    paused: bool


class WakeUp(Command):
    """A moment that the run waited for has come."""


class FailPrepare(Command):
    """The run cannot start: what its preparation found."""

    failure: Failure


class Pause(Command):
    """Start nothing new; let what runs finish, or stop it: then its steps are READY again."""

    command_id: str
    actor: str = ""
    reason: str = ""
    interrupt: bool = False
    supersedes: tuple[str, ...] = ()
    """Ids of earlier commands: those that come later than this one change nothing."""


class Resume(Command):
    """Go on."""

    command_id: str
    actor: str = ""
    reason: str = ""
    supersedes: tuple[str, ...] = ()


class Cancel(Command):
    """Stop everything now."""

    command_id: str
    actor: str = ""
    reason: str = ""


class Bury(Command):
    """Cancel a run that has not come yet: it is cancelled from its beginning, and its request, when it comes, is refused (rule R29)."""

    context: Context
    cancel: Cancel


class Retry(Command):
    """From FAILED: open a generation. `generation` 0 is the next one; `deadline` is the new end in time, where there is one."""

    command_id: str
    actor: str = ""
    reason: str = ""
    generation: int = 0
    deadline: Micros | None = None
    funds: dict[str, int] = {}
    """What all generations together may spend, by dimension; 0 takes a limit away, what is absent stays."""
    supersedes: tuple[str, ...] = ()


class Skip(Command):
    """End a step as SKIPPED; what needs it goes on."""

    command_id: str
    step_id: str
    output: Payload | None = None
    actor: str = ""
    reason: str = ""


class StepOnce(Command):
    """From PAUSED: run what is ready now, or only `step_id`, and pause again."""

    command_id: str
    step_id: str = ""
    actor: str = ""
    reason: str = ""


class SetBreakpoints(Command):
    """Pause before these steps from now on; `*` is every step."""

    command_id: str
    breakpoints: tuple[str, ...] = ()
    actor: str = ""
    reason: str = ""


class Update(Command):
    """Change limits and policies. None and empty leave what is there; 0 takes a limit away."""

    command_id: str
    actor: str = ""
    reason: str = ""
    concurrency: int | None = None
    concurrent_steps: int | None = None
    steps: int | None = None
    credits: int | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    deadline: Micros | None = None
    failure_policy: str = ""
    retry: RetryPolicy | None = None
    expected_version: int | None = None


class Migrate(Command):
    """From PAUSED: go on with another version of the flow. `only_check` changes nothing.

    `definition` is its canonical text; `flow` is that, compiled by the shell where it is decided.
    """

    command_id: str
    definition: str
    actor: str = ""
    reason: str = ""
    only_check: bool = False
    flow: Any = None


class Signal(Command):
    """A message for a step of this name. `payload` is a JSON text."""

    command_id: str
    name: str
    payload: str = "null"
    actor: str = ""


class DecideApproval(Command):
    """Somebody approves, rejects or delegates: `verdict` is APPROVED, REJECTED or DELEGATED."""

    command_id: str
    step_id: str
    verdict: str
    actor: str
    roles: tuple[str, ...] = ()
    reason: str = ""
    delegate_to: str = ""


class Abort(Command):
    """End the run at once: a defect was met while deciding for it (F28). Attempts in flight are told to stop, but not waited for."""

    failure: Failure


RunCommand: TypeAlias = (
    CreateRun
    | Bury
    | AssignSlot
    | Recall
    | ReportStarted
    | ReportResult
    | ReportLost
    | ReportUnconfirmed
    | WakeUp
    | FailPrepare
    | Pause
    | Resume
    | Cancel
    | Abort
    | Signal
    | DecideApproval
    | Retry
    | Skip
    | StepOnce
    | SetBreakpoints
    | Update
    | Migrate
    | ReportTold
    | ReportTool
)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Effect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of effects: work that must follow a committed event. Each may be repeated."""


class DispatchAttempt(Effect):
    """Send an attempt to its executor. After a restart, first ask the executor whether it has it (rule R25)."""

    step_id: str
    attempt: int
    attempt_id: str
    epoch: int
    executor_id: str
    handler: str
    input: Payload


class StopAttempt(Effect):
    """Tell the executor to stop an attempt, until there is a receipt."""

    attempt_id: str
    executor_id: str
    reason: str


class TellChild(Effect):
    """Tell the run of a step to pause or to go on, until it has heard."""

    attempt_id: str
    child_run_id: str
    paused: bool


class StoreResult(Effect):
    """Store a result under its key. It may be lost: then it is made again."""

    step_id: str
    key_hash: str
    output: Payload | None
    ttl: Micros


class ReportEnd(Effect):
    """Tell Tier 1 how the run ended, until it is acknowledged (rule R28)."""
