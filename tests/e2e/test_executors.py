"""Executors within the whole system: what they promise, seen from a client."""

import asyncio
import collections
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client, ExecutionFailed
from tierflow_contracts.common.v1.failure_pb2 import ErrorCode
from tierflow_testing.stack import Stack

MakeStack = Callable[..., Stack]
RETRY = {"max_attempts": 3, "initial_delay": "10ms"}


@pytest.fixture
def with_handlers(make_stack: MakeStack) -> MakeStack:
    """Stacks whose executors have the handlers beside this file."""

    def make(**fields: Any) -> Stack:
        environment = {"PYTHONPATH": str(pathlib.Path(__file__).parent), "TIERFLOW_DRAIN_TIMEOUT": "30"}
        return make_stack(handlers=["executor_handlers"], executor_environment=environment, **fields)

    return make


def one_step(name: str, call: str, given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1",
        "steps": {"only": {"call": call, "with": given, **more}},
        "output": "${{ steps.only.output }}",
    }


async def test_a_rolling_restart(with_handlers: MakeStack, tmp_path: pathlib.Path) -> None:
    """Q22, N6, Lesson 24: each executor is drained and started again under load: no run fails, no attempt is repeated."""
    stack = with_handlers(executors=2, slots=8)
    notes = tmp_path / "notes"
    async with Client(stack.address, patience=60) as client:
        over = asyncio.Event()
        expected: list[int] = []

        async def submit_and_wait(number: int) -> None:
            result = await client.run(one_step(f"note-{number}", "t.note", {"path": str(notes), "number": number}))
            assert result == number

        async def load() -> None:
            under_way: set[asyncio.Task[None]] = set()
            while not over.is_set() or len(expected) < 20:
                number = len(expected)
                expected.append(number)
                under_way.add(asyncio.create_task(submit_and_wait(number)))
                while len(under_way) >= 8:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for each in done:
                        await each
            await asyncio.gather(*under_way)

        async def restarts() -> None:
            for executor in stack.executors:
                await asyncio.to_thread(executor.stop)
                assert executor.exit_code == 0
                await asyncio.to_thread(executor.start)
            over.set()

        await asyncio.gather(load(), restarts())
    counts = collections.Counter(int(line) for line in notes.read_text().split())
    assert counts == dict.fromkeys(expected, 1)


async def test_the_next_attempt_goes_on(with_handlers: MakeStack) -> None:
    """Q3, Q27: details of the last heartbeat reach the next attempt, and the log lines of all attempts can be read."""
    stack = with_handlers()
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(one_step("resume", "t.resume", {}, retry=RETRY))
        assert await handle.result(60) == {"pages": 3, "attempt": 3}
        lines = [line.text for attempt in await client.logs(handle.run_id) for line in attempt.lines]
        assert lines == ["page 1", "page 2", "page 3"]


async def test_work_that_is_stuck_is_given_up(with_handlers: MakeStack) -> None:
    """K9, Q3, Q2, Lesson 20: no sign of life but the work's own: an attempt that is stuck in a living process is given up, and the next goes on where it was."""
    stack = with_handlers()
    steps = {  # on a slow machine an attempt may be given up before its first sign of life
        step_id: {"call": call, "heartbeat_timeout": "2s", "retry": {**RETRY, "max_attempts": 50}}
        for step_id, call in (("inside", "t.stuck"), ("apart", "t.stuck_apart"))
    }
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit({"name": "stuck", "version": "1", "steps": steps})
        assert await handle.result(240) == {step_id: {"page": 2} for step_id in steps}
        history = (await client.events(handle.id, handle.run_id)).events
        given_up = {e.step_id: e.step_retrying.failure for e in history if e.HasField("step_retrying")}
        assert {name: ErrorCode.Name(one.code) for name, one in given_up.items()} == dict.fromkeys(
            steps, "ERROR_CODE_HEARTBEAT_TIMEOUT"
        )
        executors = {e.step_scheduled.executor_id for e in history if e.HasField("step_scheduled")}
        assert [f"{e.hello.name}/{e.hello.executor_id}" for e in await client.executors()] == list(
            executors
        )  # the process that it was stuck in lives


async def test_ten_megabytes(with_handlers: MakeStack) -> None:
    """Q15, Lesson 27: a 10 MB output passes through a run by reference and comes out whole."""
    stack = with_handlers()
    flow = {
        "name": "big",
        "version": "1",
        "steps": {
            "make": {"call": "t.big", "with": {"size": 10_000_000}},
            "pass": {"call": "echo", "with": {"of": "${{ steps.make.output }}"}},
        },
        "output": "${{ steps.pass.output.of.text }}",
    }
    async with Client(stack.address, patience=60) as client:
        assert await client.run(flow) == "x" * 10_000_000


async def test_a_command_in_a_flow(with_handlers: MakeStack) -> None:
    """B3, L15: a side-effecting handler gets its grant from Tier 2 and runs."""
    stack = with_handlers()
    async with Client(stack.address, patience=60) as client:
        output = await client.run(
            one_step("shell", "shell.run", {"command": "echo hi; env | grep -c TIERFLOW", "ok_exit_codes": [0, 1]})
        )
        assert output["stdout"] == "hi\n0\n"


async def test_a_handlers_own_timeout(with_handlers: MakeStack) -> None:
    """F8: where neither step nor flow says how long an attempt may take, its handler's declaration counts; both are stronger than it."""
    stack = with_handlers()
    async with Client(stack.address, patience=60) as client:
        with pytest.raises(ExecutionFailed) as told:
            await client.run(one_step("declared", "t.slow", {"seconds": 20.0}, retry={"max_attempts": 1}))
        assert "TIMEOUT" in repr(told.value.failure)
        given = {"seconds": 0.4}
        assert await client.run(one_step("step", "t.slow", given, timeout="10s")) == 0.4
        assert await client.run({**one_step("flow", "t.slow", given), "defaults": {"timeout": "10s"}}) == 0.4
