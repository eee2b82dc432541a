"""Swarms as clients see them: as results, as rows, in full."""

from __future__ import annotations

from tierflow_contracts.common.v1 import execution_pb2
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.reading import EntityRow
from tierflow_runtime.errors import public
from tierflow_runtime.filling import fill_allocation, fill_context, fill_payload, fill_time, fill_usage
from tierflow_runtime.lineage import fill_reuse, origin_of
from tierflow_runtime.payloads import payload_to_proto
from tierflow_runtime.values import NO_USAGE, Micros
from tierflow_runtime.wire import (
    OUTCOMES,
    SWARM_STATES,
    balance_to_proto,
    context_to_proto,
    duration,
    failure_to_proto,
    timestamp,
    usage_to_proto,
)

from tierflow_coordinator import wire_plan
from tierflow_coordinator.core.ledger import ledger_of, returned
from tierflow_coordinator.core.swarm import Swarm


def result_message(swarm: Swarm) -> swarm_pb2.SwarmExecutionResult:
    """How an ended swarm ended, without internals (F29)."""
    message = swarm_pb2.SwarmExecutionResult()
    fill_context(message.context, swarm.context, labels=False)
    message.context.generation = swarm.generation
    message.state = SWARM_STATES.number(swarm.state)
    message.outcome = OUTCOMES.number(swarm.outcome)
    fill_payload(message.output, swarm.output)
    if swarm.failure is not None:
        message.failure.CopyFrom(failure_to_proto(public(swarm.failure)))
    fill_usage(message.usage, swarm.usage)
    fill_allocation(message.allocation_returned, returned(swarm.allocation, swarm.usage))
    fill_time(message.duration, max(0, (swarm.ended_at or swarm.created_at) - swarm.created_at))
    return message


def swarm_message(swarm: Swarm, *, now: Micros, seq: int, owner: str, readable: bool = False) -> swarm_pb2.Swarm:
    """A swarm in full.

    Args:
        swarm: Its state.
        now: The moment, for the duration of one that has not ended.
        seq: Sequence number of its latest event.
        owner: The instance that owns it, or an empty string.
        readable: Whether payloads travel as protobuf values, for people.
    """
    ended = swarm.ended_at
    message = swarm_pb2.Swarm(
        context=context_to_proto(swarm.context),
        state=SWARM_STATES.number(swarm.state),
        reason=swarm.reason,
        outcome=OUTCOMES.number(swarm.outcome),
        flow_name=swarm.flow_name,
        flow_version=swarm.flow_version,
        run_ids=swarm.run_ids,
        plan=None if swarm.plan is None else wire_plan.shown(swarm.plan, ended=swarm.ended),
        input=payload_to_proto(swarm.input, readable=readable),
        output=payload_to_proto(swarm.output, readable=readable),
        failure=None if swarm.failure is None else failure_to_proto(public(swarm.failure)),
        usage=None if swarm.usage is NO_USAGE else usage_to_proto(swarm.usage),
        created_at=timestamp(swarm.created_at),
        ended_at=None if ended is None else timestamp(ended),
        duration=duration(max(0, (now if ended is None else ended) - swarm.created_at)),
        seq=seq,
        owner=owner,
        origin=_origin(swarm),
        balance=balance_to_proto(ledger_of(swarm)),
    )
    message.context.generation = swarm.generation  # That of its request is the first.
    return message


def _origin(swarm: Swarm) -> execution_pb2.ReusedSteps | None:
    """Of which other swarm it was made."""
    if swarm.reuse is None:
        return None
    message = execution_pb2.ReusedSteps()
    fill_reuse(message, swarm.reuse)
    return message


def row_message(row: EntityRow, now: Micros) -> swarm_pb2.Swarm:
    """A swarm as it is listed: what its row holds."""
    return swarm_pb2.Swarm(
        context=execution_pb2.ExecutionContext(
            tenant=row.tenant,
            user_id=row.user_id,
            swarm_id=row.id,
            correlation_id=row.correlation_id,
            labels=row.labels,
            generation=row.generation,
        ),
        state=SWARM_STATES.number(row.state),
        reason=row.reason,
        outcome=OUTCOMES.number(row.outcome),
        flow_name=row.name,
        flow_version=row.version,
        created_at=timestamp(row.created_at),
        ended_at=None if row.ended_at is None else timestamp(row.ended_at),
        duration=duration(max(0, (now if row.ended_at is None else row.ended_at) - row.created_at)),
        seq=row.seq,
        owner=row.owner or "",
        origin=origin_of(row.labels),
    )
