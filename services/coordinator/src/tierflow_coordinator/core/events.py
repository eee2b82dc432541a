"""The events of a swarm: facts, as the core sees them. `wire` gives each its message of `tierflow.events.v1`."""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Failure, Options, Payload, Reuse, Usage


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


class SwarmStateChanged(Event):
    """The swarm went from one state to another (names of SwarmState without prefix)."""

    from_: str
    to: str
    reason: str = ""
    actor: str = ""


class RunRequested(Event):
    """The swarm asks Tier 2 for a run; asked again with the same id until it is accepted or refused."""

    run_id: str
    generation: int = 1


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


SwarmEvent: TypeAlias = (
    SwarmCreated | SwarmStateChanged | RunRequested | RunTaken | RunFinished | SwarmEnded | CommandReceived
)
