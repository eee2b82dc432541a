"""Steps that wait for a time: durable timers (E13)."""

from __future__ import annotations

from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.durations import parse_duration
from tierflow_flow.limits import MAX_RUN_TIMEOUT
from tierflow_flow.moments import parse_moment
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core.kinds.base import Complete, Kind, Proceed, Wait
from tierflow_orchestrator.core.scope import RunScope
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class WaitKind(Kind):
    """The moment is computed once, when the step begins, and journaled: a restart changes nothing about it."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """Waits, unless the moment has passed already."""
        run = turn.run
        wanted = run.spec(step).templates["wait"].resolve(RunScope(run, step))
        until = _until(wanted, turn.now)
        if until > turn.now + MAX_RUN_TIMEOUT:
            raise ExpressionError(f"wait is longer than {MAX_RUN_TIMEOUT // 86_400_000_000} days")
        return Complete() if until <= turn.now else Wait("TIMER", until)


def _until(wanted: dict[str, Any], now: Micros) -> Micros:
    value = wanted.get("for", wanted.get("until"))
    try:
        if "until" in wanted and isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            return now + parse_duration(value) if "for" in wanted else parse_moment(value)
    except ValueError as error:
        raise ExpressionError(f"wait: {error}") from None
    what = "a duration such as 30s" if "for" in wanted else "a moment such as 2030-01-31T08:00:00Z"
    raise ExpressionError(f"wait is not {what}")
