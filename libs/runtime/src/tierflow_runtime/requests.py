"""The only place where requests from tier to tier are built (A6): every one has its four parts, under their contract's names (A1, A2, A3, Lesson 1).

Each part may be given as a core value, or as a message made before: on the hot path the parts that a run's steps share are converted once.
"""

from __future__ import annotations

from typing import TypeAlias

from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, ExecutionOptions, ResourceAllocation
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest, SwarmInput
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest, StepInput
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest, RunInput

from tierflow_runtime.values import Allocation, Context, Micros, Options, Payload
from tierflow_runtime.wire import (
    allocation_to_proto,
    context_to_proto,
    duration,
    micros,
    options_to_proto,
    payload_to_proto,
)

ContextLike: TypeAlias = Context | ExecutionContext
AllocationLike: TypeAlias = Allocation | ResourceAllocation
OptionsLike: TypeAlias = Options | ExecutionOptions


def step_request(
    context: ContextLike,
    handler: str,
    *,
    input: Payload | None,  # noqa: A002  # the contract's word
    allocation: AllocationLike,
    options: OptionsLike,
    step_id: str = "",
    attempt: int = 0,
    attempt_id: str = "",
    idempotency_key: str = "",
    epoch: int = 0,
    traceparent: str = "",
    last_heartbeat: Payload | None = None,
    grant_token: str = "",
    now: Micros | None = None,
) -> StepExecutionRequest:
    """The request from Tier 2 to Tier 3 for one attempt.

    Args:
        context: The attempt's context; or the run's, as a value or message, with what is the attempt's own in the arguments that follow.
        handler: Name of the handler.
        input: Its input, resolved.
        allocation: Hard limits of the attempt.
        options: How to run it.
        step_id: Replaces the context's, as do the next five, where given.
        attempt: From 1.
        attempt_id: Its id.
        idempotency_key: Stable for the step.
        epoch: From 1.
        traceparent: The attempt's.
        last_heartbeat: Details of the last heartbeat of the attempt before.
        grant_token: Proof that the permission gate let the step pass.
        now: The moment of sending, from which the time remaining until the deadline is filled (rule R17).
    """
    request = StepExecutionRequest(
        context=_context(context, now),
        input=StepInput(
            handler=handler,
            input=payload_to_proto(input),
            last_heartbeat=payload_to_proto(last_heartbeat),
            grant_token=grant_token,
        ),
        allocation=_allocation(allocation),
        options=_options(options),
    )
    own = request.context
    if now is not None:
        _set_time_remaining(own, now)
    if step_id:
        own.step_id = step_id
    if attempt:
        own.attempt = attempt
    if attempt_id:
        own.attempt_id = attempt_id
    if idempotency_key:
        own.idempotency_key = idempotency_key
    if epoch:
        own.epoch = epoch
    if traceparent:
        own.traceparent = traceparent
    return request


def run_request(
    context: ContextLike,
    flow: FlowRef,
    *,
    input: Payload | None,  # noqa: A002  # the contract's word
    allocation: AllocationLike,
    options: OptionsLike,
    now: Micros | None = None,
) -> RunExecutionRequest:
    """The request from Tier 1 to Tier 2 for one run.

    Args:
        context: The run's context.
        flow: The flow.
        input: The flow's input, a JSON object.
        allocation: Hard limits of the run.
        options: How to run it.
        now: The moment of sending, from which the time remaining until the deadline is filled (rule R17).
    """
    request = RunExecutionRequest(
        context=_context(context, now),
        input=RunInput(flow=flow, input=payload_to_proto(input)),
        allocation=_allocation(allocation),
        options=_options(options),
    )
    if now is not None:
        _set_time_remaining(request.context, now)
    return request


def swarm_request(
    input: SwarmInput,  # noqa: A002  # the contract's word
    *,
    context: ContextLike | None = None,
    allocation: AllocationLike | None = None,
    options: OptionsLike | None = None,
) -> SwarmExecutionRequest:
    """The request from a client to Tier 1 for one swarm. Only the input is required."""
    return SwarmExecutionRequest(
        context=None if context is None else _context(context, None),
        input=input,
        allocation=None if allocation is None else _allocation(allocation),
        options=None if options is None else _options(options),
    )


def _context(context: ContextLike, now: Micros | None) -> ExecutionContext:
    return context_to_proto(context, now=now) if isinstance(context, Context) else context


def _allocation(allocation: AllocationLike) -> ResourceAllocation:
    return allocation_to_proto(allocation) if isinstance(allocation, Allocation) else allocation


def _options(options: OptionsLike) -> ExecutionOptions:
    return options_to_proto(options) if isinstance(options, Options) else options


def _set_time_remaining(context: ExecutionContext, now: Micros) -> None:
    if context.HasField("deadline"):
        context.time_remaining.CopyFrom(duration(max(0, micros(context.deadline) - now)))
