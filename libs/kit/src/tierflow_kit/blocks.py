"""Steps within steps: every definition of a flow, who holds it, where it is in the text, and what a name means where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tierflow_flow import Flow, StepSpec

WITHIN = "of its own"


def every_step(flow: Flow) -> Iterator[StepSpec]:
    """All steps, those within others included; not the calls that compensate."""
    return (spec for spec in flow.by_id.values() if "!" not in spec.id)


def holder(step_id: str) -> str:
    """The step that holds a step; empty where the flow does."""
    return step_id.rpartition("/")[0]


def around(step_id: str) -> Iterator[str]:
    """The steps that hold it, from within."""
    while step_id := holder(step_id):
        yield step_id


def meant(flow: Flow, name: str, within: str) -> str:
    """The id of the step that a name means in a block: the one beside, else one around. Empty where there is none."""
    for block in [within, *around(within), ""] if within else [""]:
        step_id = f"{block}/{name}" if block else name
        if step_id in flow.by_id:
            return step_id
    return ""


def rescuers(flow: Flow) -> dict[str, list[str]]:
    """The steps that handle errors, each with those whose errors."""
    found: dict[str, list[str]] = {}
    for spec in every_step(flow):
        if spec.rescue is not None:
            found.setdefault(spec.rescue.step, []).append(spec.id)
    return found


def text_paths(document: Mapping[str, Any]) -> dict[str, str]:
    """The path in the text of every step by its id: `trip/hotel` is at `steps.trip.steps.hotel`."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, str, Any]] = [("", "steps", document.get("steps"))]
    while waiting:
        prefix, path, steps = waiting.pop()
        for name, place, step in _listed(steps, path):
            found[prefix + name] = place
            if isinstance(step, dict) and "steps" in step:
                waiting.append((f"{prefix}{name}/", f"{place}.steps", step["steps"]))
    return found


def _listed(steps: Any, path: str) -> list[tuple[str, str, Any]]:
    if isinstance(steps, list):
        return [
            (step["id"], f"{path}[{n}]", step)
            for n, step in enumerate(steps)
            if isinstance(step, dict) and "id" in step
        ]
    return [(name, f"{path}.{name}", step) for name, step in steps.items()] if isinstance(steps, dict) else []


def canonical_steps(flow: Flow) -> dict[str, dict[str, Any]]:
    """Every step as the canonical definition has it, by id; in place of the steps within it, that there are some."""
    if flow.program is not None:
        return {
            pointer: dict(task.definition)
            for pointer, task in flow.program.tasks.items()
            if pointer != flow.program.root
        }
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, Any]] = [("", json.loads(flow.canonical)["steps"])]
    while waiting:
        prefix, steps = waiting.pop(0)
        for step in steps:
            step_id = f"{prefix}{step['id']}"
            found[step_id] = {key: value for key, value in step.items() if key != "id"}
            if "steps" in step:
                found[step_id]["steps"] = WITHIN
                waiting.append((f"{step_id}/", step["steps"]))
    return found
