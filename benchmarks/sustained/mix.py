"""What the load is made of: kinds of work in fixed shares, each of which knows how it must end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tierflow import Client, Handle
from tierflow.errors import TierflowError

from benchmarks.workloads import CHAIN, ONE_STEP

RETRIES: Final = {"max_attempts": 12, "initial_delay": "20ms", "max_delay": "200ms"}
STOPPED: Final = ("STOPPED", "TERMINATED")


class WrongEndError(Exception):
    """Work ended otherwise than it must."""


def _flow(name: str, steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": f"load-{name}", "version": "1", "steps": steps, **more}


def _echo(*needs: str, **given: Any) -> dict[str, Any]:
    return {"call": "echo", "with": given or {"i": "${{ input.i }}"}, **({"needs": list(needs)} if needs else {})}


def _call(handler: str, **more: Any) -> dict[str, Any]:
    return {"call": handler, "with": {"i": "${{ input.i }}"}, **more}


_NAP: Final = {"call": "load.nap", "with": {"seconds": 0.05}}
FLOWS: Final[tuple[dict[str, Any], ...]] = (
    ONE_STEP,
    CHAIN,
    _flow(
        "map",
        {"each": {"map": "${{ input.items }}", "call": "echo", "with": {"i": "${{ item }}"}, "concurrency": 8}, "join": _echo("each", done=True)},
    ),
    _flow("retried", {"a": _call("load.flaky", retry=RETRIES)}, output="${{ steps.a.output }}"),
    _flow("refused", {"a": _call("load.refuses", retry=RETRIES)}),
    _flow("held", {"a": _echo(), "b": {"wait": "1h", "needs": ["a"]}}),
    _flow("paused", {"a": dict(_NAP), "b": {**_NAP, "needs": ["a"]}, "c": _echo("b", i=3)}, output="${{ steps.c.output.i }}"),
    _flow("signalled", {"go": {"signal": "go"}, "b": _echo("go", i="${{ steps.go.output }}")}, output="${{ steps.b.output.i }}"),
    _flow("timed", {"soon": {"wait": "300ms"}, "b": _echo("soon", i=4)}, output="${{ steps.b.output.i }}"),
    _flow(
        "shared",
        {
            "w": {"call": "blackboard.write", "with": {"values": {"key": "${{ input.i }}"}}},
            "r": {"call": "blackboard.read", "needs": ["w"], "with": {"keys": ["key"]}},
        },
        output="${{ steps.r.output.values.key }}",
    ),
    _flow("inner", {"a": _echo()}, input={"i": {"type": "integer"}}, output="${{ steps.a.output.i }}"),
    _flow("nested", {"in": {"flow": "load-inner@1", "with": {"i": "${{ input.i }}"}}}, output="${{ steps.in.output }}"),
    _flow("agent", {"a": _call("load.agent"), "b": _call("load.lookup", needs=["a"])}, output="${{ steps.b.output.i }}"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work.

    Attributes:
        name: What it is called in the report.
        share: How often it comes, against the others.
        perform: Does it, and raises `WrongEndError` where it does not end as it must.
        waits: Whether it waits for something by itself, so that how long it takes says nothing.
        steps: Attempts that it needs, about.
    """

    name: str
    share: int
    perform: Callable[[Client, int], Awaitable[None]]
    waits: bool = False
    steps: int = 1


def _expect(seen: Any, wanted: Any, what: str) -> None:
    if seen != wanted:
        raise WrongEndError(f"{what}: {seen!r} instead of {wanted!r}")


def _plain(
    flow: str, given: Callable[[int], Any], wanted: Callable[[int], Any]
) -> Callable[[Client, int], Awaitable[None]]:
    async def perform(client: Client, number: int) -> None:
        _expect(await client.run(flow, given(number)), wanted(number), flow)

    return perform


async def _refused(client: Client, number: int) -> None:
    result = await (await client.submit("load-refused@1", {"i": number})).wait()
    code = result.failure.code if result.failure is not None else 0
    _expect((result.state, bool(code)), ("FAILED", True), "refused")


async def _cancelled(client: Client, number: int) -> None:
    handle = await client.submit("load-held@1", {"i": number})
    await handle.cancel("load")
    _expect((await handle.wait()).state in STOPPED, True, "cancelled")


async def _paused(client: Client, number: int) -> None:
    handle = await client.submit("load-paused@1", {"i": number})
    await _told(handle.pause)
    await asyncio.sleep(0.05)
    await _told(handle.resume)
    _expect(await handle.result(), 3, "paused")


async def _told(command: Callable[[], Awaitable[bool]]) -> None:
    """A command that comes when everything is over is refused; that is no error of anybody's."""
    try:
        await command()
    except TierflowError as error:
        if error.code != "STATE_CONFLICT":
            raise


async def _signalled(client: Client, number: int) -> None:
    handle: Handle = await client.submit("load-signalled@1", {"i": number})
    await client.signal(handle.id, "go", number)
    _expect(await handle.result(), number, "signalled")


def _i(number: int) -> dict[str, int]:
    return {"i": number}


KINDS: Final[tuple[Kind, ...]] = (
    Kind("one step", 30, _plain("bench-one@1", _i, lambda n: {"only": {"i": n}})),
    Kind("chain of ten", 10, _plain("bench-chain@1", _i, _i), steps=10),
    Kind("map of twenty", 5, _plain("load-map@1", lambda _: {"items": list(range(20))}, lambda _: {"join": {"done": True}}), steps=21),
    Kind("retried", 10, _plain("load-retried@1", _i, lambda n: n), waits=True),
    Kind("refused", 5, _refused),
    Kind("cancelled", 5, _cancelled, waits=True),
    Kind("paused and resumed", 5, _paused, waits=True, steps=3),
    Kind("signalled", 5, _signalled, waits=True),
    Kind("timer", 5, _plain("load-timed@1", _i, lambda _: 4), waits=True),
    Kind("blackboard", 5, _plain("load-shared@1", _i, lambda n: n), steps=2),
    Kind("sub-flow", 5, _plain("load-nested@1", _i, lambda n: n), steps=2),
    Kind("tool calls", 10, _plain("load-agent@1", _i, lambda n: n), steps=2),
)  # fmt: skip


def sequence(kinds: tuple[Kind, ...] = KINDS) -> Iterator[Kind]:
    """Kinds for ever, in their shares, spread evenly: the same order each time."""
    due = dict.fromkeys(range(len(kinds)), 0.0)
    whole = sum(kind.share for kind in kinds)
    while True:
        for number, kind in enumerate(kinds):
            due[number] += kind.share / whole
        number = max(due, key=lambda each: due[each])
        due[number] -= 1.0
        yield kinds[number]
