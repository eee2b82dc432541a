"""The only place where requests from tier to tier are built (A6): every one has its four parts, under their contract's names (A1, A2, A3, Lesson 1).

Each part may be given as a core value, or as a message made before: on the hot path the parts that a run's steps share are converted once.
"""

from __future__ import annotations

from typing import TypeAlias

from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, ExecutionOptions, ResourceAllocation
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest, SwarmInput
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest

from tierflow_runtime.filling import fill_allocation, fill_context, fill_payload, fill_time
from tierflow_runtime.lineage import fill_reuse
from tierflow_runtime.values import Allocation, Context, Micros, Options, Payload, Reuse
from tierflow_runtime.wire import fill_options, micros

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
    request = StepExecutionRequest()
    own, given = request.context, request.input
    _fill_context(own, context, now)
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
    given.handler = handler
    given.grant_token = grant_token
    if input is not None:
        fill_payload(given.input, input)
    if last_heartbeat is not None:
        fill_payload(given.last_heartbeat, last_heartbeat)
    _fill_limits(request, allocation, options)
    return request


def run_request(
    context: ContextLike,
    flow: FlowRef,
    *,
    input: Payload | None,  # noqa: A002  # the contract's word
    allocation: AllocationLike,
    options: OptionsLike,
    now: Micros | None = None,
    reuse: Reuse | None = None,
) -> RunExecutionRequest:
    """The request from Tier 1 to Tier 2 for one run.

    Args:
        context: The run's context.
        flow: The flow.
        input: The flow's input, a JSON object.
        allocation: Hard limits of the run.
        options: How to run it.
        now: The moment of sending, from which the time remaining until the deadline is filled (rule R17).
        reuse: Results of another run that it starts with.
    """
    request = RunExecutionRequest()
    _fill_context(request.context, context, now)
    request.input.flow.CopyFrom(flow)
    if input is not None:
        fill_payload(request.input.input, input)
    if reuse is not None:
        fill_reuse(request.input.reuse, reuse)
    _fill_limits(request, allocation, options)
    return request


def swarm_request(
    input: SwarmInput,  # noqa: A002  # the contract's word
    *,
    context: ContextLike | None = None,
    allocation: AllocationLike | None = None,
    options: OptionsLike | None = None,
) -> SwarmExecutionRequest:
    """The request from a client to Tier 1 for one swarm. Only the input is required."""
    request = SwarmExecutionRequest(input=input)
    if context is not None:
        _fill_context(request.context, context, None)
    if allocation is not None:
        _fill_allocation(request.allocation, allocation)
    if options is not None:
        _fill_options(request.options, options)
    return request


def _fill_context(message: ExecutionContext, context: ContextLike, now: Micros | None) -> None:
    if isinstance(context, Context):
        fill_context(message, context)
    else:
        message.CopyFrom(context)
    if now is not None and message.HasField("deadline"):
        fill_time(message.time_remaining, max(0, micros(message.deadline) - now))


def _fill_limits(
    request: StepExecutionRequest | RunExecutionRequest, allocation: AllocationLike, options: OptionsLike
) -> None:
    _fill_allocation(request.allocation, allocation)
    _fill_options(request.options, options)


def _fill_allocation(message: ResourceAllocation, allocation: AllocationLike) -> None:
    if isinstance(allocation, Allocation):
        fill_allocation(message, allocation)
    else:
        message.CopyFrom(allocation)


def _fill_options(message: ExecutionOptions, options: OptionsLike) -> None:
    if isinstance(options, Options):
        fill_options(message, options)
    else:
        message.CopyFrom(options)
