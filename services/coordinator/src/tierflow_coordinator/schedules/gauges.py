"""Metrics of schedules: what fired, how late, what was missed."""

from __future__ import annotations

from tierflow_durable.durable import Durable
from tierflow_runtime.metrics import Metrics

from tierflow_coordinator.core.schedules import states
from tierflow_coordinator.core.schedules.firing import Firing

_LAG_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)


class Firings:
    """Counts firings. Each change is counted once, by the instance that committed it."""

    def __init__(self, metrics: Metrics) -> None:
        self._firings = metrics.counter(
            "schedule_firings_total", "Firings of schedules, by what became of them.", ("kind", "state")
        )
        self._missed = metrics.counter(
            "schedule_times_missed_total", "Times of schedules that passed longer ago than they catch up with."
        )
        self._lag = metrics.histogram(
            "schedule_lag_seconds",
            "From the moment of a scheduled firing, without jitter, to the decision to make its swarm.",
            buckets=_LAG_BUCKETS,
        )

    def note(self, firing: Firing) -> None:
        """A change of a firing is committed."""
        self._firings.labels(firing.kind, firing.state).inc()
        if firing.state == states.REQUESTED and firing.kind == states.SCHEDULED and firing.fired_at is not None:
            self._lag.observe(max(0, firing.fired_at - firing.time) / 1_000_000)

    def note_missed(self, count: int) -> None:
        """Times were missed."""
        self._missed.inc(count)


def publish_schedules(metrics: Metrics, durable: Durable) -> None:
    """Adds what can be read from the durable library."""
    host, relay = durable.host, durable.relay
    metrics.gauge_of(
        "schedules_in_memory", "Schedules that this instance owns at the moment.", lambda: len(host.entities)
    )
    metrics.gauge_of("schedule_commits", "Group commits for schedules since the start.", lambda: host.writer.batches)
    metrics.gauge_of(
        "schedule_events_lag", "Journal positions of schedules that JetStream has not acknowledged.", lambda: relay.lag
    )
