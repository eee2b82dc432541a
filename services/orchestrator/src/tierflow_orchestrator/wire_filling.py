"""The events that every run has, written into their message in place (see `tierflow_runtime.filling` for what that saves); all others are in `wire`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime import wire
from tierflow_runtime.filling import fill_allocation, fill_context, fill_payload, fill_time, fill_usage
from tierflow_runtime.lineage import fill_reuse

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.step import CacheHit

RUN, OUTCOME = wire.RUN_STATES, wire.OUTCOMES


def _run_created(message: ev.Event, e: events.RunCreated) -> None:
    body = message.run_created
    fill_context(body.context, e.context)
    flow = body.flow
    flow.name, flow.version, flow.hash = e.flow_name, e.flow_version, e.flow_hash
    if e.input is not None:
        fill_payload(body.input, e.input)
    fill_allocation(body.allocation, e.allocation)
    wire.fill_options(body.options, e.options)
    if e.reuse is not None:
        fill_reuse(body.reuse, e.reuse)


def _run_state_changed(message: ev.Event, e: events.RunStateChanged) -> None:
    body = message.run_state_changed
    setattr(body, "from", RUN.number(e.from_))
    body.to = RUN.number(e.to)
    if e.reason:
        body.reason = e.reason
    if e.actor:
        body.actor = e.actor
    if e.generation:
        body.generation = e.generation
        body.reset_steps.extend(e.reset_steps)


def _run_ended(message: ev.Event, e: events.RunEnded) -> None:
    body = message.run_ended
    setattr(body, "from", RUN.number(e.from_))
    body.to = RUN.number(e.to)
    body.outcome = OUTCOME.number(e.outcome)
    if e.output is not None:
        fill_payload(body.output, e.output)
    if e.failure is not None:
        wire.fill_failure(body.failure, e.failure)
    fill_usage(body.usage, e.usage)
    body.reason = e.reason
    if e.unconfirmed_attempts:
        body.unconfirmed_attempts.extend(e.unconfirmed_attempts)


def _step_scheduled(message: ev.Event, e: events.StepScheduled) -> None:
    message.step_id = e.step_id
    message.attempt = e.attempt
    body = message.step_scheduled
    body.attempt_id = e.attempt_id
    body.epoch = e.epoch
    body.executor_id = e.executor_id
    body.handler = e.handler
    fill_payload(body.input, e.input)
    if e.child_run_id:
        body.child_run_id = e.child_run_id
    if e.grant is not None:
        body.grant.CopyFrom(wire.allocation_to_proto(e.grant))


def _step_started(message: ev.Event, e: events.StepStarted) -> None:
    message.step_id = e.step_id
    message.attempt = e.attempt
    body = message.step_started
    body.attempt_id = e.attempt_id
    fill_time(body.started_at, e.started_at)


def fill_hit(message: ev.CacheHit, hit: CacheHit) -> None:
    """Where a result comes from that was found in the cache."""
    message.key_hash, message.run_id, message.step_id = hit.key_hash, hit.run_id, hit.step_id
    fill_time(message.stored_at, hit.stored_at)


def _step_completed(message: ev.Event, e: events.StepCompleted) -> None:
    message.step_id = e.step_id
    message.attempt = e.attempt
    body = message.step_completed
    body.attempt_id = e.attempt_id
    if e.output is not None:
        fill_payload(body.output, e.output)
    body.outcome = OUTCOME.number(e.outcome)
    fill_usage(body.usage, e.usage)
    if e.directive:
        body.directive = e.directive
    if e.warnings:
        body.warnings.extend(e.warnings)
    if e.cached is not None:
        fill_hit(body.cached, e.cached)


def _step_failed(message: ev.Event, e: events.StepFailed) -> None:
    message.step_id = e.step_id
    message.attempt = e.attempt
    body = message.step_failed
    body.attempt_id = e.attempt_id
    wire.fill_failure(body.failure, e.failure)
    fill_usage(body.usage, e.usage)
    if e.tolerated:
        body.tolerated = True


FILLERS: Mapping[type[Any], Callable[[ev.Event, Any], None]] = {
    events.RunCreated: _run_created,
    events.RunStateChanged: _run_state_changed,
    events.RunEnded: _run_ended,
    events.StepScheduled: _step_scheduled,
    events.StepStarted: _step_started,
    events.StepCompleted: _step_completed,
    events.StepFailed: _step_failed,
}
