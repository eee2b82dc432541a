"""Metrics of the orchestrator."""

from __future__ import annotations

from functools import partial

from tierflow_contracts.events.v1.event_pb2 import EVENT_CLASS_TOOLS
from tierflow_durable.durable import Durable
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.subjects import RELIABLE

from tierflow_orchestrator.claims import REASONS
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.engine import Engine
from tierflow_orchestrator.sessions import Sessions
from tierflow_orchestrator.settings import OrchestratorSettings

TOOLS = RELIABLE[EVENT_CLASS_TOOLS]


def publish_metrics(
    settings: OrchestratorSettings, durable: Durable, dispatcher: Dispatcher, engine: Engine, sessions: Sessions
) -> Metrics | None:
    """Serves Prometheus metrics where a port for them is set."""
    if settings.metrics_port is None:
        return None
    metrics = Metrics("orchestrator")
    metrics.gauge_of("runs_in_memory", "Runs that this instance owns", lambda: len(durable.host.entities))
    metrics.gauge_of("attempts_in_flight", "Attempts at executors", lambda: len(dispatcher.flights))
    metrics.gauge_of(
        "credits_held",
        "Micro-credits that attempts, and runs of steps, hold of the budgets of the runs that this instance owns",
        lambda: sum(entity.state.ledger.held.credits for entity in durable.host.entities.values()),
    )
    metrics.gauge_of(
        "steps_waiting", "Runs that wait for a slot", lambda: sum(dispatcher.slots.waiting_counts().values())
    )
    metrics.gauge_of("steps_ended", "Steps that completed or failed since the start", lambda: engine.steps_ended)
    metrics.gauge_of(
        "attempts_retried",
        "Attempts that failed and were tried again since the start",
        lambda: engine.attempts_retried,
    )
    metrics.gauge_of("cache_hits", "Steps that took a stored result since the start", lambda: engine.cache.hits)
    metrics.gauge_of(
        "cache_misses", "Steps whose key had no stored result since the start", lambda: engine.cache.misses
    )
    metrics.gauge_of(
        "results_unacknowledged",
        "Ended runs that no coordinator has acknowledged",
        lambda: sessions.unacknowledged,
    )
    refused = metrics.gauge(
        "reports_refused",
        "What executors said and was not taken since the start: of others' attempts, of what is over, not allowed by the contract, not in time",
        ("reason",),
    )
    for reason in REASONS:
        refused.labels(reason).set_function(partial(dispatcher.refusals.counts.__getitem__, reason))
    metrics.gauge_of("commits", "Group commits since the start", lambda: durable.host.writer.batches)
    metrics.gauge_of("journal_rows", "Journal rows since the start", lambda: durable.host.writer.rows)
    metrics.gauge_of("events_lag", "Journal positions that JetStream has not acknowledged", lambda: durable.relay.lag)
    metrics.gauge_of(
        "events_published",
        "Event messages that JetStream has acknowledged since the start",
        lambda: durable.relay.published,
    )
    metrics.gauge_of(
        "events_held_bytes",
        "Bytes of committed events in memory that JetStream has not acknowledged",
        lambda: durable.relay.held_bytes,
    )
    metrics.gauge_of(
        "partitions_overdue",
        "Journal partitions beyond the time for which they are kept, and still needed",
        lambda: durable.retention.overdue,
    )
    metrics.gauge_of(
        "partitions_unpublished",
        "Of these: kept because their events are not on the event stream",
        lambda: durable.retention.unpublished,
    )
    metrics.gauge_of(
        "snapshots_damaged",
        "Snapshots that could not be used since the start; the journal was read instead",
        lambda: durable.host.loader.damaged_snapshots,
    )
    metrics.gauge_of(
        "dead_letters_open",
        "Dead letters that nobody has dealt with, over all instances",
        lambda: sum(durable.dead_letters.open.values()),
    )
    metrics.gauge_of(
        "adopted", "Runs adopted from fenced instances since the start", lambda: durable.host.owning.adopted
    )
    engine.tools.show(metrics, lambda: durable.relay.acknowledged[TOOLS])
    durable.database.troubles.show(metrics)
    metrics.serve(settings)
    return metrics
