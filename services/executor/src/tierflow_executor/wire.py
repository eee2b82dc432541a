"""Between messages and what the engine knows: reading limits out of requests, coding results, receipts and statuses."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow.handler import Handler
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.values import BlobRef
from tierflow_runtime.wire import blob_ref_to_proto, duration, fill_failure

from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.states import State
from tierflow_executor.endings import COMPLETED, DEGRADED, Ending

_STATES = {
    "COMPLETED": state_pb2.STEP_STATE_COMPLETED,
    "FAILED": state_pb2.STEP_STATE_FAILED,
    "CANCELLED": state_pb2.STEP_STATE_CANCELLED,
}
_OUTCOMES = {
    "COMPLETED": state_pb2.OUTCOME_SUCCESS,
    "FAILED": state_pb2.OUTCOME_FAILURE,
    "CANCELLED": state_pb2.OUTCOME_CANCELLED,
}
RESULTS, STARTED, PROGRESS = 2, 3, 4
"""Numbers of the fields of ExecuteStepsResponse that carry many items."""

_BILLION = 1_000_000_000


def seconds(length: Duration) -> float:
    """A duration in seconds."""
    return length.seconds + length.nanos / 1e9


def stamp(nanos: int) -> Timestamp:
    """A moment in nanoseconds since the epoch as a message."""
    return Timestamp(seconds=nanos // _BILLION, nanos=nanos % _BILLION)


def result(
    request: step_pb2.StepExecutionRequest, ending: Ending, ended: int, started: int
) -> step_pb2.StepExecutionResult:
    """A result without what was spent on the way and without logs. Moments in nanoseconds; `started` 0 means never."""
    outcome = state_pb2.OUTCOME_DEGRADED if ending.outcome == DEGRADED else _OUTCOMES[ending.state]
    message = step_pb2.StepExecutionResult(state=_STATES[ending.state], outcome=outcome)
    context = message.context
    context.CopyFrom(request.context)
    if context.labels:
        context.ClearField("labels")
    if ending.state == COMPLETED:
        if isinstance(ending.output, BlobRef):
            message.output.ref.CopyFrom(blob_ref_to_proto(ending.output))
        elif ending.output is not None:
            message.output.json = ending.output
    if ending.failure is not None:
        fill_failure(message.failure, ending.failure)
    if ending.more_steps:
        message.more_steps_json = ending.more_steps
    at = message.ended_at
    at.seconds, at.nanos = divmod(ended, _BILLION)
    if started:
        at = message.started_at
        at.seconds, at.nanos = divmod(started, _BILLION)
        usage = message.usage
        usage.attempts = 1
        usage.wall_time.seconds, usage.wall_time.nanos = divmod(max(0, ended - started), _BILLION)
    return message


def fill_returned(message: step_pb2.StepExecutionResult, request: step_pb2.StepExecutionRequest) -> None:
    """Fills what is left of the allocation, by what the result says was used."""
    granted = request.allocation
    usage = message.usage
    left = message.allocation_returned
    if granted.HasField("credits"):
        left.credits = max(0, granted.credits - usage.credits)
    if granted.HasField("tokens"):
        left.tokens = max(0, granted.tokens - usage.input_tokens - usage.output_tokens)
    if granted.HasField("tool_calls"):
        left.tool_calls = max(0, granted.tool_calls - usage.tool_calls)
    if granted.HasField("steps"):
        left.steps = granted.steps


def status_of(attempt_id: str, attempt: Attempt | None) -> pb.AttemptStatus:
    """What is known of an attempt."""
    if attempt is None:
        return pb.AttemptStatus(attempt_id=attempt_id)
    if attempt.has_result:
        state = attempt.result_state
    elif attempt.state is State.QUEUED:
        state = state_pb2.STEP_STATE_SCHEDULED
    else:
        state = state_pb2.STEP_STATE_RUNNING
    return pb.AttemptStatus(
        attempt_id=attempt_id,
        state=state,  # type: ignore[arg-type]  # the numbers of StepState
        run_id=attempt.run_id,
        instance_id=attempt.owner,
    )


def describe_handler(handler: Handler) -> pb.HandlerInfo:
    """A handler as callers see it."""
    return pb.HandlerInfo(
        name=handler.name,
        description=handler.description,
        input_schema_json=handler.input_schema,
        output_schema_json=handler.output_schema,
        side_effecting=handler.side_effecting,
        tool=handler.tool,
        timeout=None if handler.timeout is None else duration(handler.timeout),
    )


def frame(**fields: Any) -> bytes:
    """A coded ExecuteStepsResponse."""
    return pb.ExecuteStepsResponse(**fields).SerializeToString()
