"""The events of blocks, of steps that handle errors, and of compensation as messages, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime import wire
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events


def _moment(at: Micros | None) -> Any:
    return None if at is None else wire.timestamp(at)


def _until(message: Any) -> Micros | None:
    return wire.micros(message.until) if message.HasField("until") else None


def _block_began(e: events.BlockBegan) -> dict[str, Any]:
    return {"step_id": e.step_id, "attempt": e.attempt, "block_began": ev.BlockBegan(until=_moment(e.until))}


def _step_grown(e: events.StepGrown) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "attempt": e.attempt,
        "step_grown": ev.StepGrown(
            definition=e.definition, attempt_id=e.attempt_id, usage=wire.usage_to_proto(e.usage)
        ),
    }


def _iteration_began(e: events.IterationBegan) -> dict[str, Any]:
    return {"step_id": e.step_id, "iteration_began": ev.IterationBegan(index=e.index, until=_moment(e.until))}


def _handler_called(e: events.HandlerCalled) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "attempt": e.attempt,
        "handler_called": ev.HandlerCalled(
            handler_step=e.handler_step,
            failure=wire.failure_to_proto(e.failure),
            attempt_id=e.attempt_id,
            usage=wire.usage_to_proto(e.usage),
        ),
    }


def _step_reset(e: events.StepReset) -> dict[str, Any]:
    return {"step_id": e.step_id, "step_reset": ev.StepReset()}


def _compensation_began(e: events.CompensationBegan) -> dict[str, Any]:
    return {"step_id": e.step_id, "compensation_began": ev.CompensationBegan()}


def _step_compensated(e: events.StepCompensated) -> dict[str, Any]:
    return {"step_id": e.step_id, "step_compensated": ev.StepCompensated()}


def _compensation_failed(e: events.CompensationFailed) -> dict[str, Any]:
    failed = ev.CompensationFailed(failure=wire.failure_to_proto(e.failure))
    return {"step_id": e.step_id, "compensation_failed": failed}


ENCODERS: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    events.BlockBegan: _block_began,
    events.StepGrown: _step_grown,
    events.IterationBegan: _iteration_began,
    events.HandlerCalled: _handler_called,
    events.StepReset: _step_reset,
    events.CompensationBegan: _compensation_began,
    events.StepCompensated: _step_compensated,
    events.CompensationFailed: _compensation_failed,
}


def _from_block(m: ev.Event) -> events.RunEvent:
    return events.BlockBegan(step_id=m.step_id, attempt=m.attempt, until=_until(m.block_began))


def _from_grown(m: ev.Event) -> events.RunEvent:
    p = m.step_grown
    return events.StepGrown(
        step_id=m.step_id,
        attempt=m.attempt,
        attempt_id=p.attempt_id,
        definition=p.definition,
        usage=wire.usage_from_proto(p.usage),
    )


def _from_iteration(m: ev.Event) -> events.RunEvent:
    p = m.iteration_began
    return events.IterationBegan(step_id=m.step_id, index=p.index, until=_until(p))


def _from_handler(m: ev.Event) -> events.RunEvent:
    p = m.handler_called
    return events.HandlerCalled(
        step_id=m.step_id,
        handler_step=p.handler_step,
        failure=wire.failure_from_proto(p.failure),
        attempt=m.attempt,
        attempt_id=p.attempt_id,
        usage=wire.usage_from_proto(p.usage),
    )


def _from_failed(m: ev.Event) -> events.RunEvent:
    failure = wire.failure_from_proto(m.compensation_failed.failure)
    return events.CompensationFailed(step_id=m.step_id, failure=failure)


DECODERS: dict[str, Callable[[ev.Event], events.RunEvent]] = {
    "block_began": _from_block,
    "step_grown": _from_grown,
    "iteration_began": _from_iteration,
    "handler_called": _from_handler,
    "step_reset": lambda m: events.StepReset(step_id=m.step_id),
    "compensation_began": lambda m: events.CompensationBegan(step_id=m.step_id),
    "step_compensated": lambda m: events.StepCompensated(step_id=m.step_id),
    "compensation_failed": _from_failed,
}
