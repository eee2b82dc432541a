"""What must be done: after an event is committed, and after a restart. Effects may be repeated at will: swarms are asked for by request id."""

from __future__ import annotations

from collections.abc import Sequence

from tierflow_coordinator.core.commands import Effect
from tierflow_coordinator.core.schedules import commands, events, states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.schedule import Schedule


def react(event: events.ScheduleEvent) -> Sequence[Effect]:
    """The effects that a committed event demands."""
    if isinstance(event, events.FiringChanged):
        return (*_of(event.firing), commands.NoteFiring(firing=event.firing))
    if isinstance(event, events.TimesMissed):
        return (commands.NoteMissed(count=event.count),)
    return ()


def open_effects(schedule: Schedule) -> Sequence[Effect]:
    """Every effect that is not known to be done (rule R16)."""
    return [effect for firing in schedule.open.values() for effect in _of(firing)]


def _of(firing: Firing) -> Sequence[Effect]:
    if firing.state == states.REQUESTED:
        return (commands.MakeSwarm(firing_id=firing.firing_id),)
    if firing.state == states.CANCELLING:
        return (commands.CancelSwarm(firing_id=firing.firing_id, swarm_id=firing.swarm_id),)
    return ()
