"""What goes down and what comes in, as the contract has it; and the trace through Tier 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import json_format
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_runtime.contract import check_run_request
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.telemetry import setup_telemetry
from tierflow_runtime.tracecontext import span_id_of
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]

DOCUMENTED = """
{
  "context": {"requestId": "order-17", "correlationId": "order-17", "labels": {"team": "billing"}, "deadline": "2099-01-01T00:00:00Z"},
  "input": {
    "flow": {"flow": {"name": "greet"}, "input": {"value": {"name": "Ann"}}},
    "availableAgents": [{"agentId": "a1", "capabilities": ["write"], "maxConcurrentTasks": 2, "currentLoad": 1}],
    "teamConfiguration": {"maxAgents": 3, "settings": {"value": {"mode": "calm"}}}
  },
  "allocation": {"credits": "9007199254740993", "wallTime": "3600s", "steps": "100"},
  "options": {"priority": 5, "emergent": true, "retry": {"maxAttempts": 2}, "strategy": "fast"}
}
"""


async def test_documented_request(tier1: Any, tier2: FakeOrchestrator) -> None:
    """A2, A3, A8, A9: the documented JSON is taken; what reaches Tier 2 keeps identity, limits and options exactly, and keeps the contract."""
    request = json_format.Parse(DOCUMENTED, swarm_pb2.SwarmExecutionRequest())
    answer = await tier1.submit(request)
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_COMPLETED
    (sent,) = tier2.requests
    assert check_run_request(sent) == []
    assert sent.allocation.credits == 9007199254740993
    assert sent.allocation == request.allocation
    assert (sent.options.priority, sent.options.emergent, sent.options.strategy) == (5, True, "fast")
    assert sent.options.retry.max_attempts == 2
    assert dict(sent.context.labels) == {"team": "billing"}
    assert (sent.context.correlation_id, sent.context.request_id) == ("order-17", "order-17")
    assert sent.context.root_id == answer.swarm_id
    assert sent.context.depth == 1
    # The nearer of the client's deadline and the wall time; as time remaining too (rule R17).
    remaining = sent.context.deadline.seconds - swarm.created_at.seconds
    assert 3599 <= remaining <= 3600
    assert 3590 < sent.context.time_remaining.seconds <= 3600
    assert swarm.context.deadline.seconds == sent.context.deadline.seconds


async def test_what_is_left_is_given_back(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """A9, Lesson 6: the part of the allocation that was not used is told, exactly."""
    request = request_of(request_id="r")
    request.allocation.steps = 2**60
    request.allocation.credits = 2**60 + 1
    stream = tier1.stub.ExecuteSwarms(iter_of(request))
    async for frame in stream:
        if frame.results:
            (result,) = frame.results
            assert result.allocation_returned.steps == 2**60 - 1
            assert result.allocation_returned.credits == 2**60 + 1
            assert not result.allocation_returned.HasField("tokens")


async def iter_of(request: swarm_pb2.SwarmExecutionRequest) -> Any:
    yield api.ExecuteSwarmsRequest(execute=[request])


class Spans(SpanExporter):
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def named(self, name: str) -> ReadableSpan | None:
        return next((span for span in self.spans if span.name == name), None)


def ids(span: ReadableSpan | None) -> tuple[str, str, str]:
    """Trace, span and parent."""
    assert span is not None
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


async def test_trace(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """M1, M2, S4: one trace from the client over the anchor and the swarm to the run; ids follow from the swarm's; the anchor shows while it runs."""
    exporter = Spans()
    telemetry = setup_telemetry("test", ServiceSettings(), exporter=exporter)
    tier1 = await make_coordinator(telemetry=telemetry)
    tier2.mode = "accept"
    trace_id, client_span = "ab" * 16, "cd" * 8
    answer = await tier1.submit(request_of(traceparent=f"00-{trace_id}-{client_span}-01"))
    assert answer.trace_id == trace_id
    telemetry.provider.force_flush()
    anchor = span_id_of(answer.swarm_id, "admitted")
    assert ids(exporter.named("swarm admitted")) == (trace_id, anchor, client_span)
    assert exporter.named("swarm greet") is None
    await eventually(lambda: answer.run_id in tier2.runs)
    assert tier2.requests[0].context.traceparent == f"00-{trace_id}-{span_id_of(answer.swarm_id)}-01"
    await tier2.finish(answer.run_id)
    await tier1.wait(answer.swarm_id)
    telemetry.provider.force_flush()
    span = exporter.named("swarm greet")
    assert ids(span) == (trace_id, span_id_of(answer.swarm_id), anchor)
    assert span is not None
    assert span.attributes is not None
    assert span.attributes["tierflow.swarm_id"] == answer.swarm_id
    assert span.attributes["tierflow.state"] == "COMPLETED"


async def test_no_trace_without_a_client(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """S4: a swarm whose client brought no trace gets one of its own; without a collector it is not sampled."""
    answers = [await tier1.submit(request_of()) for _ in range(2)]
    assert len({answer.trace_id for answer in answers}) == 2
    await tier1.wait(answers[0].swarm_id)
    assert tier2.requests[0].context.traceparent.endswith("-00")
