"""The events of a run: facts, as the core sees them. `wire` gives each its message of `tierflow.events.v1`."""

from __future__ import annotations

from typing import TypeAlias

from tierflow_runtime.values import (
    NO_USAGE,
    Allocation,
    Context,
    Failure,
    LogLine,
    Micros,
    Options,
    Payload,
    Reuse,
    Usage,
)

from tierflow_orchestrator.core.event import Event
from tierflow_orchestrator.core.events_approvals import ApprovalDecided as ApprovalDecided
from tierflow_orchestrator.core.events_approvals import ApprovalEscalated as ApprovalEscalated
from tierflow_orchestrator.core.events_approvals import ApprovalRequested as ApprovalRequested
from tierflow_orchestrator.core.events_approvals import (
    ApprovalResolved as ApprovalResolved,
)
from tierflow_orchestrator.core.events_budget import HoldCharged as HoldCharged
from tierflow_orchestrator.core.events_children import ChildTold as ChildTold
from tierflow_orchestrator.core.events_serverless import (
    ContextExported as ContextExported,
)
from tierflow_orchestrator.core.events_serverless import (
    EventConsumed as EventConsumed,
)
from tierflow_orchestrator.core.events_serverless import (
    StepEntered as StepEntered,
)
from tierflow_orchestrator.core.events_steering import (
    BreakpointsSet as BreakpointsSet,
)
from tierflow_orchestrator.core.events_steering import (
    RunMigrated as RunMigrated,
)
from tierflow_orchestrator.core.events_steering import (
    RunUpdated as RunUpdated,
)
from tierflow_orchestrator.core.events_steering import (
    SignalAnswered as SignalAnswered,
)
from tierflow_orchestrator.core.events_steering import (
    StepHeld as StepHeld,
)
from tierflow_orchestrator.core.events_steering import (
    StepInterrupted as StepInterrupted,
)
from tierflow_orchestrator.core.events_steering import (
    StepReleased as StepReleased,
)
from tierflow_orchestrator.core.events_steering import (
    StepReused as StepReused,
)
from tierflow_orchestrator.core.events_tools import ToolCallBegan as ToolCallBegan
from tierflow_orchestrator.core.events_tools import ToolCallEnded as ToolCallEnded
from tierflow_orchestrator.core.step import CacheHit, Variable


class RunCreated(Event):
    """The run was accepted: everything it was asked for. State: QUEUED."""

    context: Context
    flow_hash: str
    flow_name: str
    flow_version: str
    input: Payload | None
    allocation: Allocation
    options: Options
    reuse: Reuse | None = None


class RunStateChanged(Event):
    """The run went from one state to another (names of RunState without prefix)."""

    from_: str
    to: str
    reason: str = ""
    actor: str = ""
    generation: int = 0
    """The generation that begins with it; 0 where none does."""
    reset_steps: tuple[str, ...] = ()
    """Steps that run again in it. Of a map that is not among them only the items that did not complete."""


class RunEnded(Event):
    """The one terminal event of a generation, and the transition into the final state."""

    from_: str
    to: str
    outcome: str
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE
    reason: str = ""
    unconfirmed_attempts: tuple[str, ...] = ()


class CommandReceived(Event):
    """Somebody told the run to do something: one of `core.steering.APPLIES`. `detail` is what else was said, as text."""

    command_id: str
    command: str
    actor: str
    reason: str
    detail: str = ""
    superseded: tuple[str, ...] = ()


class ItemsExpanded(Event):
    """A map step has `count` items; item i is the step `<step_id>[i]`. The items are evaluated again when the run is loaded."""

    step_id: str
    count: int


class StepScheduled(Event):
    """An attempt was given to an executor: READY or BACKOFF to SCHEDULED."""

    step_id: str
    attempt: int
    attempt_id: str
    epoch: int
    executor_id: str
    handler: str
    input: Payload
    child_run_id: str = ""
    """Of a step that runs another flow: the run that the attempt is."""
    grant: Allocation | None = None
    """Of such a step: what that run may spend; held until the attempt is over."""


class StepStarted(Event):
    """An attempt has started: SCHEDULED to RUNNING."""

    step_id: str
    attempt: int
    attempt_id: str
    started_at: Micros


class StepCompleted(Event):
    """A step ended with a result. A map's output is the array of its items' outputs and is not stored again."""

    step_id: str
    attempt: int = 0
    attempt_id: str = ""
    output: Payload | None = None
    outcome: str = "SUCCESS"
    usage: Usage = NO_USAGE
    directive: str = ""
    """Of a task of a document: where it said to go on; empty: as its definition says."""
    warnings: tuple[str, ...] = ()
    """What rules said that only warn."""
    cached: CacheHit | None = None
    """Where the result comes from, where it was found in the cache."""


class StepRetrying(Event):
    """An attempt failed and another is due at `next_attempt_at`: to BACKOFF."""

    step_id: str
    attempt: int
    attempt_id: str
    failure: Failure
    next_attempt_at: Micros
    usage: Usage = NO_USAGE


