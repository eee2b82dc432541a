"""A swarm: its state, and how each event changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Failure, Micros, Options, Payload, Reuse, Usage

from tierflow_coordinator.core import events, plan_evolve, states
from tierflow_coordinator.core.board import Board, Checkpoint, Entry, Settings
from tierflow_coordinator.core.ledger import settled
from tierflow_coordinator.core.plan import Plan
from tierflow_coordinator.core.schedules.firing import REQUESTS

MAX_KNOWN_COMMANDS = 256
"""So many command ids are remembered; a repetition that comes later than so many other commands is a new command."""


SCHEMA = 2
PLAIN = 1
"""Of snapshots: the newest that this build reads, and that of a swarm with one flow, which earlier builds read as well."""
ADMISSION: Micros = 10_000_000
"""So much may lie between the moment from which a deadline was counted and that of the first event."""


class RunRecord(msgspec.Struct, kw_only=True):
    """The run that the swarm asked for."""

    run_id: str
    generation: int = 1
    grant: Allocation | None = None
    """What it may spend, held until it ends; None where nothing is limited."""
    taken: bool = False
    """An orchestrator has stored it."""
    finished: bool = False
    after: str = ""
    """Of a planned run: the latest command before it was asked for, which is none to it."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The latest command that applied: what the run is being told."""

    command: str
    command_id: str
    actor: str = ""
    reason: str = ""


class Swarm(msgspec.Struct, kw_only=True):
    """Everything that is known of a swarm; built from its events alone."""

    swarm_id: str
    schema: int = PLAIN
    """Of snapshots: a build that knows only older ones reads the journal instead (K6)."""
    state: str = states.NEW
    reason: str = ""
    context: Context = Context()
    flow_hash: str = ""
    flow_name: str = ""
    flow_version: str = ""
    goal: str = ""
    input: Payload | None = None
    allocation: Allocation = Allocation()
    options: Options = Options()
    run: RunRecord | None = None
    order: Order | None = None
    known_commands: dict[str, str] = {}
    """Command ids that applied, with their commands, oldest first."""
    outcome: str = ""
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE
    reuse: Reuse | None = None
    """Results of another run that its run starts with."""
    created_at: Micros = 0
    opened_at: Micros = 0
    """When the present generation was opened; 0 for the first."""
    ended_at: Micros | None = None
    board: Board | None = None
    """What it shares; None until something is written or changed."""
    plan: Plan | None = None
    """Its plan, where that has several runs; `run` is then the one that was asked for last."""
    idle: bool = False
    """Not from events: whoever owns it has nothing to do for it and may let it go (rule R15). Any event ends that."""

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in states.ENDED

    @property
    def generation(self) -> int:
        """Of its run, from 1; with several runs, its own."""
        if self.plan is not None:
            return self.plan.generation
        return self.run.generation if self.run is not None else self.context.generation

    @property
    def run_ids(self) -> list[str]:
        """Its runs."""
        if self.plan is not None:
            return self.plan.run_ids
        return [] if self.run is None else [self.run.run_id]

    @property
    def run_open(self) -> bool:
        """Whether it has a run of which no end is known."""
        return self.run is not None and not self.run.finished

    @property
    def run_taken(self) -> bool:
        """Whether an orchestrator is known to have stored its run."""
        return self.run is not None and self.run.taken

    @property
    def of_schedule(self) -> bool:
        """Whether a schedule made it: its request id says so."""
        return self.context.request_id.startswith(REQUESTS)

    @property
    def own_labels(self) -> dict[str, str]:
        """The labels that its client chose; a schedule's swarm has one of the engine's beside them."""
        labels = self.context.labels
        return {key: labels[key] for key in labels if not key.startswith("tierflow.")} if self.of_schedule else labels

    @property
    def stops_gracefully(self) -> bool:
        """Whether it was told to stop once running steps have finished."""
        return self.state == states.STOPPING and self.order is not None and self.order.command == states.STOP


def _created(swarm: Swarm, event: events.SwarmCreated, time: Micros) -> None:
    swarm.state = states.STARTING
    swarm.context = event.context
    swarm.flow_hash = event.flow_hash
    swarm.flow_name = event.flow_name
    swarm.flow_version = event.flow_version
    swarm.goal = event.goal
    swarm.input = event.input
    swarm.allocation = event.allocation
    swarm.options = event.options
    swarm.reuse = event.reuse
    swarm.created_at = time
    swarm.plan = plan_evolve.begun(event)
    swarm.schema = PLAIN if swarm.plan is None else SCHEMA


def _state_changed(swarm: Swarm, event: events.SwarmStateChanged, time: Micros) -> None:
    if event.from_ in states.ENDED:
        _reopen(swarm, time)
    swarm.state = event.to
    swarm.reason = event.reason


def _reopen(swarm: Swarm, time: Micros) -> None:
    """A generation begins. What bounds it relative to its start counts from now on; an absolute end stays what it is."""
    swarm.outcome, swarm.output, swarm.failure, swarm.ended_at = "", None, None, None
    spans = [span for span in (swarm.options.timeout, swarm.allocation.wall_time) if span is not None]
    deadline = swarm.context.deadline
    if spans and deadline is not None:
        start = max(swarm.opened_at or swarm.created_at, swarm.options.not_before or 0)
        if deadline > start + min(spans) - ADMISSION:
            swarm.context = msgspec.structs.replace(swarm.context, deadline=time + min(spans))
    swarm.opened_at = time
    if swarm.plan is not None:
        plan_evolve.reopened(swarm.plan)


