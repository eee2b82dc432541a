"""How attempts end: typed failures, outputs, logs, usage; and that nothing of it harms anybody else."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from tierflow import BudgetExhausted, Context, Degraded, HandlerFailed, Rejected
from tierflow_contracts.common.v1 import state_pb2
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

Serve = Callable[..., Any]
COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


class Order(BaseModel):
    item: str
    count: int


class Receipt(BaseModel):
    total: float


async def _charge(context: Context, order: Order) -> Receipt:
    return Receipt(total=order.count * 2.5)


def _add(a: int, b: int = 1) -> int:
    return a + b


async def test_typed_handlers(serve: Serve) -> None:
    """B14: input is prepared by the handler's types, async or plain, whole or by name; what it returns is JSON."""
    served = await serve({"charge": _charge, "add": _add})
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(a_request("charge", '{"item": "tea", "count": 2}'))).output.json) == {
            "total": 5.0
        }
        assert (await peer.run(a_request("add", '{"a": 2}'))).output.json == "3"
        offered = {each.name: each for each in peer.hello.handlers}
        assert json.loads(offered["charge"].input_schema_json)["required"] == ["item", "count"]
        assert json.loads(offered["charge"].output_schema_json)["properties"]["total"]["type"] == "number"


async def test_input_that_does_not_match(serve: Serve) -> None:
    """F22, Lesson 13: INPUT_INVALID with every violation and its path, not retryable; the handler is not called."""
    served = await serve({"charge": _charge})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("charge", '{"count": "many"}'))
        assert code(result) == "INPUT_INVALID"
        assert not result.failure.retryable
        assert {each.field for each in result.failure.violations} == {"input.item", "input.count"}


def _raising(error: BaseException) -> Callable[..., Any]:
    async def fail(context: Context) -> None:
        raise error

    return fail


class Declined(Exception):
    """A user's own error."""


RAISED = [
    (Declined("retryable? no: rejected for good"), "HANDLER_FAILED", True),
    (HandlerFailed("later", retry_after=2.5), "HANDLER_FAILED", True),
    (HandlerFailed("busy", code="RATE_LIMITED"), "RATE_LIMITED", True),
    (Rejected("connection timed out"), "HANDLER_REJECTED", False),
    (MemoryError(), "MEMORY_EXCEEDED", False),
    (SystemExit(3), "HANDLER_FAILED", True),
    (KeyboardInterrupt(), "HANDLER_FAILED", True),
    (GeneratorExit(), "HANDLER_FAILED", True),
    (asyncio.CancelledError(), "HANDLER_FAILED", True),
    (RecursionError("deep"), "HANDLER_FAILED", True),
]


@pytest.mark.parametrize(("error", "expected", "retryable"), RAISED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("plain", [False, True])
async def test_whatever_is_raised_is_a_typed_failure(
    serve: Serve, error: BaseException, expected: str, retryable: bool, plain: bool
) -> None:
    """F22, F27, F28, Lesson 13: decided by type, never by words; SystemExit and the like end nothing but their own attempt."""

    def fail_plainly(context: Context) -> None:
        raise error

    served = await serve({"fail": fail_plainly if plain else _raising(error)})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("fail"))
        assert (result.state, code(result), result.failure.retryable) == (FAILED, expected, retryable)
        assert result.failure.component == "fail"
        assert result.failure.step_id == "step"
        assert result.failure.attempt == 1
        assert "Traceback" not in result.failure.message
        assert (await peer.run(a_request("echo", "1"))).state == COMPLETED


async def test_the_cause_is_kept(serve: Serve) -> None:
    """F22, F23: what caused a failure goes with it, and retry_after as well."""

    async def fail(context: Context) -> None:
        try:
            raise Declined("first")
        except Declined as error:
            raise HandlerFailed("second", retry_after=2.5) from error

    served = await serve({"fail": fail})
    async with Peer(served.address, "one") as peer:
        failure = (await peer.run(a_request("fail"))).failure
        assert failure.message == "second"
        assert failure.retry_after.ToMilliseconds() == 2500
        assert "first" in failure.cause.message


class Unreal(BaseModel):
    number: float


BAD_OUTPUTS: dict[str, Callable[..., Any]] = {
    "nan": lambda: math.nan,
    "infinity": lambda: {"deep": [1, -math.inf]},
    "nan in a model": lambda: Unreal(number=math.nan),
    "nul": lambda: {"text": "a\0b"},
    "surrogate": lambda: "\ud800",
    "object": lambda: object(),
    "set of sets": lambda: {frozenset({1}): 2},
}


@pytest.mark.parametrize("name", BAD_OUTPUTS)
async def test_output_that_is_not_json(serve: Serve, name: str) -> None:
    """Lesson 28: NaN, NUL, broken text and things that are not JSON are OUTPUT_INVALID, for good; nothing stays RUNNING."""
    function = BAD_OUTPUTS[name]

    def give() -> Any:
        return function()

    served = await serve({"give": give})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("give"))
        assert (code(result), result.failure.retryable) == ("OUTPUT_INVALID", False)


async def test_output_that_is_not_as_declared(serve: Serve) -> None:
    """F22: a handler that returns something else than it declares has failed with OUTPUT_INVALID."""

    async def give(context: Context) -> Receipt:
        return "no receipt"  # type: ignore[return-value]

    served = await serve({"give": give})
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_request("give"))) == "OUTPUT_INVALID"


