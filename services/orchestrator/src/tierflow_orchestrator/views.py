"""Runs and steps as they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tierflow_contracts.common.v1 import payload_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.reading import EntityRow
from tierflow_runtime import wire
from tierflow_runtime.errors import public
from tierflow_runtime.filling import fill_allocation, fill_context, fill_payload, fill_time, fill_usage
from tierflow_runtime.ledger import DIMENSIONS
from tierflow_runtime.lineage import origin_of
from tierflow_runtime.values import Allocation, Micros, Payload

from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import MissingContent, output_text
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.views_steering import show_steering, show_step
from tierflow_orchestrator.wire_approvals import approval_shown
from tierflow_orchestrator.wire_filling import fill_hit

RUN, STEP, OUTCOME = wire.RUN_STATES, wire.STEP_STATES, wire.OUTCOMES
PENDING = ("PENDING", "READY", "AWAITING_APPROVAL")
UNDER_WAY = ("SCHEDULED", "RUNNING", "BACKOFF", "COMPENSATING")


def result_of(run: Run) -> run_pb2.RunExecutionResult:
    """The result of an ended run."""
    message = run_pb2.RunExecutionResult()
    fill_context(message.context, run.context, labels=False)
    message.context.generation = run.generation
    message.state = RUN.number(run.state)
    message.outcome = OUTCOME.number(run.outcome)
    if run.output is not None:
        fill_payload(message.output, run.output)
    if run.failure is not None:
        message.failure.CopyFrom(wire.failure_to_proto(public(run.failure)))
    fill_usage(message.usage, run.usage)
    fill_allocation(message.allocation_returned, returned(run))
    fill_time(message.duration, (run.ended_at or run.created_at) - run.created_at)
    return message


def returned(run: Run) -> Allocation:
    """What is left of a run's allocation, in the dimensions that are counted."""
    return Allocation(**{name: run.ledger.left(name) for name in DIMENSIONS})


def counts_shown(run: Run) -> run_pb2.StepCounts:
    """Steps by state."""
    counts = run.counts()
    return run_pb2.StepCounts(
        total=counts["total"],
        pending=sum(counts.get(state, 0) for state in PENDING),
        running=sum(counts.get(state, 0) for state in UNDER_WAY),
        completed=counts.get("COMPLETED", 0) + counts.get("COMPENSATED", 0),
        failed=counts.get("FAILED", 0),
        skipped=counts.get("SKIPPED", 0),
        cancelled=counts.get("CANCELLED", 0),
    )


def shown(now: Micros, seq: int = 0, owner: str = "") -> Callable[[Run], run_pb2.Run]:
    """How a run is shown now."""

    def look(run: Run) -> run_pb2.Run:
        wake = None if run.ended or run.state == "RUNNING" else run.next_wake()
        message = run_pb2.Run(
            context=wire.context_to_proto(run.context),
            state=RUN.number(run.state),
            reason=run.reason,
            outcome=OUTCOME.number(run.outcome),
            flow_name=run.flow_name,
            flow_version=run.flow_version,
            flow_hash=run.flow_hash,
            input=wire.payload_to_proto(run.input),
            output=wire.payload_to_proto(run.output),
            failure=None if run.failure is None else wire.failure_to_proto(public(run.failure)),
            usage=wire.usage_to_proto(run.usage),
            created_at=wire.timestamp(run.created_at),
            started_at=None if run.started_at is None else wire.timestamp(run.started_at),
            ended_at=None if run.ended_at is None else wire.timestamp(run.ended_at),
            duration=wire.duration((run.ended_at or max(now, run.created_at)) - run.created_at),
            wake_at=None if wake is None else wire.timestamp(wake),
            percent=run.percent(),
            counts=counts_shown(run),
            seq=seq,
            owner=owner,
            balance=wire.balance_to_proto(run.ledger),
        )
        show_steering(message, run)
        return message

    return look


def listed(row: EntityRow, now: Micros) -> run_pb2.Run:
    """A run as a list shows it: from its row alone."""
    run = run_pb2.Run(
        state=RUN.number(row.state),
        reason=row.reason,
        outcome=OUTCOME.number(row.outcome),
        flow_name=row.name,
        flow_version=row.version,
        created_at=wire.timestamp(row.created_at),
        ended_at=None if row.ended_at is None else wire.timestamp(row.ended_at),
        duration=wire.duration(max(0, (row.ended_at or now) - row.created_at)),
        wake_at=None if row.wake_at is None else wire.timestamp(row.wake_at),
        seq=row.seq,
        owner=row.owner or "",
        reuse=origin_of(row.labels),
    )
    context = run.context
    context.tenant, context.user_id, context.run_id, context.swarm_id = (
        row.tenant,
        row.user_id,
        row.id,
        row.parent_id or "",
    )
    context.correlation_id, context.generation = row.correlation_id, row.generation
    context.labels.update(row.labels)
    if row.trace_id:
        context.traceparent = f"00-{row.trace_id}-{row.trace_id[:16]}-00"
    return run


