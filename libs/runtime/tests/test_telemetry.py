"""Traces, with an exporter that keeps them; and none without a collector."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from small_service import NAME, Small
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure
from tierflow_runtime.serving import Server
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.telemetry import Telemetry, setup_telemetry
from tierflow_runtime.tracecontext import child_traceparent, parse_traceparent, span_id_of, valid_traceparent


@pytest.fixture
async def traced() -> AsyncIterator[tuple[Telemetry, Callable[[], Sequence[ReadableSpan]]]]:
    """Telemetry with an exporter, and what was exported so far."""
    exporter = InMemorySpanExporter()
    telemetry = setup_telemetry("tierflow-test", ServiceSettings(), exporter=exporter)

    def spans() -> Sequence[ReadableSpan]:
        telemetry.provider.force_flush()
        return exporter.get_finished_spans()

    yield telemetry, spans
    await telemetry.shutdown()


async def test_calls_are_one_trace(traced) -> None:
    """M1, M2: a unary call has a client's and a server's span in one trace, the server's below the client's; a failed one says so on both."""
    telemetry, spans = traced
    server = Server(ServiceSettings(), tier=2, component="orchestrator", telemetry=telemetry)
    server.add(NAME, stubs.add_OrchestratorServiceServicer_to_server, Small())
    await server.start()
    async with open_channel(server.address, interceptors=telemetry.client_interceptors()) as channel:
        stub = stubs.OrchestratorServiceStub(channel)
        await stub.GetRun(pb.GetRunRequest(run_id="x"))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetRun(pb.GetRunRequest(run_id="failure"))
    await server.drain(0)
    calls: dict[int, list[ReadableSpan]] = {}
    for span in sorted(spans(), key=lambda span: span.start_time):  # a server's may end after the next call began
        calls.setdefault(span.context.trace_id, []).append(span)
    fine, failed = calls.values()
    for pair, status in ((fine, StatusCode.UNSET), (failed, StatusCode.ERROR)):
        by_kind = {span.kind: span for span in pair}
        client, served = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
        assert client.context.trace_id == served.context.trace_id
        assert served.parent is not None
        assert served.parent.span_id == client.context.span_id
        assert served.status.status_code is client.status.status_code is status
    served = next(span for span in failed if span.kind is SpanKind.SERVER)
    assert served.attributes["tierflow.failure.code"] == "STEP_FAILED"
    assert served.resource.attributes["service.name"] == "tierflow-test"


async def test_troubles_of_the_database_have_their_kind(traced) -> None:
    """F25, P12: the span of a call that the database failed says of what kind the trouble is."""
    telemetry, spans = traced
    trouble = failure(
        "DATABASE_UNAVAILABLE",
        "away",
        component="database",
        operation="owner",
        detail="pool: TooManyConnectionsError: x",
    )
    with telemetry.provider.get_tracer("test").start_as_current_span("call"):
        telemetry.mark_failed(trouble)
    (span,) = spans()
    assert span.attributes["tierflow.database.trouble"] == "pool"
    assert span.status.status_code is StatusCode.ERROR


async def test_streams_have_no_spans(traced) -> None:
    """P4, PERFORMANCE: no interceptor looks at the messages of a stream: a stream makes no span."""
    telemetry, spans = traced
    server = Server(ServiceSettings(), tier=2, component="orchestrator", telemetry=telemetry)
    server.add(NAME, stubs.add_OrchestratorServiceServicer_to_server, Small())
    await server.start()
    async with open_channel(server.address, interceptors=telemetry.client_interceptors()) as channel:
        assert [one async for one in stubs.OrchestratorServiceStub(channel).WatchRun(pb.WatchRunRequest())]
    await server.drain(0)
    assert spans() == ()


async def test_finished_spans(traced) -> None:
    """M1, S4, Lesson 36: a run and its attempts are spans with ids that were known beforehand, linked over retries."""
    telemetry, spans = traced
    root = parse_traceparent(telemetry.root())
    assert root is not None
    run, first, second = span_id_of("r"), span_id_of("r", "s", 1), span_id_of("r", "s", 2)
    telemetry.record_span("run", root.trace_id, run, "", 1_000_000, 3_000_000, {"tierflow.run_id": "r"})
    telemetry.record_span("attempt", root.trace_id, first, run, 1_500_000, 2_000_000, status="TIMEOUT")
    link = child_traceparent(str(root), first)
    telemetry.record_span("attempt", root.trace_id, second, run, 2_000_000, 2_500_000, links=[link, "nonsense"])
    by_id = {f"{span.context.span_id:016x}": span for span in spans()}
    assert set(by_id) == {run, first, second}
    assert {f"{span.context.trace_id:032x}" for span in by_id.values()} == {root.trace_id}
    assert by_id[run].parent is None
    assert by_id[run].attributes == {"tierflow.run_id": "r"}
    assert (by_id[run].start_time, by_id[run].end_time) == (1_000_000_000, 3_000_000_000)
    assert f"{by_id[first].parent.span_id:016x}" == run
    assert (by_id[first].status.status_code, by_id[first].status.description) == (StatusCode.ERROR, "TIMEOUT")
    assert [f"{one.context.span_id:016x}" for one in by_id[second].links] == [first]


async def test_what_is_not_sampled_is_not_exported(traced) -> None:
    """M1: the flag of the trace decides, for spans of calls and for those made by hand."""
    telemetry, spans = traced
    telemetry.record_span("run", "1" * 32, "2" * 16, "", 1, 2, sampled=False)
    telemetry.record_span("run", "", "2" * 16, "", 1, 2)
    assert spans() == ()


async def test_spans_reach_a_collector() -> None:
    """M1, M2: what is recorded arrives at a collector by OTLP, with the ids that it was given."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_stubs

    arrived: asyncio.Queue[otlp.ExportTraceServiceRequest] = asyncio.Queue()

    class Collector(otlp_stubs.TraceServiceServicer):
        async def Export(self, request, context):  # noqa: N802  # gRPC names its methods so
            arrived.put_nowait(request)
            return otlp.ExportTraceServiceResponse()

    collector = grpc.aio.server()
    otlp_stubs.add_TraceServiceServicer_to_server(Collector(), collector)
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()
    settings = ServiceSettings(otel_endpoint=f"http://127.0.0.1:{port}")
    telemetry = setup_telemetry("tierflow-test", settings)
    assert telemetry.enabled
    telemetry.record_span("run", "a" * 32, "b" * 16, "", 1, 2)
    await telemetry.shutdown()
    (resource,) = (await asyncio.wait_for(arrived.get(), 60)).resource_spans
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.span_id.hex()) == ("run", "a" * 32, "b" * 16)
    await collector.stop(0)