def _run_requested(swarm: Swarm, event: events.RunRequested, _time: Micros) -> None:
    run = swarm.run = RunRecord(run_id=event.run_id, generation=event.generation, grant=event.grant)
    if swarm.plan is not None and event.planned:
        if event.generation == 1 and swarm.order is not None:
            run.after = swarm.order.command_id
        plan_evolve.requested(swarm.plan, event)


def _plan_decided(swarm: Swarm, event: events.PlanDecided, _time: Micros) -> None:
    plan_evolve.decided(swarm, event)


def _run_taken(swarm: Swarm, _event: events.RunTaken, _time: Micros) -> None:
    if swarm.run is not None:
        swarm.run.taken = True


def _run_finished(swarm: Swarm, event: events.RunFinished, _time: Micros) -> None:
    swarm.usage = settled(swarm, event.usage, event.run_id, event.generation)
    if swarm.run is not None:
        swarm.run.taken = True
        swarm.run.finished = True
    if swarm.plan is not None:
        plan_evolve.finished(swarm, swarm.plan, event)


def _ended(swarm: Swarm, event: events.SwarmEnded, time: Micros) -> None:
    swarm.state = event.to
    swarm.reason = event.reason
    swarm.outcome = event.outcome
    swarm.output = event.output
    swarm.failure = event.failure
    swarm.usage = event.usage
    swarm.ended_at = time


def _command_received(swarm: Swarm, event: events.CommandReceived, _time: Micros) -> None:
    swarm.order = Order(command=event.command, command_id=event.command_id, actor=event.actor, reason=event.reason)
    if len(swarm.known_commands) >= MAX_KNOWN_COMMANDS:
        del swarm.known_commands[next(iter(swarm.known_commands))]
    swarm.known_commands[event.command_id] = event.command


def settings_of(swarm: Swarm) -> Settings:
    """What is agreed on for it."""
    return Settings(
        goal=swarm.goal,
        limits=swarm.allocation,
        policy=swarm.board.policy if swarm.board is not None else "{}",
        adaptive=swarm.options.emergent,
    )


def _board(swarm: Swarm) -> Board:
    if swarm.board is None:
        swarm.board = Board()
    return swarm.board


def _agree(swarm: Swarm, settings: Settings) -> None:
    swarm.goal = settings.goal
    swarm.allocation = settings.limits
    swarm.options = msgspec.structs.replace(swarm.options, emergent=settings.adaptive)
    _board(swarm).policy = settings.policy


def _context_updated(swarm: Swarm, event: events.ContextUpdated, _time: Micros) -> None:
    _agree(swarm, event.settings)
    if event.grant is not None and swarm.run is not None:
        swarm.run.grant = event.grant
    board = _board(swarm)
    board.version = event.version
    board.note(event.command_id, event.revision)


def _blackboard_changed(swarm: Swarm, event: events.BlackboardChanged, time: Micros) -> None:
    board = _board(swarm)
    for change in event.changes:
        if change.value is None:
            board.put(change.key, None)
            continue
        entry = Entry(
            version=event.revision,
            value=change.value,
            encoding=change.encoding,
            size=change.size,
            sha256=change.sha256,
            actor=event.actor,
            run_id=event.run_id,
            step_id=event.step_id,
            time=time,
        )
        board.put(change.key, entry)
    board.note(event.command_id, event.revision)


def _checkpointed(swarm: Swarm, event: events.ContextCheckpointed, time: Micros) -> None:
    board = _board(swarm)
    board.add_checkpoint(
        Checkpoint(name=event.name, revision=event.revision, hash=event.hash, time=time, settings=settings_of(swarm))
    )
    board.note(event.command_id, event.revision)


def _restored(swarm: Swarm, event: events.ContextRestored, _time: Micros) -> None:
    board = _board(swarm)
    checkpoint = board.checkpoint(event.name)
    if checkpoint is not None:
        board.restore(checkpoint, event.revision)
        if checkpoint.settings != settings_of(swarm):
            _agree(swarm, checkpoint.settings)
            board.version += 1
    board.note(event.command_id, event.revision)


_EVOLVE: dict[type, Callable[[Swarm, Any, Micros], None]] = {
    events.SwarmCreated: _created,
    events.SwarmStateChanged: _state_changed,
    events.RunRequested: _run_requested,
    events.PlanDecided: _plan_decided,
    events.RunTaken: _run_taken,
    events.RunFinished: _run_finished,
    events.SwarmEnded: _ended,
    events.CommandReceived: _command_received,
    events.ContextUpdated: _context_updated,
    events.BlackboardChanged: _blackboard_changed,
    events.ContextCheckpointed: _checkpointed,
    events.ContextRestored: _restored,
}


def evolve(swarm: Swarm, event: events.SwarmEvent, time: Micros) -> None:
    """Applies one event, decided now or stored before."""
    swarm.idle = False
    _EVOLVE[type(event)](swarm, event, time)
