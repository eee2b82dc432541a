"""Results of another run that a new one starts with."""

from __future__ import annotations

from tierflow_contracts.common.v1 import execution_pb2
from tierflow_durable.durable import Durable
from tierflow_flow import Flow
from tierflow_runtime.contract_basics import check_uuid
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError, Violation

from tierflow_orchestrator.checks import violated
from tierflow_orchestrator.core.commands import ReusedStep
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import MissingContent, output_text
from tierflow_orchestrator.core.step import Step

MOST_READ = 200
"""Stored values that are read at most to put one result together."""


async def reused_steps(
    durable: Durable, reuse: execution_pb2.ReusedSteps, tenant: str, flow: Flow
) -> tuple[ReusedStep, ...]:
    """The results that a request names. Raises FailureError NOT_FOUND (another tenant's run is not there), INVALID_REQUEST."""
    if flow.program is not None:
        raise violated("input.reuse", "is not for documents that are walked task by task", "start_run")
    found: list[Violation] = []
    check_uuid("input.reuse.run_id", reuse.run_id, found, required=True)
    if found:
        raise violated("input.reuse.run_id", found[0].description, "start_run")
    run: Run = await _source(durable, reuse)
    if run.context.tenant != tenant:
        raise durable.reader.not_found(reuse.run_id)
    own = {spec.id for spec in flow.steps}
    wanted = tuple(dict.fromkeys(reuse.step_ids))
    for index, step_id in enumerate(wanted):
        step = run.steps.get(step_id)
        if step is None or step.state != "COMPLETED" or step_id not in own:
            raise violated(
                f"input.reuse.step_ids[{index}]", "must have COMPLETED there and be a step here", "start_run"
            )
    return tuple([await _result(durable, run, run.steps[step_id]) for step_id in wanted])


async def _source(durable: Durable, reuse: execution_pb2.ReusedSteps) -> Run:
    """The other run as it is now, or as it was at a checkpoint."""
    run: Run
    if reuse.at_seq:
        run = await durable.checkpoints.state_at(reuse.run_id, reuse.at_seq)
    else:
        run = await durable.reader.view(reuse.run_id, lambda run: run)
    return run


async def _result(durable: Durable, run: Run, step: Step) -> ReusedStep:
    """A step's result; a map's is put together, and stored apart where it is large."""
    output = step.output
    if step.branches is not None and output is None:
        blobs: dict[str, bytes] = {}
        output = payload_of(await _text(durable, run, step), blobs)
        for sha256, content in blobs.items():
            await durable.host.writer.put_blob(sha256, content)
    return ReusedStep(step_id=step.id, output=output, outcome=step.outcome or "SUCCESS")


async def _text(durable: Durable, run: Run, step: Step) -> str:
    for _ in range(MOST_READ):
        try:
            return output_text(run, step)
        except MissingContent as missing:
            run.contents[missing.sha256] = (await durable.reader.blob(missing.sha256)).decode()
    raise FailureError(failure("PAYLOAD_TOO_LARGE", f"the result of {step.id} is too large to be taken over"))