async def test_without_a_collector() -> None:
    """DESIGN 13: no collector configured means no interceptors and no spans, but ids all the same (S4)."""
    telemetry = setup_telemetry("tierflow-test", ServiceSettings())
    assert not telemetry.enabled
    assert telemetry.server_interceptors() == telemetry.client_interceptors() == []
    telemetry.record_span("run", "1" * 32, "2" * 16, "", 1, 2)
    assert valid_traceparent(telemetry.root())
    assert telemetry.root().endswith("-00")
    await telemetry.shutdown()


def test_without_a_collector_nothing_is_loaded() -> None:
    """B7, DESIGN 13: importing what a service needs loads no OpenTelemetry and opens no socket."""
    script = (
        "import sys, socket\n"
        "made = []\n"
        "real = socket.socket.__init__\n"
        "socket.socket.__init__ = lambda self, *a, **k: (made.append(a), real(self, *a, **k))[1]\n"
        "import tierflow_runtime.serving, tierflow_runtime.telemetry, tierflow_runtime.messaging\n"
        "from tierflow_runtime.settings import ServiceSettings\n"
        "tierflow_runtime.telemetry.setup_telemetry('x', ServiceSettings())\n"
        "print(sorted(m for m in sys.modules if m.startswith('opentelemetry.sdk')), made)\n"
    )
    clean = {"PATH": "", "HOME": "/"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "[] []\n"


async def test_a_collector_that_is_away() -> None:
    """R21: a collector that does not answer costs the service nothing but the spans: recording never waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        telemetry = setup_telemetry("tierflow-test", ServiceSettings(otel_endpoint=endpoint))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(5000):
            telemetry.record_span("run", f"{number + 1:032x}", "2" * 16, "", 1, 2)
        assert loop.time() - begun < 5
        await telemetry.shutdown()
        assert loop.time() - begun < 60
