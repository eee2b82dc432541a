"""The exact requests for attempts. What the attempts of a run have in common is made once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from tierflow_contracts.common.v1 import execution_pb2
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_durable.clock import DatabaseClock
from tierflow_flow.definition import StepSpec
from tierflow_runtime import wire
from tierflow_runtime.requests import step_request
from tierflow_runtime.values import Allocation, Micros, Options

from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.spans import RunSpans

DEFAULT_TIMEOUT = 30_000_000


class AttemptRequests:
    """Builds them."""

    def __init__(self, dispatcher: Dispatcher, spans: RunSpans, clock: DatabaseClock) -> None:
        self._dispatcher = dispatcher
        self._spans = spans
        self._clock = clock
        self._contexts: dict[str, tuple[Micros | None, execution_pb2.ExecutionContext]] = {}
        """By run: the deadline with which it was made, and what is the same in the contexts of all its attempts."""

    def make(self, run: Run, effect: Any) -> step_pb2.StepExecutionRequest:
        """The request for an attempt; `effect` is its StepScheduled event or DispatchAttempt effect."""
        step_id = effect.step_id
        step = run.steps[step_id]
        spec = run.spec(step)
        timeout = spec.timeout or run.definition().timeout
        if timeout is None:
            timeout = self._dispatcher.declared_timeout(effect.attempt_id, effect.handler) or DEFAULT_TIMEOUT
        allocation, options = _limits_of(run, spec, timeout)
        if step.grant is not None:
            allocation = _granted(allocation, step.grant)
        if step.end_by is not None:
            allocation, options = _cut(allocation, options, step.end_by - self._clock.now())
        request = step_request(
            self._context(run),
            effect.handler,
            input=effect.input,
            allocation=allocation,
            options=options,
            step_id=step_id,
            attempt=effect.attempt,
            attempt_id=effect.attempt_id,
            idempotency_key=f"{run.id}/{idempotent(step_id)}",
            epoch=effect.epoch,
            traceparent=self._spans.attempt_traceparent(run, step_id, effect.attempt),
            last_heartbeat=self._dispatcher.heartbeats.get((run.id, step_id)),
            # Nothing is scheduled that the gate has not let pass (L12); the token says which attempt it was.
            grant_token=effect.attempt_id,
            now=self._clock.now() if run.deadline is not None else None,
        )
        if spec.secrets:
            request.input.secrets.extend(dict.fromkeys(spec.secrets))
        return request

    def forget(self, run_id: str) -> None:
        """The run is no longer here."""
        self._contexts.pop(run_id, None)

    def _context(self, run: Run) -> execution_pb2.ExecutionContext:
        known = self._contexts.get(run.id)
        if known is not None and known[0] == run.deadline:
            return known[1]
        message = wire.context_to_proto(run.context)
        message.parent_id = run.id
        message.request_id = ""
        message.depth = run.context.depth + 1
        if run.deadline is not None:
            message.deadline.CopyFrom(wire.timestamp(run.deadline))
        self._contexts[run.id] = (run.deadline, message)
        return message


def _limits_of(
    run: Run, spec: StepSpec, timeout: Micros
) -> tuple[execution_pb2.ResourceAllocation, execution_pb2.ExecutionOptions]:
    options = run.options
    return _limits(timeout, spec.heartbeat_timeout, run.allocation.memory_bytes, options.test_mode, options.priority)


@lru_cache(maxsize=1024)
def _limits(
    timeout: Micros, heartbeat: Micros | None, memory: int | None, test_mode: bool, priority: int
) -> tuple[execution_pb2.ResourceAllocation, execution_pb2.ExecutionOptions]:
    """Messages that are copied, never changed."""
    options = Options(timeout=timeout, heartbeat_timeout=heartbeat, test_mode=test_mode, priority=priority)
    allocation = Allocation(memory_bytes=memory, wall_time=timeout)
    return wire.allocation_to_proto(allocation), wire.options_to_proto(options)


def _granted(allocation: execution_pb2.ResourceAllocation, grant: Allocation) -> execution_pb2.ResourceAllocation:
    """The same with what the attempt may spend."""
    message = wire.allocation_to_proto(grant)
    message.MergeFrom(allocation)
    return message


def _cut(
    allocation: execution_pb2.ResourceAllocation, options: execution_pb2.ExecutionOptions, left: Micros
) -> tuple[execution_pb2.ResourceAllocation, execution_pb2.ExecutionOptions]:
    """The same for an attempt whose step has only this much time left."""
    if left >= wire.micros(options.timeout):
        return allocation, options
    shorter, sooner = execution_pb2.ResourceAllocation(), execution_pb2.ExecutionOptions()
    shorter.CopyFrom(allocation)
    sooner.CopyFrom(options)
    for duration in (shorter.wall_time, sooner.timeout):
        duration.FromMicroseconds(max(1_000, left))
    return shorter, sooner


def idempotent(step_id: str) -> str:
    """What a step's attempts have in common: where a block is run again (`group#2/step`), its steps are the same thing to whoever is called (K10)."""
    return _AGAIN.sub("", step_id) if "#" in step_id else step_id


_AGAIN = re.compile(r"#[0-9]+")
