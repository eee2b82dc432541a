"""Telemetry: traces, only where a collector is configured. Without one nothing is loaded, nothing is computed, nothing is said.

Two kinds of spans. Unary calls get theirs from the gRPC instrumentation. What lives longer than a call or a process - a swarm, a run, an attempt - is recorded
when it has ended, as one finished span with ids that were fixed beforehand (`span_id_of`), so that one goal is one trace over restarts, retries and queues
(M1, lesson 36). No interceptor looks at the messages of a stream (PERFORMANCE.md, section 8).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

from tierflow_runtime.logs import get_log
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.tracecontext import (
    child_traceparent,
    new_traceparent,
    parse_traceparent,
    span_id_of,
    valid_traceparent,
)
from tierflow_runtime.values import Failure

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Telemetry", "child_traceparent", "new_traceparent", "setup_telemetry", "span_id_of", "valid_traceparent"]

log = get_log(__name__)

Attribute = str | int | float | bool
_SCOPE: Final = "tierflow"
_FLUSH_SECONDS: Final = 5.0


class Move(NamedTuple):
    """A moment within a span: what happened, when (microseconds since the epoch), and what is known of it."""

    name: str
    time: int
    attributes: Mapping[str, Attribute]


class Telemetry:
    """Records spans; this one, for processes without a collector, records none."""

    enabled: bool = False

    def __init__(self, *, ratio: float = 1.0) -> None:
        self._ratio = ratio

    def root(self) -> str:
        """A traceparent for a new trace; without a collector it is not sampled, but the ids are there all the same (S4)."""
        return new_traceparent(ratio=self._ratio if self.enabled else 0.0)

    def record_span(
        self,
        name: str,
        trace_id: str,
        span_id: str,
        parent_span_id: str,
        start_us: int,
        end_us: int,
        attributes: Mapping[str, Attribute] | None = None,
        status: str = "",
        links: Sequence[str] = (),
        *,
        moves: Sequence[Move] = (),
        sampled: bool = True,
    ) -> None:
        """Exports a finished span with ids of the caller's choice.

        Args:
            name: What was done, such as `run billing` or `attempt http.request`: of few kinds, no ids.
            trace_id: 32 hex digits.
            span_id: 16 hex digits; see `span_id_of`.
            parent_span_id: 16 hex digits; empty for the root of a trace.
            start_us: Begin, microseconds since the epoch.
            end_us: End.
            attributes: Ids and numbers; `tierflow.` before each name of ours.
            status: Empty where it went well; else the code of the failure.
            links: Traceparents of what this follows from: the attempt before, the schedule.
            moves: Moments within it, such as changes of state.
            sampled: The trace's flag; what is not sampled is not exported.
        """

    def server_interceptors(self) -> list[grpc.aio.ServerInterceptor[Any, Any]]:
        """Interceptors for a server: spans of unary calls."""
        return []

    def client_interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Interceptors for a channel: spans of unary calls, and their context in the metadata."""
        return []

    def mark_failed(self, failure: Failure) -> None:
        """Says of the span of the present call that it failed."""

    def annotate(self, attributes: Mapping[str, Attribute]) -> None:
        """Adds attributes to the span of the present call."""

    async def shutdown(self) -> None:
        """Exports what waits, at most five seconds, and stops."""


def setup_telemetry(service_name: str, settings: ServiceSettings, *, exporter: SpanExporter | None = None) -> Telemetry:
    """The telemetry of a process: real where `OTEL_EXPORTER_OTLP_ENDPOINT` is set (OTLP over gRPC), else one that does nothing.

    Args:
        service_name: As traces show it, such as `tierflow-orchestrator`.
        settings: Endpoint, ratio and instance name.
        exporter: In place of the OTLP exporter; for tests.
    """
    if not settings.otel_endpoint and exporter is None:
        return Telemetry(ratio=settings.trace_ratio)
    return _Recording(service_name, settings, exporter)


