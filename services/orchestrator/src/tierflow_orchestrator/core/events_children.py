"""The events of runs that are steps of others; see `events`."""

from __future__ import annotations

from tierflow_orchestrator.core.event import Event


class ChildTold(Event):
    """The run of a step has heard that it is to pause with its parent, or to go on."""

    step_id: str
    attempt_id: str
    paused: bool
