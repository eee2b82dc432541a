"""The events of budgets that no other event can tell; see `events`."""

from __future__ import annotations

from tierflow_runtime.values import Usage

from tierflow_orchestrator.core.event import Event


class HoldCharged(Event):
    """All that an attempt held counts as spent: it was given up, and its time and grace are over."""

    step_id: str
    attempt_id: str
    usage: Usage