async def test_a_text_that_only_looks_like_nul_is_fine(serve: Serve) -> None:
    """Lesson 28: a backslash before `u0000` that is itself escaped is a text, not a NUL."""
    served = await serve({"give": lambda: "\\u0000 None null NaN"})
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(a_request("give"))).output.json) == "\\u0000 None null NaN"


async def test_a_fallback_is_not_a_success(serve: Serve) -> None:
    """F18: a result that a fallback made has outcome DEGRADED."""

    async def guess(context: Context) -> int | Degraded[int]:
        return Degraded(7)

    served = await serve({"guess": guess})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("guess"))
        assert (result.state, result.outcome, result.output.json) == (COMPLETED, state_pb2.OUTCOME_DEGRADED, "7")


async def test_one_poisonous_attempt_among_a_hundred(serve: Serve) -> None:
    """F27: 99 complete."""

    async def maybe(context: Context, x: dict[str, int]) -> int:
        if x["n"] == 50:
            raise SystemExit
        return x["n"]

    served = await serve({"maybe": maybe}, slots=10)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("maybe", json.dumps({"n": number})) for number in range(100)]
        peer.start(*requests)
        await peer.until(lambda: len(peer.results()) == 100)
        assert sorted(each.state for each in peer.results()) == [COMPLETED] * 99 + [FAILED]


async def test_logs_are_kept(serve: Serve, capture: Callable[[], None]) -> None:
    """Q27: `context.log`, `print` and `logging`, of async and plain handlers, each with its own attempt; only the last 32 KiB."""
    import logging

    def speak(context: Context, name: str) -> None:
        context.log.info("hello %s", name)
        print("printed", name)
        logging.getLogger("mine").warning("warned %s", name)
        print("without an end", end="")

    async def speak_async(context: Context, name: str) -> None:
        await asyncio.sleep(0)
        speak(context, name)

    async def much(context: Context) -> None:
        for number in range(2_000):
            context.log.info("line %05d %s", number, "x" * 50)

    capture()
    served = await serve({"speak": speak, "speak.async": speak_async, "much": much})
    async with Peer(served.address, "one") as peer:
        for name in ("speak", "speak.async"):
            requests = [a_request(name, json.dumps({"name": each})) for each in ("ann", "bob")]
            peer.start(*requests)
            for each, request in zip(("ann", "bob"), requests, strict=True):
                result = await peer.result(request.context.attempt_id)
                assert [(line.stream, line.text) for line in result.logs] == [
                    ("info", f"hello {each}"),
                    ("stdout", f"printed {each}"),
                    ("warning", f"warned {each}"),
                    ("stdout", "without an end"),
                ]
        lines = (await peer.run(a_request("much"))).logs
        assert "line 01999" in lines[-1].text
        assert sum(len(line.text) for line in lines) <= 32 * 1024
        assert "earlier lines were cut" in lines[0].text


async def test_spending_is_booked_and_bounded(serve: Serve) -> None:
    """D5, F22: what was spent is in the usage, also of a failed attempt; more than was granted ends it with BUDGET_EXHAUSTED; the rest goes back."""

    async def spend(context: Context, n: int) -> None:
        for _ in range(n):
            context.spend(2**53 + 1, input_tokens=10, output_tokens=5, tool_calls=1, pages=0.5)
        raise Declined

    served = await serve({"spend": spend})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("spend", '{"n": 2}', credits=2**62, tokens=100, tool_calls=2))
        assert code(result) == "HANDLER_FAILED"
        assert result.usage.credits == 2 * (2**53 + 1)
        assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.tool_calls) == (20, 10, 2)
        assert result.usage.metrics["pages"] == 1.0
        assert result.allocation_returned.credits == 2**62 - result.usage.credits
        assert result.allocation_returned.tokens == 70
        assert result.allocation_returned.tool_calls == 0
        over = await peer.run(a_request("spend", '{"n": 3}', tool_calls=2))
        assert (code(over), over.failure.retryable) == ("BUDGET_EXHAUSTED", False)
        assert over.usage.tool_calls == 3
        assert BudgetExhausted.default_code == "BUDGET_EXHAUSTED"


async def test_forbidden_without_a_grant(serve: Serve) -> None:
    """B3: a side-effecting handler refuses to run without Tier 2's grant token, and runs with it."""
    served = await serve({"pay": lambda: "paid"}, {"pay": {"side_effecting": True}})
    async with Peer(served.address, "one") as peer:
        assert next(each for each in peer.hello.handlers if each.name == "pay").side_effecting
        assert code(await peer.run(a_request("pay"))) == "PERMISSION_DENIED"
        assert (await peer.run(a_request("pay", grant_token="gate-1"))).state == COMPLETED


async def test_a_request_that_breaks_the_contract(serve: Serve) -> None:
    """A1, A5: on the stream it ends as INVALID_REQUEST with all violations, and nothing is started."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        request = a_request("echo")
        request.ClearField("options")
        request.context.ClearField("epoch")
        result = await peer.run(request)
        assert code(result) == "INVALID_REQUEST"
        assert {each.field for each in result.failure.violations} == {"options", "context.epoch"}
        assert not result.HasField("started_at")
