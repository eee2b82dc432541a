"""How an execution ended, and the values it produced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.execution_pb2 import Usage
from tierflow_contracts.common.v1.failure_pb2 import Failure
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload
from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm, SwarmExecutionResult

from tierflow.errors import ExecutionFailed, made, seconds

_STATES = {number: name.removeprefix("SWARM_STATE_") for name, number in state_pb2.SwarmState.items()}
_OUTCOMES = {number: name.removeprefix("OUTCOME_") for name, number in state_pb2.Outcome.items()}

ENDED = frozenset(
    number for number, name in _STATES.items() if name in ("STOPPED", "COMPLETED", "FAILED", "TERMINATED")
)
"""States that a swarm does not leave."""

_EXACT_DOUBLE = 2**53

ReadBlob = Callable[[BlobRef], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Result:
    """How an execution ended."""

    id: str
    trace_id: str
    state: str
    """COMPLETED, FAILED, STOPPED or TERMINATED."""
    outcome: str
    """SUCCESS, PARTIAL, DEGRADED, FAILURE or CANCELLED."""
    output: Any
    """What the flow returned; None where it did not complete."""
    failure: Failure | None
    usage: Usage
    """What all attempts used."""
    duration: float
    """Seconds from acceptance to end."""

    def value(self) -> Any:
        """The output of a completed execution. Raises `ExecutionFailed` for any other."""
        if self.state == "COMPLETED":
            return self.output
        failure = self.failure or made("CANCELLED", f"The execution ended {self.state}.")
        text = f"{self.id} ended {self.state}: {story(failure)}\nLook further with: tierflow describe {self.id}"
        raise ExecutionFailed(failure, text, result=self)


def story(failure: Failure) -> str:
    """A failure and what caused it, one line: outermost first, no message twice."""
    parts: list[str] = []
    current: Failure | None = failure
    while current is not None:
        where = f" (step {current.step_id}, attempt {current.attempt})" if current.step_id and current.attempt else ""
        text = f"{current.message}{where}"
        if text and not any(text in part for part in parts):
            parts.append(text)
        current = current.cause if current.HasField("cause") else None
    return ", because: ".join([part.removesuffix(".") for part in parts[:-1]] + parts[-1:]) or "no reason was given"


async def result_of(ended: SwarmExecutionResult | Swarm, read: ReadBlob) -> Result:
    """The result that Tier 1 sent, with an output that is stored apart fetched."""
    return Result(
        id=ended.context.swarm_id,
        trace_id=trace_id(ended.context.traceparent),
        state=_STATES.get(ended.state, str(ended.state)),
        outcome=_OUTCOMES.get(ended.outcome, str(ended.outcome)),
        output=await value_of(ended.output, read),
        failure=ended.failure if ended.HasField("failure") else None,
        usage=ended.usage,
        duration=seconds(ended.duration),
    )


async def value_of(payload: Payload, read: ReadBlob) -> Any:
    """The plain value of a payload; None where there is none; bytes where it is not JSON."""
    kind = payload.WhichOneof("kind")
    if kind == "json":
        return orjson.loads(payload.json)
    if kind == "ref":
        content = await read(payload.ref)
        return orjson.loads(content) if payload.ref.media_type in ("", "application/json") else content
    if kind == "value":
        from google.protobuf.json_format import MessageToDict

        return whole(MessageToDict(payload.value))
    return None


def whole(value: Any) -> Any:
    """A value as it was before it became a protobuf value, which knows doubles only: 3, not 3.0."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT_DOUBLE else value
    if isinstance(value, dict):
        return {name: whole(field) for name, field in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def trace_id(traceparent: str) -> str:
    """The trace id within a W3C trace context, 32 hex digits, or an empty string."""
    return traceparent[3:35] if len(traceparent) >= 55 else ""
