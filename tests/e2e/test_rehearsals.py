"""What a rehearsal says is what the engine does."""

import asyncio
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from tierflow import Client, ExecutionFailed
from tierflow_contracts.common.v1.state_pb2 import Outcome, RunState, StepState
from tierflow_kit.cases import Case, CaseFile
from tierflow_kit.running import run_case
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from rehearsed_handlers import FILES, FLOWS, SCALE


def soon_over(file: CaseFile, case: Case) -> bool:
    """Whether nobody acts, nothing waits, and nothing is retried or lost: on a real clock it takes no more than some seconds."""
    report = run_case(file.flow, case).report
    if report is None or case.actions or case.until is not None or report.duration * SCALE > 5_000_000:
        return False
    once = all(step.attempts <= 1 for step in report.steps.values()) and all(
        call.state != "LOST" for call in report.calls
    )
    return once and not any(step.kind in ("wait", "signal") for step in file.flow.steps)


def seen(state: str, outcome: str, output: Any, steps: dict[str, str]) -> dict[str, Any]:
    return {"state": state, "outcome": outcome, "output": output, "steps": steps}


failures: dict[str, list[str]] = {}
"""What the steps of a case said that failed, for the message."""


async def real(client: Client, file: CaseFile, name: str, case: Case) -> dict[str, Any]:
    """What became of a case on the real engine."""
    handle = await client.submit(file.flow_path, case.input, labels={"case": name})
    try:
        output = await handle.result(60)
    except ExecutionFailed:
        output = None
    run = await client.get_run(handle.run_id)
    found = [step async for step in client.steps(handle.run_id)]
    failures[name] = [f"{step.step_id}: {step.failure.message}" for step in found if step.HasField("failure")]
    steps = {step.step_id: StepState.Name(step.state).removeprefix("STEP_STATE_") for step in found}
    return seen(
        RunState.Name(run.state).removeprefix("RUN_STATE_"),
        Outcome.Name(run.outcome).removeprefix("OUTCOME_"),
        output,
        steps,
    )


async def test_the_engine_does_what_the_rehearsal_says(make_stack: Callable[..., Stack]) -> None:
    """Q24, E2: cases of the example flows, with the same answers of the same handlers, on a virtual clock and on the real engine: same states, outcome, output."""
    chosen = [
        (file, f"{name}#{number}", case)
        for name, file in FILES.items()
        for number, case in enumerate(file.cases)
        if soon_over(file, case)
    ]
    assert {file.flow.name for file, _, _ in chosen} == set(FLOWS)
    assert len(chosen) >= 15
    python_path = str(pathlib.Path(__file__).parent)
    stack = make_stack(handlers=["rehearsed_handlers"], executor_environment={"PYTHONPATH": python_path})
    async with Client(stack.address, patience=60) as client:
        found = await asyncio.gather(*(real(client, *each) for each in chosen))
    for (file, name, case), engine in zip(chosen, found, strict=True):
        report = run_case(file.flow, case).report
        assert report is not None
        states = {step.id: step.state for step in report.steps.values()}
        expected = seen(report.state, report.outcome, json.loads(json.dumps(report.output)), states)
        assert engine == expected, (name, failures[name])
    said = await audit(stack.database_url, stack.nats.url, settled=True)
    assert said.ok, "\n".join(said.problems)