class StepFailed(Event):
    """A step ended by a failure; `tolerated` where the flow goes on regardless."""

    step_id: str
    failure: Failure
    attempt: int = 0
    attempt_id: str = ""
    usage: Usage = NO_USAGE
    tolerated: bool = False


class StepSkipped(Event):
    """A step is not needed, or somebody said so: then what needs it goes on, and `output` stands for its output."""

    step_id: str
    reason: str
    unchosen_by: str = ""
    """The switch that chose another branch than the one on which the step is."""
    by_hand: bool = False
    output: Payload | None = None
    attempt: int = 0
    attempt_id: str = ""
    usage: Usage = NO_USAGE
    confirmed: bool = True


class StepCancelled(Event):
    """A step was cancelled; `confirmed` says whether nothing of it is known alive."""

    step_id: str
    reason: str
    attempt: int = 0
    attempt_id: str = ""
    usage: Usage = NO_USAGE
    confirmed: bool = True
    ended_as: str = ""
    """How the attempt ended nevertheless, where it did not stop: its content is refused."""


class CacheMissed(Event):
    """No stored result has the step's key: it may start."""

    step_id: str
    key_hash: str


class VariablesSet(Event):
    """Variables have these values as of a step."""

    step_id: str
    variables: tuple[Variable, ...]


class StepStopping(Event):
    """A step is to be stopped although its run goes on: its attempts in flight are told. `then` is its state once they have stopped."""

    step_id: str
    reason: str
    then: str = "CANCELLED"
    attempt_id: str = ""
    output: Payload | None = None
    """SKIPPED: what will stand for its output."""


class LateResult(Event):
    """A result came for an attempt that was given up: its cost is booked, its content refused."""

    step_id: str
    attempt_id: str
    state: str
    usage: Usage
    charged: Usage | None = None
    """What had been taken as spent for it, and is taken back."""


class AttemptLogged(Event):
    """What an attempt wrote."""

    step_id: str
    attempt: int
    attempt_id: str
    lines: tuple[LogLine, ...]


class StepWaiting(Event):
    """A step of a kind that calls nothing has begun to wait: READY to RUNNING. `until` is the latest moment, None where there is none."""

    step_id: str
    reason: str
    until: Micros | None = None


class BlockBegan(Event):
    """The steps within a step have begun, for the `attempt`-th time: READY or BACKOFF to RUNNING. They must have ended at `until`."""

    step_id: str
    attempt: int = 1
    until: Micros | None = None


class StepGrown(Event):
    """An attempt returned further steps (`definition`, a JSON text): they begin as a block below the step, which stays RUNNING until they have ended."""

    step_id: str
    definition: str
    attempt: int = 0
    attempt_id: str = ""
    usage: Usage = NO_USAGE


class IterationBegan(Event):
    """A loop's next iteration, the step `<step_id>[<index>]`, has begun; with the first one the loop itself, which must have ended at `until`."""

    step_id: str
    index: int
    until: Micros | None = None


class HandlerCalled(Event):
    """A step failed, and the step that handles its error begins: `handler_step` is that one's id. The failed step is RUNNING until it is known what follows."""

    step_id: str
    handler_step: str
    failure: Failure
    attempt: int = 0
    attempt_id: str = ""
    usage: Usage = NO_USAGE


class StepReset(Event):
    """The step that handled its error wants a step to begin again: RUNNING to READY."""

    step_id: str


class CompensationBegan(Event):
    """What a step did is being undone: COMPLETED to COMPENSATING. The compensating call is the step `<step_id>!compensate`."""

    step_id: str


class StepCompensated(Event):
    """What a step did is undone: COMPENSATING to COMPENSATED."""

    step_id: str


class CompensationFailed(Event):
    """What a step did could not be undone: COMPENSATING to FAILED."""

    step_id: str
    failure: Failure


class EventEmitted(Event):
    """A step published an event of the flow's own."""

    step_id: str
    name: str
    payload: Payload


class SignalReceived(Event):
    """A message for a step that waits for it, or is going to. `payload` is a JSON text."""

    signal_id: str
    name: str
    payload: str
    actor: str = ""


RunEvent: TypeAlias = (
    StepEntered
    | ContextExported
    | EventConsumed
    | RunCreated
    | RunStateChanged
    | RunEnded
    | CommandReceived
    | ItemsExpanded
    | StepScheduled
    | StepStarted
    | StepCompleted
    | StepRetrying
    | StepFailed
    | StepSkipped
    | StepCancelled
    | CacheMissed
    | VariablesSet
    | StepStopping
    | LateResult
    | HoldCharged
    | AttemptLogged
    | StepWaiting
    | BlockBegan
    | StepGrown
    | IterationBegan
    | HandlerCalled
    | ToolCallBegan
    | ToolCallEnded
    | StepReset
    | CompensationBegan
    | StepCompensated
    | CompensationFailed
    | EventEmitted
    | SignalReceived
    | ChildTold
    | ApprovalRequested
    | ApprovalDecided
    | ApprovalEscalated
    | ApprovalResolved
    | StepReused
    | StepInterrupted
    | StepHeld
    | StepReleased
    | BreakpointsSet
    | RunUpdated
    | RunMigrated
    | SignalAnswered
)
