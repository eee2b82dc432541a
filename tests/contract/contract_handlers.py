"""Handlers for contract tests, loaded by the executor."""

from typing import Any

from tierflow import Context, handler


@handler("contract.echo")
async def echo(context: Context, value: Any) -> dict[str, Any]:
    """Everything that reached the handler: its input and all that its context says."""
    return {
        "value": value,
        "tenant": context.tenant,
        "user_id": context.user_id,
        "swarm_id": context.swarm_id,
        "run_id": context.run_id,
        "step_id": context.step_id,
        "attempt": context.attempt,
        "attempt_id": context.attempt_id,
        "epoch": context.epoch,
        "idempotency_key": context.idempotency_key,
        "correlation_id": context.correlation_id,
        "labels": context.labels,
        "traceparent": context.traceparent,
        "tracestate": context.tracestate,
        "deadline": None if context.deadline is None else context.deadline.isoformat(),
        "test_mode": context.test_mode,
    }


@handler("contract.fail")
async def fail(context: Context, value: Any) -> None:
    """Raises an error that nobody foresaw."""
    raise LookupError(f"internal-canary {value}")


@handler("contract.flaky")
async def flaky(context: Context, value: dict[str, str]) -> str:
    """Fails on its first attempt."""
    if context.attempt == 1:
        raise ConnectionError("not yet")
    return value["key"]


@handler("contract.spend")
async def spend(context: Context, value: dict[str, int]) -> int:
    """Books so many micro-credits."""
    context.spend(micro_credits=value["value"])
    return value["value"]
