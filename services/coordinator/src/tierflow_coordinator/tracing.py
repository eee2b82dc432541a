"""Spans of swarms: an anchor when one is admitted, so that its trace shows while it runs, and the swarm's own at its end.

client's span > anchor > swarm > runs. All ids follow from the swarm's id, so that they are the same after a restart (M1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tierflow_runtime.moves import Moves
from tierflow_runtime.telemetry import Move, Telemetry
from tierflow_runtime.tracecontext import parse_traceparent, span_id_of
from tierflow_runtime.values import Context, Micros, Reuse

from tierflow_coordinator.core import events
from tierflow_coordinator.core.swarm import Swarm

ANCHOR: Final = "admitted"


class Tracing:
    """Records swarms where a collector is configured; costs nothing where none is."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._moves = Moves("swarm", telemetry)

    @property
    def observing(self) -> bool:
        """Whether anybody looks at what is noted of changes."""
        return self._moves.wanted

    def observe(self, swarm: Swarm, event: events.SwarmEvent, time: Micros) -> None:
        """Notes changes of state that are committed, and what was decided about a plan."""
        if isinstance(event, events.SwarmStateChanged | events.SwarmEnded):
            self._moves.note(
                swarm.swarm_id, swarm.context, time,
                before=event.from_, after=event.to, reason=event.reason, actor=event.actor,
            )  # fmt: skip
        elif isinstance(event, events.PlanDecided):
            self._moves.note(
                swarm.swarm_id,
                swarm.context,
                time,
                before="",
                after=f"{event.planned} {event.state}",
                reason=event.reason,
            )
        elif isinstance(event, events.RunRequested) and event.planned:
            after = f"{event.planned} RUNNING"
            self._moves.note(swarm.swarm_id, swarm.context, time, before="", after=after, reason=event.reason)

    def forget(self, swarm: Swarm) -> None:
        """The swarm has left memory."""
        self._moves.take(swarm.swarm_id)

    def admitted(self, context: Context, parent_traceparent: str, now: Micros, reuse: Reuse | None = None) -> None:
        """The swarm is stored: its anchor is exported at once, linked to the swarm that it was made of (K2, K3)."""
        if self._telemetry.enabled:
            parent = parse_traceparent(parent_traceparent)
            self._record(
                "swarm admitted", context, _anchor_of(context), parent.span_id if parent else "", now, now, status="",
                links=_links(reuse),
            )  # fmt: skip

    def ended(self, swarm: Swarm) -> None:
        """The swarm's end is committed: its span is exported."""
        if self._telemetry.enabled:
            context = swarm.context
            self._record(
                f"swarm {swarm.flow_name}",
                context,
                span_id_of(swarm.swarm_id),
                _anchor_of(context),
                swarm.created_at,
                swarm.ended_at or swarm.created_at,
                status="" if swarm.failure is None else swarm.failure.code,
                state=swarm.state,
                moves=self._moves.take(swarm.swarm_id),
                links=_links(swarm.reuse),
            )

    def _record(
        self,
        name: str,
        context: Context,
        span_id: str,
        parent_span_id: str,
        start: Micros,
        end: Micros,
        *,
        status: str,
        state: str = "",
        moves: Sequence[Move] = (),
        links: Sequence[str] = (),
    ) -> None:
        trace = parse_traceparent(context.traceparent)
        if trace is None:
            return
        attributes = {
            "tierflow.tenant": context.tenant,
            "tierflow.user_id": context.user_id,
            "tierflow.swarm_id": context.swarm_id,
            "tierflow.correlation_id": context.correlation_id,
            "tierflow.state": state,
        }
        self._telemetry.record_span(
            name,
            trace.trace_id,
            span_id,
            parent_span_id,
            start,
            end,
            {key: value for key, value in attributes.items() if value},
            status,
            links,
            moves=moves,
            sampled=trace.sampled,
        )


def _anchor_of(context: Context) -> str:
    return span_id_of(context.swarm_id, ANCHOR)


def _links(reuse: Reuse | None) -> tuple[str, ...]:
    return (reuse.traceparent,) if reuse is not None and reuse.traceparent else ()
