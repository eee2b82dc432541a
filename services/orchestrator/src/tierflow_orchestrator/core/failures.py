"""The failures that the core makes or completes. None leaves without code, tier, component, operation, attempt (F22)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from tierflow_runtime.values import Failure

from tierflow_orchestrator.core.step import Step

COMPONENT: Final = "run"


def made(code: str, message: str, operation: str, **more: Any) -> Failure:
    """A failure that arose in Tier 2's core; `more` are further fields of Failure."""
    return Failure(code=code, message=message, tier=2, component=COMPONENT, operation=operation, **more)


def of_step(step: Step, code: str, message: str, operation: str, **more: Any) -> Failure:
    """A failure that the core found with a step."""
    return made(code, message, operation, step_id=step.id, attempt=step.attempt, **more)


def reported(step: Step, failure: Failure | None) -> Failure:
    """What an executor reported, with what it left open filled in; never relabelled."""
    if failure is None:
        return of_step(step, "INTERNAL", "The executor reported a failure without saying which.", "report")
    if failure.tier and failure.component and failure.operation and failure.attempt and failure.step_id:
        return failure
    known = {
        "tier": 3,
        "component": step.handler,
        "operation": "attempt",
        "attempt": step.attempt,
        "step_id": step.id,
    }
    open_ = {name: value for name, value in known.items() if not getattr(failure, name)}
    return msgspec.structs.replace(failure, **open_)


def stale(what: str) -> Failure:
    """Something was addressed to the past. It is ignored; the sender may forget it."""
    return made("STALE", what, "report")


def foreign(attempt_id: str, executor_id: str) -> Failure:
    """An executor speaks of an attempt that was given to another."""
    return made("PERMISSION_DENIED", f"{attempt_id} was not given to {executor_id}.", "report")


def is_loss(failure: Failure) -> bool:
    """Whether it says that an attempt was given up without knowing how it ended."""
    cause = failure.cause
    if cause is not None and (
        failure.code == "MAX_RETRIES_EXCEEDED" or (failure.code == "TIMEOUT" and cause.operation == "stop")
    ):
        failure = cause
    return failure.code == "EXECUTOR_LOST" and failure.tier == 2
