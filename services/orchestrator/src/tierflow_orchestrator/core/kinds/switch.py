"""Steps that choose which other steps run (E13)."""

from __future__ import annotations

from typing import Any

from tierflow_orchestrator.core.kinds.base import Complete, Kind, Proceed
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, output_value, write
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Switch(Kind):
    """Its output says which case it was and which steps it chose; those that it may choose need it, and look there."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """The first case that is true; cases after it are not looked at."""
        spec = turn.run.spec(step)
        scope = RunScope(turn.run, step)
        for index, case in enumerate(spec.settings["switch"]):
            if spec.templates[f"case{index}"].resolve(scope):
                return _done(index, case["then"])
        return _done(None, spec.settings.get("default", []))


def _done(case: int | None, steps: list[str]) -> Complete:
    output: dict[str, Any] = {"case": case, "chosen": steps}
    return Complete(output=write(output))


def chosen(run: Run, switch: Step) -> frozenset[str]:
    """The steps that a switch has chosen, by their own ids; none where it did not complete."""
    if switch.state != "COMPLETED":
        return frozenset()
    return frozenset(output_value(run, switch)["chosen"])