def step_shown(run: Run, step: Step, now: Micros, *, payloads: bool) -> run_pb2.Step:
    """How a step is shown now."""
    message = run_pb2.Step(
        run_id=run.id,
        step_id=step.id,
        handler=step.handler,
        state=STEP.number(step.state),
        reason=step.reason,
        attempts=step.epoch,
        failure=None if step.failure is None else wire.failure_to_proto(public(step.failure)),
        usage=wire.usage_to_proto(step.usage),
        executor_id=step.executor_id,
        approval=approval_shown(run, step),
    )
    message.warnings.extend(step.warnings)
    if step.cached is not None:
        fill_hit(message.cached, step.cached)
    show_step(message, step)
    if run.flow is not None:
        _show_definition(message, run, step)
    _show_times(message, step, now)
    if payloads:
        _show_payload(message.input, step.input)
        _show_payload(message.output, _output(run, step))
    return message


def _show_definition(message: run_pb2.Step, run: Run, step: Step) -> None:
    spec = run.spec(step)
    message.priority = spec.priority
    if spec.cost_estimate is not None:
        message.cost_estimate = spec.cost_estimate
    message.kind = _kind(run, step, spec.kind)
    message.handler = message.handler or spec.handler
    if not step.is_item:
        message.needs.extend(spec.needs)


def _kind(run: Run, step: Step, kind: str) -> str:
    """What it is in the flow's words; `item` of a map, `iteration` of a loop, `compensation` of a step."""
    if step.is_item:
        return "iteration" if kind == "loop" else "item"
    return step.role if step.role == "compensation" else "map" if kind == "map_block" else kind


def _show_times(message: run_pb2.Step, step: Step, now: Micros) -> None:
    for field in ("scheduled_at", "started_at", "ended_at"):
        at = getattr(step, field)
        if at is not None:
            getattr(message, field).CopyFrom(wire.timestamp(at))
    for field in ("start_by", "end_by"):
        at = getattr(step, field)
        if at is not None:
            getattr(message, field).CopyFrom(wire.timestamp(at))
    if step.scheduled_at is not None:
        message.duration.CopyFrom(wire.duration(max(0, (step.ended_at or now) - step.scheduled_at)))
    if step.state == "BACKOFF" and step.next_attempt_at is not None:
        message.next_attempt_at.CopyFrom(wire.timestamp(step.next_attempt_at))


def _show_payload(message: payload_pb2.Payload, payload: Payload | None) -> None:
    shown = wire.payload_to_proto(payload)
    if shown is not None:
        message.CopyFrom(shown)


def _output(run: Run, step: Step) -> Payload | None:
    """A step's output; a map's is put together from its items', where they are at hand."""
    if step.output is not None or not step.is_map or step.state != "COMPLETED":
        return step.output
    try:
        return output_text(run, step)
    except MissingContent:
        return None


def steps_page(
    step_id: str, start: int, size: int, now: Micros, *, payloads: bool
) -> Callable[[Run], tuple[list[run_pb2.Step], int]]:
    """A page of a run's steps, and where the next begins (0: nowhere)."""

    def look(run: Run) -> tuple[list[run_pb2.Step], int]:
        wanted = [
            step
            for step in run.steps.values()
            if not step_id or step.id == step_id or (step.id.startswith(step_id) and step.id[len(step_id)] in "[/#!")
        ]
        page = [step_shown(run, step, now, payloads=payloads) for step in wanted[start : start + size]]
        return page, start + size if start + size < len(wanted) else 0

    return look


def logs_of(events: Iterable[event_pb2.Event], step_id: str) -> list[pb.AttemptLog]:
    """What attempts wrote, from a run's events."""
    return [
        pb.AttemptLog(step_id=event.step_id, attempt=event.attempt, lines=event.attempt_logged.lines)
        for event in events
        if event.WhichOneof("payload") == "attempt_logged" and step_id in ("", event.step_id)
    ]
