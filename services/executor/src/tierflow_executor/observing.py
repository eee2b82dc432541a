"""What operators see of attempts: counts, durations, one span for each that is traced. Costs a few microseconds, and nothing without a collector."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.executor.v1.step_pb2 import StepExecutionResult
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.telemetry import Telemetry
from tierflow_runtime.tracecontext import Traceparent, child_traceparent, parse_traceparent, span_id_of
from tierflow_runtime.wire import ERROR_CODES, OUTCOMES, STEP_STATES

from tierflow_executor.running import Running

_SAMPLED = "01"


class Observer:
    """Notes how attempts end.

    Args:
        metrics: The process's metrics.
        telemetry: Where spans go.
        executor: Name of this executor, for spans.
    """

    def __init__(self, metrics: Metrics, telemetry: Telemetry, executor: str) -> None:
        self._telemetry = telemetry
        self._executor = executor
        self._ended = metrics.counter(
            "attempts_total", "Attempts that ended, by handler and outcome.", ("handler", "outcome")
        )
        self._seconds = metrics.histogram("attempt_seconds", "Time that attempts ran, by handler.", ("handler",))
        self._tools = metrics.counter(
            "tool_calls_total", "Tool calls that attempts which ended have made, by handler.", ("handler",)
        )
        self._by_handler: dict[tuple[str, int], tuple[Any, Any]] = {}

    def accepted(self, running: Running) -> None:
        """An attempt was accepted: calls that its handler makes are below its span, where there will be one."""
        if running.traceparent and self._telemetry.enabled and running.traceparent.endswith(_SAMPLED):
            running.traceparent = child_traceparent(running.traceparent, self._span_id(running))

    def ended(self, running: Running, result: StepExecutionResult) -> None:
        """An attempt has its result."""
        key = (running.handler.name, result.outcome)
        found = self._by_handler.get(key)
        if found is None:
            found = self._ended.labels(key[0], OUTCOMES.name(result.outcome)), self._seconds.labels(key[0])
            self._by_handler[key] = found
        found[0].inc()
        if running.spent is not None and running.spent.tool_calls:
            self._tools.labels(key[0]).inc(running.spent.tool_calls)
        if running.started_ns:
            started, ended = running.started_ns, result.ended_at.seconds * 1_000_000_000 + result.ended_at.nanos
            found[1].observe((ended - started) / 1e9)
            if self._telemetry.enabled:
                self._record(running, result, started // 1000, ended // 1000)

    def _record(self, running: Running, result: StepExecutionResult, started_us: int, ended_us: int) -> None:
        context = running.request.context
        parent = parse_traceparent(context.traceparent)
        if parent is None or not parent.sampled:
            return
        self._telemetry.record_span(
            f"step {running.handler.name}",
            parent.trace_id,
            self._span_id(running),
            parent.span_id,
            started_us,
            ended_us,
            {
                "tierflow.tenant": context.tenant,
                "tierflow.swarm_id": context.swarm_id,
                "tierflow.run_id": context.run_id,
                "tierflow.step_id": context.step_id,
                "tierflow.attempt": context.attempt,
                "tierflow.attempt_id": context.attempt_id,
                "tierflow.handler": running.handler.name,
                "tierflow.executor": self._executor,
                "tierflow.state": STEP_STATES.name(result.state),
            },
            ERROR_CODES.name(result.failure.code) if result.HasField("failure") else "",
            self._links(running, parent),
        )

    @staticmethod
    def _links(running: Running, parent: Traceparent) -> list[str]:
        """The attempt before, where there was one: a retry follows from it (M1)."""
        context = running.request.context
        if context.attempt <= 1:
            return []
        before = span_id_of(context.run_id, context.step_id, context.attempt - 1)
        return [str(Traceparent(parent.trace_id, before, parent.sampled))]

    @staticmethod
    def _span_id(running: Running) -> str:
        context = running.request.context
        return span_id_of(context.run_id, context.step_id, context.attempt)
