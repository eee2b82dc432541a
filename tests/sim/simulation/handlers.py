"""What executors perform. How an attempt goes is a function of the seed, the swarm's place in the scenario, the step and the attempt: how long it takes, whether it fails, whether it lets itself be stopped."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tierflow.context import Context
from tierflow.outcomes import HandlerFailed, Rejected

_LARGE = "x" * 70_000


class Conduct:
    """How one attempt goes."""

    __slots__ = ("doubts", "fails", "fatal", "hangs", "large", "seconds", "stubborn", "talks")

    def __init__(self, name: str, temper: dict[str, float]) -> None:
        chance = random.Random(name)
        kind = chance.random()
        if kind < 0.4:
            self.seconds = chance.random() * 0.02
        elif kind < 0.7:
            self.seconds = chance.random() * 0.4
        else:
            self.seconds = chance.random() * temper["long"]
        self.fails = chance.random() < temper["fails"]
        self.fatal = chance.random() < temper["fatal"]
        self.hangs = chance.random() < temper["hangs"]
        self.stubborn = chance.random() < temper["stubborn"]
        self.large = chance.random() < temper["large"]
        self.talks = chance.random() < 0.1
        self.doubts = chance.random() < 0.5


def _begin(context: Context) -> tuple[Any, Conduct]:
    incarnation: Any = asyncio.get_running_loop().process  # type: ignore[attr-defined]
    world = incarnation.world
    world.checks.performed(incarnation, context.attempt_id)
    epoch = context.attempt_id.rpartition("/")[2]
    name = f"{world.seed}/{context.correlation_id}/{context.step_id}/{epoch}"
    return world, Conduct(name, world.scenario.temper)


async def _perform(context: Context, *, doubtful: bool = False) -> Any:
    world, conduct = _begin(context)
    done = False
    try:
        await _take_time(context, conduct)
        if doubtful and conduct.doubts:
            raise Rejected("it could not be done this time")
        done = True
    finally:
        world.checks.ended_attempt(context.attempt_id, done=done)
    return {"v": _LARGE if conduct.large else 1}


async def _take_time(context: Context, conduct: Conduct) -> None:
    if conduct.talks:
        context.progress(10.0, "begun")
        context.heartbeat({"at": 1})
    try:
        await asyncio.sleep(30.0 if conduct.hangs else conduct.seconds)
    except asyncio.CancelledError:
        if conduct.stubborn:
            await asyncio.sleep(1.5)
        raise
    context.spend(7)
    if conduct.fatal:
        raise Rejected("it cannot be done")
    if conduct.fails:
        raise HandlerFailed("it did not work this time")


async def work(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Does something for a while."""
    return await _perform(context)  # type: ignore[no-any-return]


async def charge(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Does something that must not be repeated lightly."""
    return await _perform(context)  # type: ignore[no-any-return]


def echo(context: Context, given: str) -> str:
    """Gives back what it got, at once."""
    world, _ = _begin(context)
    world.checks.ended_attempt(context.attempt_id, done=True)
    return given


async def doubt(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Does something that often cannot be done."""
    return await _perform(context, doubtful=True)  # type: ignore[no-any-return]


async def plan(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Says what else is to be done."""
    await _perform(context)
    steps = {"x": {"call": "sim.work", "with": {}}, "y": {"call": "sim.echo", "needs": "x", "with": {}}}
    return {"steps": steps, "output": 1} if context.attempt % 2 else {"v": 1}
