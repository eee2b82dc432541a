"""What must be done: after an event is committed, after a restart, and when a run says where it is.

Effects may be repeated at will: requests are addressed by run id, commands by command id.
"""

from __future__ import annotations

from collections.abc import Sequence

from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.planning import allocation_of
from tierflow_coordinator.core.swarm import Order, RunRecord, Swarm

MOST_SUPERSEDED = 16
"""Earlier commands that a command names; no more are on their way."""
_FIRST_WORD = {
    states.PAUSE: "pause",
    states.INTERRUPT: "interrupt",
    states.RETRY: "retry",
    states.RESUME: "resume",
    states.CANCEL: "cancel",
    # A graceful stop first lets running steps finish; `after_run_state` cancels what is left.
    states.STOP: "pause",
    states.TERMINATE: "cancel",
}
_ORDER_DUE = {
    states.PAUSE: (states.PAUSING,),
    states.INTERRUPT: (states.PAUSING,),
    states.RETRY: (states.STARTING, states.RUNNING),
    states.RESUME: (states.STARTING, states.RUNNING),
    states.CANCEL: (states.STOPPING,),
    states.STOP: (states.STOPPING,),
    states.TERMINATE: (states.TERMINATED,),
}


EFFECTIVE = frozenset((events.RunRequested, events.SwarmEnded, events.CommandReceived))
"""Kinds of events that demand anything at all."""


def react(swarm: Swarm, event: events.SwarmEvent) -> Sequence[commands.Effect]:
    """The effects that a committed event demands, given the state after its decision."""
    if isinstance(event, events.RunRequested):
        return (commands.RequestRun(run_id=event.run_id, generation=event.generation),)
    if isinstance(event, events.SwarmEnded):
        if swarm.of_schedule:
            return (commands.AnswerWaiting(), commands.TellSchedule())
        return (commands.AnswerWaiting(),)
    if isinstance(event, events.CommandReceived) and swarm.run is not None and not swarm.run.finished:
        if swarm.run.after == event.command_id:
            return ()  # It made the run, and is none to it.
        # From the event, not from the state: that may be ahead of what is committed.
        return (_to_run(swarm, swarm.run, event),)
    return ()


def open_effects(swarm: Swarm) -> Sequence[commands.Effect]:
    """Every effect that is not known to be done (rule R16)."""
    run = swarm.run
    if run is None or run.finished:
        return ()
    effects: list[commands.Effect] = []
    if not swarm.ended:
        effects.append(commands.RequestRun(run_id=run.run_id, generation=run.generation))
    effects.extend(_order(swarm))
    return effects


def after_run_state(swarm: Swarm, run_state: str) -> Sequence[commands.Effect]:
    """What follows when the run says that it is in `run_state` (a name of RunState): the second half of a graceful stop.

    It needs no event of its own: after a restart the first half is repeated and answered in the same way.
    """
    order = swarm.order
    if run_state == "PAUSED" and swarm.stops_gracefully and order is not None and swarm.run is not None:
        return (
            commands.CommandRun(
                run_id=swarm.run.run_id,
                command="cancel",
                command_id=f"{order.command_id}/cancel",
                actor=order.actor,
                reason=order.reason,
            ),
        )
    return ()


def _order(swarm: Swarm) -> Sequence[commands.Effect]:
    order, run = swarm.order, swarm.run
    if order is None or run is None or run.finished or swarm.state not in _ORDER_DUE[order.command]:
        return ()
    if run.after == order.command_id:
        return ()
    return (_to_run(swarm, run, order),)


def _to_run(swarm: Swarm, run: RunRecord, order: events.CommandReceived | Order) -> commands.CommandRun:
    retried = order.command == states.RETRY
    return commands.CommandRun(
        run_id=run.run_id,
        command=_FIRST_WORD[order.command],
        command_id=order.command_id,
        actor=order.actor,
        reason=order.reason,
        generation=run.generation if retried else 0,
        deadline=swarm.context.deadline if retried else None,
        allocation=allocation_of(swarm, run.run_id) if retried and run.grant is not None else None,
        supersedes=_before(swarm, order.command_id),
    )


def _before(swarm: Swarm, command_id: str) -> tuple[str, ...]:
    """The commands that applied before this one: on different ways one of them may come to the run later."""
    known = list(swarm.known_commands)
    place = known.index(command_id) if command_id in swarm.known_commands else 0
    return tuple(known[max(0, place - MOST_SUPERSEDED) : place])
