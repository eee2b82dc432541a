"""One goal is one trace: a running system that exports to a real OTLP collector."""

import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import nats
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_stubs
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as coordinator
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest
from tierflow_runtime.channels import open_channel
from tierflow_runtime.tracecontext import Traceparent, span_id_of
from tierflow_testing.stack import Stack

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"
FLAKY = """
name: trace-flaky
version: "1"
steps:
  first:
    call: contract.flaky
    with: {key: "${{ input.key }}"}
    retry: {max_attempts: 2, initial_delay: 10ms}
  second:
    call: contract.echo
    with: {given: "${{ steps.first.output }}"}
output: ${{ steps.second.output }}
"""


class Collector(otlp_stubs.TraceServiceServicer):
    """Keeps every span with the service that it came from."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.changed = threading.Condition()

    def Export(self, request: otlp.ExportTraceServiceRequest, context: object) -> otlp.ExportTraceServiceResponse:  # noqa: N802
        with self.changed:
            for resource in request.resource_spans:
                service = next(
                    one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
                )
                self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
            self.changed.notify_all()
        return otlp.ExportTraceServiceResponse()

    def wait_for(self, fact: Callable[[], bool]) -> None:
        """Waits until something is true of the spans."""
        with self.changed:
            assert self.changed.wait_for(fact, timeout=60), [(service, span.name) for service, span in self.spans]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    made = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    otlp_stubs.add_TraceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"http://127.0.0.1:{port}"
    server.stop(None)


async def test_one_goal_is_one_trace(collector: tuple[Collector, str], make_stack: Callable[..., Stack]) -> None:
    """M1, M2, S4, C11, K3, Lesson 36: client, three tiers, a retry and an event on JetStream share a trace; parents lead from each attempt up to the client; a replay has a trace of its own, linked to it."""
    spans, endpoint = collector
    stack = make_stack(
        handlers=("contract_handlers",),
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"},
        executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )
    events = await nats.connect(stack.nats.url)
    subscription = await events.subscribe("tierflow.v1.>")
    request = SwarmExecutionRequest()
    request.input.flow.flow.source.yaml = FLAKY
    request.input.flow.input.json = json.dumps({"key": "k"})
    request.context.traceparent = str(Traceparent(TRACE, CLIENT_SPAN, True))
    async with open_channel(stack.address) as channel:
        client = coordinator.CoordinatorServiceStub(channel)
        taken = await client.SubmitSwarm(request)
        waited = await client.WaitSwarm(api.WaitSwarmRequest(swarm_id=taken.swarm_id), timeout=60)
    assert waited.swarm.usage.attempts == 3, waited.swarm

    def of_trace() -> dict[str, tuple[str, Span]]:
        return {span.span_id.hex(): (service, span) for service, span in spans.spans if span.trace_id.hex() == TRACE}

    def complete() -> bool:
        found = of_trace()
        attempts = [span for service, span in found.values() if service == "tierflow-executor"]
        return len(attempts) >= 3 and span_id_of(taken.run_id) in found and span_id_of(taken.swarm_id) in found

    spans.wait_for(complete)
    found = of_trace()
    assert {service for service, _ in found.values()} == {
        "tierflow-coordinator",
        "tierflow-orchestrator",
        "tierflow-executor",
    }
    for span_id, (_, span) in found.items():
        assert span.parent_span_id.hex() in {*found, CLIENT_SPAN}, (span_id, span.name)
    attempts = [span for service, span in found.values() if service == "tierflow-executor"]
    assert {span.parent_span_id.hex() for span in attempts} == {span_id_of(taken.run_id)}
    assert sorted(span.status.code == Status.STATUS_CODE_ERROR for span in attempts) == [False, False, True]
    retried = next(span for span in attempts if span.links)
    before = next(span for span in attempts if span.status.code == Status.STATUS_CODE_ERROR)
    assert [link.span_id for link in retried.links] == [before.span_id]
    for _, span in found.values():
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
    run = found[span_id_of(taken.run_id)][1]
    assert {one.key: one.value.string_value for one in run.attributes}["execution.id"] == taken.run_id
    assert [move.name for move in run.events] == ["PREPARING", "RUNNING", "COMPLETED"]
    assert [move.name for move in found[span_id_of(taken.swarm_id)][1].events] == ["RUNNING", "COMPLETED"]
    times = [run.start_time_unix_nano, *(move.time_unix_nano for move in run.events), run.end_time_unix_nano]
    assert times == sorted(times)
    async with open_channel(stack.address) as channel:
        client = coordinator.CoordinatorServiceStub(channel)
        again = (await client.ReplaySwarm(api.ReplaySwarmRequest(swarm_id=taken.swarm_id))).accepted
        await client.WaitSwarm(api.WaitSwarmRequest(swarm_id=again.swarm_id), timeout=60)
    assert again.trace_id != TRACE
    pairs = {span_id_of(again.swarm_id): span_id_of(taken.swarm_id), span_id_of(again.run_id): span_id_of(taken.run_id)}

    def links() -> dict[str, list[tuple[str, str]]]:
        return {
            span.span_id.hex(): [(one.trace_id.hex(), one.span_id.hex()) for one in span.links]
            for _, span in spans.spans
            if span.span_id.hex() in pairs
        }

    spans.wait_for(lambda: links().keys() == pairs.keys())
    linked = links()
    assert linked == {span_id: [(TRACE, before)] for span_id, before in pairs.items()}
    seen = set()
    while not {taken.swarm_id, taken.run_id} <= seen:
        message = await subscription.next_msg(timeout=30)
        if taken.swarm_id in message.subject and ".progress." not in message.subject:
            assert message.headers is not None
            assert message.headers["traceparent"][3:35] == TRACE
            parts = message.subject.split(".")
            seen.add(parts[4] if parts[4] != "-" else parts[3])
    await events.close()
