"""Checks of a step's `join` against what the step needs."""

from __future__ import annotations

from tierflow_flow.problems import Problems
from tierflow_flow.reading import StepParts


def check_join(step: StepParts, chosen_by: str, problems: Problems) -> None:
    """A join counts steps that are written under `needs`, and cannot ask for more than there are."""
    join = step.keys.get("join")
    if join is None:
        return
    needs = step.keys.get("needs", [])
    if not needs:
        problems.add((*step.place, "join"), "counts the steps under needs, and there are none")
        return
    for name in join["of"]:
        if name not in needs:
            hint = problems.hint(name, needs)
            problems.add((*step.place, "join", "of"), f"{name!r} is not under needs{hint}")
    if chosen_by in join["of"]:
        problems.add(
            (*step.place, "join"),
            f"cannot count {chosen_by}, the switch that decides about the step; list those that count under of",
        )
    if join["at_least"] > len(join["of"]):
        problems.add((*step.place, "join"), f"asks for {join['at_least']} of {len(join['of'])} steps")
