"""How visible tool calls are: what of them is journaled, what JetStream has confirmed, and what is still open (H7, P13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tierflow_runtime.metrics import Metrics

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run

TOOL_EVENTS: Final = frozenset((events.ToolCallBegan, events.ToolCallEnded))
OUTCOMES: Final = ("SUCCESS", "FAILURE", "CANCELLED", "LOST")


class ToolCounts:
    """Tool calls of the runs that are owned here, since the start. Each is counted once its event is committed."""

    def __init__(self) -> None:
        self.began = 0
        self.ended: Counter[str] = Counter()
        """By outcome."""
        self.open = 0
        """That have begun and not ended, of the runs in memory."""

    @property
    def journaled(self) -> int:
        """Events of tool calls that are in journals: what JetStream is to confirm."""
        return self.began + self.ended.total()

    def note(self, event: Any) -> None:
        """An event of a tool call is committed."""
        if type(event) is events.ToolCallBegan:
            self.began += 1
            self.open += 1
        else:
            self.ended[event.outcome] += 1
            self.open -= 1

    def opened(self, run: Run) -> None:
        """A run was adopted or has woken, with calls that are open."""
        self.open += open_calls(run)

    def closed(self, run: Run) -> None:
        """A run is no longer here."""
        self.open -= open_calls(run)

    def show(self, metrics: Metrics, confirmed: Callable[[], int]) -> None:
        """As metrics. `confirmed` counts the events of tool calls that JetStream has acknowledged."""
        metrics.gauge_of(
            "tool_calls_began", "Tool calls whose beginning is journaled, since the start", lambda: self.began
        )
        ended = metrics.gauge(
            "tool_calls_ended", "Tool calls whose end is journaled, by outcome, since the start", ("outcome",)
        )
        for outcome in OUTCOMES:
            ended.labels(outcome).set_function(partial(self.ended.__getitem__, outcome))
        metrics.gauge_of("tool_calls_open", "Tool calls that have begun and not ended", lambda: self.open)
        metrics.gauge_of(
            "tool_events_confirmed", "Events of tool calls that JetStream has acknowledged since the start", confirmed
        )
        metrics.gauge_of(
            "tool_visibility",
            "Of the events of tool calls that are journaled, the share that JetStream has acknowledged; 1 where nothing is missing",
            lambda: visibility(self.journaled, confirmed()),
        )


def visibility(journaled: int, confirmed: int) -> float:
    """The share of events that are confirmed; 1 where there are none."""
    return confirmed / journaled if journaled else 1.0


def open_calls(run: Run) -> int:
    """Tool calls of a run that have begun and not ended: only attempts in flight have any."""
    return sum(len(step.tools.open) for name in run.live if (step := run.steps[name]).tools is not None)
