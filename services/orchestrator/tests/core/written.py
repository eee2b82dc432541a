"""Runs of flows that are written as text, and what tests ask of them."""

from __future__ import annotations

import json
from typing import Any

from tierflow_flow import parse
from tierflow_orchestrator.core.commands import WakeUp

from .fakes import SECOND, Shell
from .invariants import check_invariants


def shell(steps: str, given: Any = None, **keys: Any) -> Shell:
    """A run of a flow of these steps."""
    lines = ["name: f", *(f"{key}: {json.dumps(value)}" for key, value in keys.items()), "steps:", steps]
    return Shell(parse("\n".join(lines)), input=json.dumps(given or {}))


def output(it: Shell, step_id: str = "") -> Any:
    return json.loads(str(it.run.steps[step_id].output if step_id else it.run.output))


def wake(it: Shell, seconds: float = 0) -> None:
    """Lets time pass."""
    it.now += int(seconds * SECOND)
    it.tell(WakeUp())


def sound(it: Shell) -> None:
    it.check()
    check_invariants(it.run)
