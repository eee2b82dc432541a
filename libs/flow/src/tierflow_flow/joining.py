"""Checks of what a step's keys say against what stands around it: `join`, `grows`."""

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


def check_grows(step: StepParts, problems: Problems, *, within: bool) -> None:
    """Steps grow below the flow's own only, once for each run."""
    if "grows" not in step.keys:
        return
    if within:
        problems.add((*step.place, "grows"), "steps grow below steps of the flow itself only, not within a block")
    if "cache" in step.keys:
        problems.add((*step.place, "cache"), "a step that may return further steps is not answered from stored results")
    on_error = step.keys.get("on_error")
    if isinstance(on_error, dict) and on_error.get("then") == "retry":
        problems.add((*step.place, "on_error", "then"), "a step that may have grown does not begin again")
