"""The events of a swarm: facts, as the core sees them. `wire` gives each its message of `tierflow.events.v1`."""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Failure, Options, Payload, Reuse, Usage

from tierflow_coordinator.core.board import Settings
from tierflow_coordinator.core.plan import FlowChoice, PlannedRun


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of events. The journal adds sequence number and time."""


class SwarmCreated(Event):
    """The swarm was accepted: everything it was asked for. State: STARTING."""

    context: Context
    flow_hash: str
    flow_name: str
    flow_version: str
    input: Payload | None
    allocation: Allocation
    options: Options
    goal: str = ""
    reuse: Reuse | None = None
    plan: tuple[PlannedRun, ...] = ()
    """Of a plan of several runs."""
    plan_output: str = ""


class SwarmStateChanged(Event):
    """The swarm went from one state to another (names of SwarmState without prefix)."""

    from_: str
    to: str
    reason: str = ""
    actor: str = ""


class RunRequested(Event):
    """The swarm asks Tier 2 for a run; asked again with the same id until it is accepted or refused. `grant`: what it may spend, where anything is limited."""

    run_id: str
    generation: int = 1
    planned: str = ""
    """Of a plan of several runs: its id there, its flow, its input, why it runs."""
    flow: FlowChoice | None = None
    input: Payload | None = None
    reason: str = ""
    grant: Allocation | None = None


class PlanDecided(Event):
    """A run of the plan does not take place (SKIPPED, or FAILED where that could not be decided), or a choice was made (COMPLETED)."""

    planned: str
    state: str
    reason: str
    failure: Failure | None = None
    output: Payload | None = None
    chosen: tuple[str, ...] = ()
    unchosen_by: str = ""


class RunTaken(Event):
    """An orchestrator has stored the run."""

    run_id: str


class RunFinished(Event):
    """The run ended."""

    run_id: str
    generation: int
    state: str
    outcome: str
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE


class SwarmEnded(Event):
    """The one terminal event of a swarm, and the transition into the final state."""

    from_: str
    to: str
    outcome: str
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE
    reason: str = ""
    actor: str = ""


class CommandReceived(Event):
    """Somebody told the swarm to do something that applies: `pause`, `resume`, `cancel`, `stop`, `terminate`."""

    command_id: str
    command: str
    actor: str
    reason: str


class ContextUpdated(Event):
    """The swarm's goal, limits, policy and flags from now on. `run_id` and `step_id` name the agent that changed them, where one did."""

    version: int
    revision: int
    settings: Settings
    changed: tuple[str, ...]
    grant: Allocation | None = None
    """What the swarm's run may spend from now on, where that is changed too."""
    actor: str = ""
    run_id: str = ""
    step_id: str = ""
    reason: str = ""
    command_id: str = ""


class KeyChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key of a blackboard: its value as it is stored, None where it was removed."""

    key: str
    previous: int = 0
    """The version that it had; 0 where it was not there."""
    value: Payload | None = None
    encoding: str = ""
    size: int = 0
    sha256: str = ""


class BlackboardChanged(Event):
    """Keys were written; `revision` is the version of each."""

    revision: int
    changes: tuple[KeyChanged, ...]
    actor: str = ""
    run_id: str = ""
    step_id: str = ""
    command_id: str = ""


class ContextCheckpointed(Event):
    """What is shared at this revision has a name, and can be gone back to."""

    name: str
    revision: int
    hash: str
    actor: str = ""
    command_id: str = ""


class ContextRestored(Event):
    """What is shared is as it was at a checkpoint."""

    name: str
    to_revision: int
    revision: int
    hash: str
    actor: str = ""
    reason: str = ""
    command_id: str = ""


SwarmEvent: TypeAlias = (
    SwarmCreated
    | SwarmStateChanged
    | RunRequested
    | PlanDecided
    | RunTaken
    | RunFinished
    | SwarmEnded
    | CommandReceived
    | ContextUpdated
    | BlackboardChanged
    | ContextCheckpointed
    | ContextRestored
)

SHARED = frozenset((ContextUpdated, BlackboardChanged, ContextCheckpointed, ContextRestored))
"""Those about what a swarm shares."""
