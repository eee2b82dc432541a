"""What a swarm decides: for each command the events that follow from it, given the state.

A command that comes too late or twice is stale, not an error: it yields no event and is answered with the stored state. Nothing that ended changes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tierflow_runtime.values import Failure, FailureError, Micros

from tierflow_coordinator.core import commands, events, planning, sharing, states
from tierflow_coordinator.core.decision import Decision as Decision
from tierflow_coordinator.core.ledger import next_grant, settled
from tierflow_coordinator.core.plan import Plan
from tierflow_coordinator.core.swarm import Order, Swarm, evolve


def decide(swarm: Swarm, command: commands.SwarmCommand, now: Micros) -> Decision:
    """Decides, and applies the events it emits to `swarm`.

    Raises:
        FailureError: ALREADY_EXISTS for a second creation, STATE_CONFLICT for anything said to a swarm that was never created.
    """
    if swarm.state == states.NEW and type(command) is not commands.CreateSwarm:
        raise FailureError(_failure("STATE_CONFLICT", "The swarm was never created."))
    emitted = _DECIDE[type(command)](swarm, command)
    for event in emitted:
        _apply(swarm, event, now)
    if swarm.plan is not None and emitted:
        emitted = _planned(swarm, swarm.plan, command, emitted, now)
    if isinstance(command, commands.Shared):
        return Decision(events=emitted, reply=sharing.reply(swarm, command, emitted))
    # A repeated command is answered as the first time: it did apply.
    known = type(command) is commands.SteerSwarm and command.command_id in swarm.known_commands
    return Decision(
        events=emitted,
        reply=commands.Reply(applied=bool(emitted) or known, state=swarm.state, generation=swarm.generation),
    )


def _apply(swarm: Swarm, event: events.SwarmEvent, now: Micros) -> None:
    if type(event) is events.SwarmStateChanged or type(event) is events.SwarmEnded:
        states.check(event.from_, event.to)
    evolve(swarm, event, now)


def _planned(
    swarm: Swarm, plan: Plan, command: commands.SwarmCommand, emitted: Sequence[events.SwarmEvent], now: Micros
) -> Sequence[events.SwarmEvent]:
    """With a plan of several runs: what follows where nothing runs any more."""
    more = list(emitted)

    def emit(event: events.SwarmEvent) -> None:
        _apply(swarm, event, now)
        more.append(event)

    first_run = command.run_id if type(command) is commands.CreateSwarm else ""
    retried = type(command) is commands.SteerSwarm and command.command == states.RETRY
    planning.go_on(swarm, plan, emit, now, first_run=first_run, retried=retried)
    return more


def _create(swarm: Swarm, command: commands.CreateSwarm) -> Sequence[events.SwarmEvent]:
    if swarm.state != states.NEW:
        raise FailureError(_failure("ALREADY_EXISTS", "The swarm exists already."))
    created = events.SwarmCreated(
        context=command.context,
        flow_hash=command.flow_hash,
        flow_name=command.flow_name,
        flow_version=command.flow_version,
        input=command.input,
        allocation=command.allocation,
        options=command.options,
        goal=command.goal,
        reuse=command.reuse,
        plan=command.plan,
        plan_output=command.plan_output,
    )
    if command.plan:
        return (created,)
    return (
        created,
        events.RunRequested(
            run_id=command.run_id, generation=command.context.generation, grant=next_grant(command.allocation)
        ),
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
    failure = _refused(command.failure)
    if swarm.plan is None or (standing := swarm.plan.standing_of(run.run_id)) is None:
        return (events.SwarmEnded(from_=swarm.state, to=states.FAILED, outcome="FAILURE", failure=failure),)
    planned = next(each for each, known in swarm.plan.standings.items() if known is standing)
    return (events.PlanDecided(planned=planned, state="FAILED", reason=failure.message, failure=failure),)


def _refused(cause: Failure) -> Failure:
    return Failure(
        code=cause.code,
        message=f"Tier 2 refused the run: {cause.message}",
        tier=1,
        component="coordinator",
        operation="RequestRun",
        retryable=cause.retryable,
        retry_after=cause.retry_after,
        cause=cause,
    )


def _finish_run(swarm: Swarm, command: commands.FinishRun) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    if swarm.ended or run is None or (run.run_id, run.generation) != (command.run_id, command.generation):
        return ()
    emitted: list[events.SwarmEvent] = []
    before = swarm.state
    if not run.taken:
        # A run that ended was taken; its acceptance is journaled with its end where it was not before.
        emitted.extend(_take_run(swarm, commands.TakeRun(run_id=run.run_id)))
        before = states.RUNNING if before == states.STARTING else before
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
    if swarm.plan is not None and command.state != "CANCELLED":
        return emitted
    to = states.RUN_ENDS[command.state]
    reason, actor = _by(swarm.order if to == states.STOPPED else None)
    emitted.append(
        events.SwarmEnded(
            from_=before,
            to=to,
            outcome=command.outcome,
            output=command.output,
            failure=command.failure,
            usage=settled(swarm, command.usage, command.run_id, command.generation),
            reason=reason,
            actor=actor,
        )
    )
    return emitted


def _report_run_state(swarm: Swarm, command: commands.ReportRunState) -> Sequence[events.SwarmEvent]:
    run = swarm.run
    if swarm.ended or run is None or run.run_id != command.run_id:
        return ()
    if swarm.state == states.PAUSING and command.state == "PAUSED":
        reason, actor = _by(swarm.order)
        return (events.SwarmStateChanged(from_=states.PAUSING, to=states.PAUSED, reason=reason, actor=actor),)
    return ()


def _wake_up(_swarm: Swarm, _command: commands.WakeUp) -> Sequence[events.SwarmEvent]:
    return ()


def _steer(swarm: Swarm, command: commands.SteerSwarm) -> Sequence[events.SwarmEvent]:
    to = _goal(swarm, command)
    if to is None:
        return ()
    received = events.CommandReceived(
        command_id=command.command_id, command=command.command, actor=command.actor, reason=command.reason
    )
    if to == swarm.state:
        return (received,)
    if to in states.ENDED:
        return (received, _stopped(swarm, command, to))
    changed = events.SwarmStateChanged(from_=swarm.state, to=to, reason=command.reason, actor=command.actor)
    if command.command == states.RETRY and swarm.run is not None and swarm.plan is None:
        return (
            received,
            changed,
            events.RunRequested(
                run_id=swarm.run.run_id,
                generation=swarm.run.generation + 1,
                grant=next_grant(swarm.allocation, swarm.usage),
            ),
        )
    return (received, changed)


def _goal(swarm: Swarm, command: commands.SteerSwarm) -> str | None:
    """The state that the command leads to now; None where it does not apply or was applied before."""
    to = states.COMMANDS[command.command].get(swarm.state)
    if to is None or command.command_id in swarm.known_commands:
        return None
    if to == swarm.state and not swarm.stops_gracefully and command.command != states.INTERRUPT:
        return None  # Only a graceful stop can be made an immediate one, and a pause one that interrupts.
    if to == states.STOPPING and not swarm.run_open:
        return states.STOPPED
    if command.command in (states.RESUME, states.RETRY) and not swarm.run_taken:
        return states.STARTING
    return to


def _stopped(swarm: Swarm, command: commands.SteerSwarm | None = None, to: str = states.STOPPED) -> events.SwarmEnded:
    reason, actor = _by(command or swarm.order)
    return events.SwarmEnded(
        from_=swarm.state, to=to, outcome="CANCELLED", usage=swarm.usage, reason=reason, actor=actor
    )


def _by(who: commands.SteerSwarm | Order | None) -> tuple[str, str]:
    """Why, and who wanted it."""
    return ("", "") if who is None else (who.reason, who.actor)


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
    commands.WriteKeys: sharing.write,
    commands.UpdateContext: sharing.update,
    commands.FundSwarm: sharing.fund,
    commands.CheckpointContext: sharing.checkpoint,
    commands.RestoreContext: sharing.restore,
}
