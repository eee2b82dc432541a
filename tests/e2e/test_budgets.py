"""A budget from the client down to attempts and back, over the death of everybody who holds a part of it."""

import asyncio
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Budget, Client
from tierflow.errors import ExecutionFailed, code_name
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]
RETRY = {"max_attempts": 3, "initial_delay": "10ms"}


def spends(folder: pathlib.Path, **more: Any) -> dict[str, Any]:
    return {"call": "b.spend", "with": {"folder": str(folder), "amount": 7}, "timeout": "5m", "retry": RETRY, **more}


def flows(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A flow of five branches beside a run of another one."""
    inner = {
        "name": "budget-inner",
        "version": "1",
        "defaults": {"allocation": {"credits": 20, "tool_calls": 2}},
        "steps": {"x": spends(folder), "y": {**spends(folder), "needs": ["x"]}},
    }
    fifty = {"credits": 50, "tool_calls": 2}
    outer = {
        "name": "budget-outer",
        "version": "1",
        "steps": {
            "sub": {"flow": "budget-inner", "allocation": {"credits": 100, "tool_calls": 10, "steps": 9}},
            **{name: spends(folder, allocation=fifty) for name in "abcde"},
        },
    }
    return inner, outer


def begun(folder: pathlib.Path) -> list[str]:
    noted = folder / "begun"
    return noted.read_text().split() if noted.exists() else []


async def all_there(what: Callable[[], Any], wanted: Any) -> None:
    """Waits until it is so."""

    async def look() -> bool:
        found = what()
        return bool((await found if asyncio.iscoroutine(found) else found) == wanted)

    await eventually(look, timeout=60)


def numbers(balance: Any, name: str = "credits") -> tuple[int, int, int, int]:
    account = getattr(balance, name)
    assert account.total + account.overdrawn == account.reserved + account.consumed + account.available, "V57"
    return account.total, account.reserved, account.consumed, account.available


def described(stack: Stack, swarm_id: str) -> str:
    """What the command says of a swarm."""
    command = [sys.executable, "-m", "tierflow_cli.main", "describe", swarm_id, "--address", stack.address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_budget_over_the_death_of_everybody(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """O4, S1, D1, D2, D3, D4, D7, D8, D15, R30, C12, K7: two of five branches start beside a run of a step, the rest waits and is explained; executor, orchestrators and coordinator are killed; a top-up lets it go on; at the end nothing is held, sums agree in all tiers, and the auditor agrees."""
    environment = {
        "PYTHONPATH": os.pathsep.join((str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    }
    stack = make_stack(
        orchestrators=2, handlers=["budget_handlers", "tierflow_executor.handlers"], executor_environment=environment
    )
    inner, outer = flows(tmp_path)
    async with Client(stack.address, patience=60) as client:
        await client.register_flow(inner)
        handle = await client.submit(outer, budget=Budget(credits=200, tool_calls=100, steps=40))
        await all_there(lambda: sorted(begun(tmp_path)), ["a", "b", "x"])
        run = await client.get_run(handle.run_id)
        assert numbers(run.balance) == (200, 200, 0, 0)
        assert numbers(run.balance, "steps") == (40, 9, 3, 28)
        assert numbers((await client.get(handle.id)).balance) == (200, 200, 0, 0)
        explained = await client.explain(handle.run_id, "e")
        assert any("50 micro-credits (0 left)" in one.description for each in explained for one in each.blockers)

        await asyncio.to_thread(stack.executors[0].kill)
        await asyncio.to_thread(stack.executors[0].start)

        async def attempts() -> dict[str, int]:
            return {step.step_id: step.attempts async for step in client.steps(handle.run_id) if step.attempts > 1}

        await all_there(lambda: begun(tmp_path).count("x"), 2)
        run = await client.get_run(handle.run_id)
        assert numbers(run.balance) == (200, 200, 0, 0), "what is lost is held as before"
        assert await attempts() == {}, "so no other attempt can begin"
        await handle.update(credits=400)
        await all_there(lambda: sorted(begun(tmp_path)), sorted("abxx" + "cdea"))
        run = await client.get_run(handle.run_id)
        assert numbers(run.balance) == (400, 400, 0, 0)
        assert numbers((await client.get(handle.id)).balance) == (400, 400, 0, 0)

        for orchestrator in stack.orchestrators:
            await asyncio.to_thread(orchestrator.kill)
        await asyncio.to_thread(stack.coordinators[0].kill)
        await asyncio.to_thread(stack.orchestrators[1].start)
        await asyncio.to_thread(stack.coordinators[0].start)
        run = await client.get_run(handle.run_id)
        assert numbers(run.balance) == (400, 400, 0, 0)
        (tmp_path / "go").touch()
        assert (await handle.wait(90)).state == "COMPLETED"

        run, swarm = await client.get_run(handle.run_id), await client.get(handle.id)
        steps = [step async for step in client.steps(handle.run_id)]
        spent = 5 * 7 + 2 * 50 + (2 * 7 + 20)
        assert numbers(run.balance) == numbers(swarm.balance) == (400, 0, spent, 400 - spent)
        assert sum(step.usage.credits for step in steps) == run.usage.credits == swarm.usage.credits == spent
        calls = sum(step.usage.tool_calls for step in steps)
        assert calls == run.usage.tool_calls == swarm.usage.tool_calls == 5 + 2 * 2 + (2 + 2)
        tries = sum(step.usage.attempts for step in steps)
        assert tries == run.usage.attempts == swarm.usage.attempts == numbers(run.balance, "steps")[2] == 11
        assert all(step.HasField("duration") and step.usage.wall_time.ToMicroseconds() for step in steps)
        shown = described(stack, handle.id)
        assert "0.000169 credits of 0.0004 credits spent, 0.000231 credits free" in shown

        poor = await client.submit(
            {"name": "poor", "version": "1", "steps": {"a": spends(tmp_path, retry={"max_attempts": 1})}},
            budget=Budget(credits=5),
        )
        with pytest.raises(ExecutionFailed) as caught:
            await poor.result(60)
        assert code_name(caught.value.failure.cause) == "BUDGET_EXHAUSTED"
        assert "7 micro-credits of 5 granted" in str(caught.value)
        assert numbers((await client.get(poor.id)).balance)[1] == 0
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
    assert report.counts["grants"] == 3
