"""The unary form: one attempt by hand or from another language. It ends in the same code as the streams."""

from __future__ import annotations

import asyncio

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import failure_to_proto

from tierflow_executor.admission import refusal
from tierflow_executor.clocks import rising
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.table import UNARY, Verdict
from tierflow_executor.endings import CANCELLED, attempt_failure
from tierflow_executor.engine import Engine
from tierflow_executor.wire import stamp


async def execute(engine: Engine, request: step_pb2.StepExecutionRequest) -> step_pb2.StepExecutionResult:
    """Runs one attempt, or waits for the one of that id, and returns its result. Cancelling the call cancels an attempt that is nobody else's.

    Raises:
        FailureError: It was refused: nothing was started.
    """
    attempt_id = request.context.attempt_id
    verdict, attempt = _admit(engine, request)
    if attempt is None:
        text = f"attempt {attempt_id} was run here before, and its result is gone"
        raise FailureError(failure("STALE", text, tier=3, component="executor", operation="ExecuteStep"))
    if attempt.has_result:
        return step_pb2.StepExecutionResult.FromString(attempt.result)
    done: asyncio.Future[step_pb2.StepExecutionResult] = asyncio.get_running_loop().create_future()
    waiting = engine.delivery.waiting.setdefault(attempt_id, [])
    waiting.append(done)
    if verdict is Verdict.START:
        engine.start(attempt, request)
        engine.runner.pump()
    elif verdict is Verdict.CANCELLED:
        engine.end_unstarted(
            attempt, request, CANCELLED, attempt_failure(request, CANCELLED, "the attempt was cancelled before it came")
        )
    try:
        return await done
    except asyncio.CancelledError:
        waiting.remove(done)
        if not waiting:
            engine.delivery.waiting.pop(attempt_id, None)
            if attempt.owner == UNARY and attempt.work is not None and not attempt.has_result:
                engine.runner.stop(attempt.work, CANCELLED, "the caller has gone")
        raise


def _admit(engine: Engine, request: step_pb2.StepExecutionRequest) -> tuple[Verdict, Attempt | None]:
    attempt_id = request.context.attempt_id
    if engine.attempts.get(attempt_id) is None:
        refused = refusal(engine.registry, request)
        if refused is None and engine.draining:
            refused = attempt_failure(request, "UNAVAILABLE", "this executor is draining")
        if refused is None and engine.runner.busy + engine.runner.waiting >= engine.settings.slots:
            refused = attempt_failure(request, "QUEUE_FULL", "all slots of this executor are in use")
        if refused is not None:
            raise FailureError(refused)
    return engine.attempts.request(attempt_id, request.context.run_id, UNARY)


async def cancel(engine: Engine, request: pb.CancelStepRequest) -> pb.CancelStepResponse:
    """Stops an attempt and returns the receipt.

    Raises:
        FailureError: NOT_FOUND; it will be refused should it come later.
    """
    receipt: asyncio.Future[pb.CancelReceipt.ValueType] = asyncio.get_running_loop().create_future()

    def answer(given: pb.CancelReceipt.ValueType) -> None:
        if not receipt.done():
            receipt.set_result(given)

    engine.cancel(request, rising(), answer)
    given = await receipt
    if given == pb.CANCEL_RECEIPT_UNKNOWN:
        text = f"attempt {request.attempt_id} is not known here"
        raise FailureError(failure("NOT_FOUND", text, tier=3, component="executor", operation="CancelStep"))
    return pb.CancelStepResponse(attempt_id=request.attempt_id, receipt=given, run_id=request.run_id)


def describe(engine: Engine) -> pb.DescribeExecutorResponse:
    """Who this executor is, what it offers and what it is doing."""
    failed = engine.last_failure
    return pb.DescribeExecutorResponse(
        executor=engine.hello(engine.settings.slots, ()),
        slots=engine.settings.slots,
        slots_used=engine.runner.busy,
        results_held=len(engine.attempts.holding),
        started_at=stamp(engine.started_ns),
        draining=engine.draining,
        last_failure=None if failed is None else failure_to_proto(failed),
    )
