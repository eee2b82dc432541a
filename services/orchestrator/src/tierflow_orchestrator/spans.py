"""Spans of runs: made by hand from ids that survive a restart, so that one goal is one trace however often it changed hands."""

from __future__ import annotations

from tierflow_runtime.moves import Moves
from tierflow_runtime.telemetry import Telemetry
from tierflow_runtime.tracecontext import child_traceparent, parse_traceparent, span_id_of
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run


class RunSpans:
    """Says what attempts are children of, and exports a run's span at its end."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._traceparents: dict[str, str] = {}
        self._moves = Moves("run", telemetry)

    def attempt_traceparent(self, run: Run, step_id: str, attempt: int) -> str:
        """The run's span, as the parent of its attempts' spans; empty where the run has no trace."""
        made = self._traceparents.get(run.id)
        if made is None:
            made = self._traceparents[run.id] = child_traceparent(run.context.traceparent, span_id_of(run.id))
        return made

    @property
    def observing(self) -> bool:
        """Whether anybody looks at what is noted of changes."""
        return self._moves.wanted

    def observe(self, run: Run, event: events.RunEvent, time: Micros) -> None:
        """Notes changes of state that are committed; exports the span of a run that has ended."""
        if isinstance(event, events.RunStateChanged):
            self._moves.note(
                run.id, run.context, time, before=event.from_, after=event.to, reason=event.reason, actor=event.actor
            )
        elif isinstance(event, events.RunEnded):
            code = event.failure.code if event.failure is not None else ""
            self._moves.note(run.id, run.context, time, before=event.from_, after=event.to, reason=event.reason or code)
            self._export(run, event)

    def _export(self, run: Run, event: events.RunEnded) -> None:
        if not self._telemetry.enabled:
            return
        parent = parse_traceparent(run.context.traceparent)
        if parent is None:
            return
        context = run.context
        self._telemetry.record_span(
            f"run {run.flow_name}",
            parent.trace_id,
            span_id_of(run.id),
            parent.span_id,
            run.created_at,
            run.ended_at or run.created_at,
            {
                "tierflow.tenant": context.tenant, "tierflow.user_id": context.user_id, "tierflow.swarm_id": context.swarm_id, "tierflow.run_id": run.id,
                "execution.id": run.id, "tierflow.state": event.to, "tierflow.outcome": event.outcome, "tierflow.attempts": run.usage.attempts,
            },
            status=event.failure.code if event.failure is not None else "",
            links=_links(run),
            moves=self._moves.take(run.id),
            sampled=parent.sampled,
        )  # fmt: skip

    def forget(self, run: Run) -> None:
        """The run has left memory."""
        self._traceparents.pop(run.id, None)
        self._moves.take(run.id)


def _links(run: Run) -> tuple[str, ...]:
    """The span of the run that it was made of (K2, K3)."""
    reuse = run.steer.reuse if run.steer is not None else None
    if reuse is None or not reuse.traceparent:
        return ()
    return (child_traceparent(reuse.traceparent, span_id_of(reuse.run_id)),)
