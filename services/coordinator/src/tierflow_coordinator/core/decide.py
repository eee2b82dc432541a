"""What a swarm decides: for each command the events that follow from it, given the state.

A command that comes too late or twice is stale, not an error: it yields no event and is answered with the stored state. Nothing that ended changes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from tierflow_runtime.values import Failure, FailureError, Micros

from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.swarm import Swarm, evolve, total


class Decision(msgspec.Struct, kw_only=True, gc=False):
    """Events, already applied to the state, and the answer."""

    events: Sequence[events.SwarmEvent]
    reply: commands.Reply
    blobs: Mapping[str, bytes] = {}


def decide(swarm: Swarm, command: commands.SwarmCommand, now: Micros) -> Decision:
    """Decides, and applies the events it emits to `swarm`.

    Raises:
        FailureError: ALREADY_EXISTS for a second creation, STATE_CONFLICT for anything said to a swarm that was never created.
    """
    if swarm.state == states.NEW and type(command) is not commands.CreateSwarm:
        raise FailureError(_failure("STATE_CONFLICT", "The swarm was never created."))
    emitted = _DECIDE[type(command)](swarm, command)
    for event in emitted:
        if type(event) is events.SwarmStateChanged or type(event) is events.SwarmEnded:
            states.check(event.from_, event.to)
        evolve(swarm, event, now)
    # A repeated command is answered as the first time: it did apply.
    known = type(command) is commands.SteerSwarm and command.command_id in swarm.known_commands
    return Decision(events=emitted, reply=commands.Reply(applied=bool(emitted) or known, state=swarm.state))


def _create(swarm: Swarm, command: commands.CreateSwarm) -> Sequence[events.SwarmEvent]:
    if swarm.state != states.NEW:
        raise FailureError(_failure("ALREADY_EXISTS", "The swarm exists already."))
    return (
        events.SwarmCreated(
            context=command.context,
            flow_hash=command.flow_hash,
            flow_name=command.flow_name,
            flow_version=command.flow_version,
            input=command.input,
            allocation=command.allocation,
            options=command.options,
            goal=command.goal,
        ),
        events.RunRequested(run_id=command.run_id, generation=command.context.generation),
    )


def _take_run(swarm: Swarm, command: commands.TakeRun) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    if swarm.ended or run is None or run.run_id != command.run_id or run.taken:
        return ()
    taken = events.RunTaken(run_id=command.run_id)
    if swarm.state != states.STARTING:
        return (taken,)
    return (taken, events.SwarmStateChanged(from_=states.STARTING, to=states.RUNNING))


def _refuse_run(swarm: Swarm, command: commands.RefuseRun) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    # A run that was taken exists: a refusal of it answers a request that was sent twice.
    if swarm.ended or run is None or run.run_id != command.run_id or run.taken:
        return ()
    if swarm.state == states.STOPPING:
        return (_stopped(swarm),)
    cause = command.failure
    failure = Failure(
        code=cause.code,
        message=f"Tier 2 refused the run: {cause.message}",
        tier=1,
        component="coordinator",
        operation="RequestRun",
        retryable=cause.retryable,
        retry_after=cause.retry_after,
        cause=cause,
    )
    return (events.SwarmEnded(from_=swarm.state, to=states.FAILED, outcome="FAILURE", failure=failure),)


def _finish_run(swarm: Swarm, command: commands.FinishRun) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    if (
        swarm.ended
        or run is None
        or run.finished
        or run.run_id != command.run_id
        or run.generation != command.generation
    ):
        return ()
    emitted: list[events.SwarmEvent] = []
    before = swarm.state
    if not run.taken:
        # A run that ended was taken; its acceptance is journaled with its end where it was not before.
        emitted.append(events.RunTaken(run_id=run.run_id))
        if before == states.STARTING:
            emitted.append(events.SwarmStateChanged(from_=before, to=states.RUNNING))
            before = states.RUNNING
    emitted.append(
        events.RunFinished(
            run_id=run.run_id,
            generation=run.generation,
            state=command.state,
            outcome=command.outcome,
            output=command.output,
            failure=command.failure,
            usage=command.usage,
        )
    )
    to = states.RUN_ENDS[command.state]
    order = swarm.order if to == states.STOPPED else None
    emitted.append(
        events.SwarmEnded(
            from_=before,
            to=to,
            outcome=command.outcome,
            output=command.output,
            failure=command.failure,
            usage=total(swarm.usage, command.usage),
            reason=order.reason if order is not None else "",
            actor=order.actor if order is not None else "",
        )
    )
    return emitted


def _report_run_state(swarm: Swarm, command: commands.ReportRunState) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    if swarm.ended or run is None or run.run_id != command.run_id:
        return ()
    if swarm.state == states.PAUSING and command.state == "PAUSED":
        order = swarm.order
        reason, actor = (order.reason, order.actor) if order is not None else ("", "")
        return (events.SwarmStateChanged(from_=states.PAUSING, to=states.PAUSED, reason=reason, actor=actor),)
    return ()


def _wake_up(_swarm: Swarm, _command: commands.WakeUp) -> Sequence[events.SwarmEvent]:
    return ()


def _steer(swarm: Swarm, command: commands.SteerSwarm) -> Sequence[events.SwarmEvent]:
    to = states.COMMANDS[command.command].get(swarm.state)
    if to is None or command.command_id in swarm.known_commands:
        return ()
    order = swarm.order
    if swarm.state == states.STOPPING and to == states.STOPPING and (order is None or order.command != states.STOP):
        return ()
    if command.command == states.RESUME and swarm.run is not None and not swarm.run.taken:
        to = states.STARTING
    received = events.CommandReceived(
        command_id=command.command_id, command=command.command, actor=command.actor, reason=command.reason
    )
    if to == swarm.state:
        return (received,)
    if to == states.TERMINATED or (to == states.STOPPING and not swarm.run_open):
        final = states.TERMINATED if to == states.TERMINATED else states.STOPPED
        return (received, _stopped(swarm, command, final))
    changed = events.SwarmStateChanged(from_=swarm.state, to=to, reason=command.reason, actor=command.actor)
    return (received, changed)


def _stopped(swarm: Swarm, command: commands.SteerSwarm | None = None, to: str = states.STOPPED) -> events.SwarmEnded:
    by = command or swarm.order
    return events.SwarmEnded(
        from_=swarm.state,
        to=to,
        outcome="CANCELLED",
        usage=swarm.usage,
        reason=by.reason if by is not None else "",
        actor=by.actor if by is not None else "",
    )


def _failure(code: str, message: str) -> Failure:
    return Failure(code=code, message=message, tier=1, component="swarm", operation="decide")


_DECIDE: dict[type, Callable[[Swarm, Any], Sequence[events.SwarmEvent]]] = {
    commands.CreateSwarm: _create,
    commands.TakeRun: _take_run,
    commands.RefuseRun: _refuse_run,
    commands.FinishRun: _finish_run,
    commands.ReportRunState: _report_run_state,
    commands.SteerSwarm: _steer,
    commands.WakeUp: _wake_up,
}
