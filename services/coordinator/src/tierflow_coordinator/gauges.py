"""Metrics of the coordinator: what operators look at, read where it is when it is scraped."""

from __future__ import annotations

from typing import Any

from tierflow_durable.durable import Durable
from tierflow_durable.intake import Intake
from tierflow_runtime.metrics import Metrics

from tierflow_coordinator.core import states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.engine import Engine
from tierflow_coordinator.watch import Watches


class Endings:
    """Counts how swarms end, and how long they took. An ended swarm is counted once, by the instance that committed its end."""

    def __init__(self, metrics: Metrics) -> None:
        ended = metrics.counter("swarms_ended_total", "Swarms that ended, by final state.", ("state",))
        self._ended = {state: ended.labels(state) for state in sorted(states.ENDED)}
        self._seconds = metrics.histogram("swarm_seconds", "From acceptance to end of swarms.")

    def note(self, swarm: Swarm) -> None:
        """A swarm's end is committed."""
        self._ended[swarm.state].inc()
        if swarm.ended_at is not None:
            self._seconds.observe((swarm.ended_at - swarm.created_at) / 1_000_000)


class ContextCalls:
    """Counts what is asked of contexts and blackboards."""

    def __init__(self, metrics: Metrics) -> None:
        self._calls = metrics.counter(
            "context_calls_total",
            "Calls about what swarms share, by kind; `fetch` counts large values that were read (I9).",
            ("kind",),
        )

    def note(self, kind: str, n: int) -> None:
        """So many more."""
        self._calls.labels(kind).inc(n)


def publish_submissions(metrics: Metrics, intake: Intake[Any]) -> None:
    """Adds what waits to be taken, and what could not wait."""
    metrics.gauge_of(
        "submissions_waiting", "Submissions that wait until work under way leaves room.", lambda: len(intake)
    )
    refused = "Submissions that were refused since the start, because they would have had to wait long."
    metrics.gauge_of("submissions_refused", refused, lambda: intake.refused)


def publish_metrics(metrics: Metrics, durable: Durable, engine: Engine, watches: Watches) -> None:
    """Adds what can be read from the parts."""
    gauge, host, relay = metrics.gauge_of, durable.host, durable.relay
    durable.database.troubles.show(metrics)
    gauge("swarms_in_memory", "Swarms that this instance owns.", lambda: len(host.entities))
    gauge("swarms_under_way", "Swarms that have not ended, over all instances.", lambda: engine.load.under_way)
    gauge("swarms_awaited", "Swarms for whose end a client waits here.", lambda: len(engine.waiting))
    gauge("watches", "Clients that watch a swarm here.", lambda: watches.count)
    gauge("runs_wanted", "Runs that this instance's swarms wait for.", lambda: len(engine.runs))
    gauge("runs_in_line", "Of these: no orchestrator has room for them.", lambda: engine.runs.waiting)
    gauge("commits", "Group commits since the start.", lambda: host.writer.batches)
    gauge("commits_waiting", "Swarms that wait for a commit.", lambda: host.writer.backlog)
    gauge("journal_rows", "Journal rows since the start.", lambda: host.writer.rows)
    gauge("events_lag", "Journal positions that JetStream has not acknowledged.", lambda: relay.lag)
    gauge(
        "events_published", "Event messages that JetStream has acknowledged since the start.", lambda: relay.published
    )
    held = "Bytes of committed events in memory that JetStream has not acknowledged."
    gauge("events_held_bytes", held, lambda: relay.held_bytes)
    overdue = "Journal partitions beyond the time for which they are kept, and still needed."
    gauge("partitions_overdue", overdue, lambda: durable.retention.overdue)
    unpublished = "Of these: kept because their events are not on the event stream."
    gauge("partitions_unpublished", unpublished, lambda: durable.retention.unpublished)
    damaged = "Snapshots that could not be used since the start; the journal was read instead."
    gauge("snapshots_damaged", damaged, lambda: host.loader.damaged_snapshots)
    letters = "Dead letters about events of swarms that nobody has dealt with, over all instances."
    gauge("dead_letters_open", letters, lambda: sum(durable.dead_letters.open.values()))
    gauge("adopted", "Swarms adopted from fenced instances since the start.", lambda: host.owning.adopted)
