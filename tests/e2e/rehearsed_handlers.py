"""Every handler that some flows in examples/flows call, answering as the fakes of a case say; the run's label `case` tells which. A minute takes half a second."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from tierflow import Context, Degraded, HandlerFailed, handler
from tierflow_flow.paths import definition_path
from tierflow_kit.cases import CaseFile, read_cases
from tierflow_kit.fakes import Attempt, Fakes

GALLERY = pathlib.Path(__file__).parents[2] / "examples" / "flows"
SCALE = 1 / 120
FLOWS = (
    "order-saga",
    "kyc-check",
    "quality-gate",
    "research-agents",
    "document-triage",
    "model-evaluation",
    "web-crawl",
)
FILES: dict[str, CaseFile] = {f"{name}.test.yaml": read_cases(GALLERY / f"{name}.test.yaml") for name in FLOWS}
_RUNS: dict[str, Fakes] = {}


async def perform(context: Context, given: Any) -> Any:
    """Answers an attempt."""
    file, _, number = context.labels["case"].partition("#")
    answers = _RUNS.setdefault(context.run_id, FILES[file].cases[int(number)].fakes())
    seen = Attempt(context.handler, context.step_id, context.attempt, given, 0)
    answer = answers.answer(seen, definition_path(context.step_id))
    await asyncio.sleep(answer.after / 1e6 * SCALE)
    if answer.failure is not None:
        said = answer.failure
        raise HandlerFailed(said.message, code=said.code, retryable=said.retryable)
    return Degraded(answer.output) if answer.degraded else answer.output


for _name in sorted({name for file in FILES.values() for name in file.flow.handlers} - {"echo", "sleep"}):
    handler(_name)(perform)