class _Recording(Telemetry):
    """The telemetry of a process with a collector. Everything of OpenTelemetry is imported here and not before."""

    enabled = True

    def __init__(self, service_name: str, settings: ServiceSettings, exporter: SpanExporter | None) -> None:
        super().__init__(ratio=settings.trace_ratio)
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._api = trace
        self._scope = InstrumentationScope(_SCOPE, version("tierflow-runtime"))
        self._resource = Resource.create(
            {
                "service.name": service_name,
                "service.instance.id": settings.instance_name,
                "service.version": version("tierflow-runtime"),
            }
        )
        insecure = not settings.otel_endpoint.startswith("https://")
        self._processor = BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint=settings.otel_endpoint, insecure=insecure, timeout=_FLUSH_SECONDS)
        )
        self.provider: TracerProvider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.trace_ratio), resource=self._resource, shutdown_on_exit=False
        )
        self.provider.add_span_processor(self._processor)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self.provider)  # so that handlers of users find it
        log.info("traces are exported", endpoint=settings.otel_endpoint, ratio=settings.trace_ratio)

    def record_span(
        self,
        name: str,
        trace_id: str,
        span_id: str,
        parent_span_id: str,
        start_us: int,
        end_us: int,
        attributes: Mapping[str, Attribute] | None = None,
        status: str = "",
        links: Sequence[str] = (),
        *,
        moves: Sequence[Move] = (),
        sampled: bool = True,
    ) -> None:
        """See `Telemetry`."""
        if not sampled or not trace_id:
            return
        from opentelemetry.sdk.trace import Event, ReadableSpan

        api = self._api
        parsed = [parent for parent in map(parse_traceparent, links) if parent is not None]
        span = ReadableSpan(
            name=name,
            context=self._context(trace_id, span_id),
            parent=self._context(trace_id, parent_span_id) if parent_span_id else None,
            resource=self._resource,
            attributes=dict(attributes) if attributes else {},
            events=[Event(move.name, dict(move.attributes), move.time * 1000) for move in moves],
            links=[api.Link(self._context(link.trace_id, link.span_id)) for link in parsed],
            kind=api.SpanKind.INTERNAL,
            status=api.Status(api.StatusCode.ERROR, status) if status else api.Status(api.StatusCode.UNSET),
            start_time=start_us * 1000,
            end_time=end_us * 1000,
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)

    def server_interceptors(self) -> list[grpc.aio.ServerInterceptor[Any, Any]]:
        """See `Telemetry`."""
        from opentelemetry.instrumentation import grpc as instrumentation

        make: Any = instrumentation.aio_server_interceptor
        return [_UnaryOnly(make(self.provider))]

    def client_interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """See `Telemetry`."""
        from opentelemetry.instrumentation import grpc as instrumentation

        make: Any = instrumentation.aio_client_interceptors
        unary: list[Any] = [
            each for each in make(self.provider) if isinstance(each, grpc.aio.UnaryUnaryClientInterceptor)
        ]
        return unary

    def mark_failed(self, failure: Failure) -> None:
        """See `Telemetry`. The instrumentation itself leaves the status of most codes unset."""
        span = self._api.get_current_span()
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, failure.code))
        span.set_attribute("tierflow.failure.code", failure.code)
        if failure.component == "database" and failure.detail:
            span.set_attribute("tierflow.database.trouble", failure.detail.partition(":")[0])

    def annotate(self, attributes: Mapping[str, Attribute]) -> None:
        """See `Telemetry`."""
        self._api.get_current_span().set_attributes(dict(attributes))

    async def shutdown(self) -> None:
        """See `Telemetry`."""
        # A thread of its own, which the process need not wait for: a collector that does not answer would hold up the pool's.
        loop = asyncio.get_running_loop()
        flushed = asyncio.Event()

        def flush() -> None:
            self.provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
                loop.call_soon_threadsafe(flushed.set)

        threading.Thread(target=flush, name="telemetry flush", daemon=True).start()
        try:
            await asyncio.wait_for(flushed.wait(), _FLUSH_SECONDS)
        except TimeoutError:
            log.warning("the last spans could not be exported")

    def _context(self, trace_id: str, span_id: str) -> Any:
        return self._api.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=False,
            trace_flags=self._api.TraceFlags(self._api.TraceFlags.SAMPLED),
        )


class _UnaryOnly(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Puts another interceptor before unary methods only, and not before health and reflection."""

    def __init__(self, inner: grpc.aio.ServerInterceptor[Any, Any]) -> None:
        self._inner = inner

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler, with the other interceptor before it where it is unary."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler_call_details.method.startswith("/grpc."):
            return handler

        async def known(_: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return handler

        return await self._inner.intercept_service(known, handler_call_details)
