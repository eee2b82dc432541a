"""What a swarm shares, through all tiers: handlers read and write it by key, it travels only where it is used, and it survives its keepers."""

import asyncio
import os
import pathlib
import random
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client, Conflict
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]
ROOT = pathlib.Path(__file__).parents[2]
TEN_MB = 10 * 1024 * 1024


@pytest.fixture
def with_handlers(make_stack: MakeStack) -> MakeStack:
    """Stacks whose executors have the handlers beside this file."""

    def make(**fields: Any) -> Stack:
        environment = {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
        return make_stack(handlers=["sharing_handlers"], executor_environment=environment, **fields)

    return make


def flow(name: str, **steps: dict[str, Any]) -> dict[str, Any]:
    outputs = {step: f"${{{{ steps.{step}.output }}}}" for step in steps if step != "go"}
    return {"name": name, "version": "1", "steps": steps, "output": outputs}


GO = {"signal": "go"}


def calls(stack: Stack, kind: str) -> int:
    """Calls of a kind that the coordinators have counted."""
    total = 0.0
    for coordinator in stack.coordinators:
        with urllib.request.urlopen(coordinator.metrics_url) as answer:
            text = answer.read().decode()
        total += sum(float(n) for n in re.findall(rf'context_calls_total{{kind="{kind}"}} ([0-9.e+]+)', text))
    return int(total)


async def test_a_blackboard_of_ten_megabytes(with_handlers: MakeStack) -> None:
    """I8, I9, I10, I11, B20: with 10 MB shared no request to Tier 3 grows, and nothing is fetched that nobody uses.

    Handlers read, write and add by key, in a process of their own too. Agents change policy only while the swarm is adaptive, which the history shows.
    """
    stack = with_handlers(slots=16)
    async with Client(stack.address, patience=60) as client:
        first = flow(
            "shares",
            go=GO,
            size={"call": "s.request_size", "needs": ["go"]},
            again={"call": "s.request_size", "needs": ["size"]},
        )
        handle = await client.submit(first)
        noise = random.Random(3)
        for n in range(13):
            await handle.blackboard.set(f"page/{n}", noise.randbytes(430_000).hex())
        shared = await handle.blackboard.context()
        assert shared.bytes >= TEN_MB
        assert await client.signal(handle.id, "go")
        sizes = await handle.result(60)
        assert max(sizes.values()) < 64 * 1024
        assert calls(stack, "fetch") == 0

        second = flow(
            "uses",
            go=GO,
            length={"call": "s.length", "with": {"key": "text"}, "needs": ["go"]},
            apart={"call": "s.apart", "with": {"key": "text"}, "needs": ["go"]},
            adds={
                "map": "${{ [1, 2, 3, 4, 5, 6] }}",
                "call": "s.add",
                "with": {"key": "found", "item": "${{ item }}"},
                "needs": ["go"],
            },
            refused={"call": "s.adapt", "with": {"tone": "dry"}, "needs": ["adds"]},
            wrote={
                "call": "blackboard.write",
                "with": {"values": {"summary": "${{ steps.adds.output }}"}, "expected": {"summary": 0}},
                "needs": ["adds"],
            },
            read={
                "call": "blackboard.read",
                "with": {"keys": ["found", "summary", "nothing"]},
                "needs": ["wrote"],
            },
            listed={"call": "blackboard.list", "with": {"prefix": "f"}, "needs": ["wrote"]},
        )
        handle = await client.submit(second)
        await handle.blackboard.set("text", "x" * 500_000)
        await client.signal(handle.id, "go")
        output = await handle.result(60)
        assert (output["length"], output["apart"], output["refused"]) == (500_000, 500_000, "refused")
        assert sorted(output["read"]["values"]["found"]) == [1, 2, 3, 4, 5, 6]
        assert output["read"]["versions"]["summary"] == output["wrote"]["version"]
        assert output["listed"]["keys"] == ["found"]
        assert calls(stack, "fetch") == 2
        writes = await client.blackboard_history(handle.id, "found")
        assert [len(item.value) for item in writes] == [6, 5, 4, 3, 2, 1]
        assert {item.run_id for item in writes} == {handle.run_id}
        assert {item.step_id for item in writes} == {f"adds[{n}]" for n in range(6)}

        third = await client.submit(
            flow("adapts", go=GO, adapt={"call": "s.adapt", "with": {"tone": "dry"}, "needs": ["go"]})
        )
        await third.blackboard.update_context(1, adaptive=True)
        with pytest.raises(Conflict, match="expected_version"):
            await third.blackboard.update_context(1, goal="another")
        await client.signal(third.id, "go")
        assert await third.result(60) == {"adapt": "accepted"}
        after = await third.blackboard.context()
        assert (after.version, after.policy, after.adaptive) == (3, {"tone": "dry"}, True)
        told = [
            (event.context_updated.context.version, event.context_updated.step_id, event.context_updated.reason)
            for event in (await client.events(third.id)).events
            if event.WhichOneof("payload") == "context_updated"
        ]
        assert told == [(2, "", ""), (3, "adapt", "it works better")]
        assert (await audit(stack.database_url, stack.nats.url, settled=True)).problems == []


async def test_writes_go_on_over_the_death_of_coordinator_and_orchestrator(with_handlers: MakeStack) -> None:
    """I6, I7, I11, K7, Q22: an attempt writes, each time from the version before, while coordinator and orchestrator are killed and come back: each write is there once."""
    stack = with_handlers(orchestrators=1)
    rounds = 60
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(flow("over", only={"call": "s.over", "with": {"key": "n", "rounds": rounds}}))
        board = handle.blackboard

        async def reached(least: int) -> bool:
            value = await board.get("n")
            return value is not None and value >= least

        await eventually(lambda: reached(5))
        stack.coordinators[0].kill()
        await asyncio.to_thread(stack.coordinators[0].start)
        await eventually(lambda: reached(20))
        stack.orchestrators[0].kill()
        await asyncio.to_thread(stack.orchestrators[0].start)
        assert await handle.result(200) == {"only": rounds}
        writes = await client.blackboard_history(handle.id, "n", limit=100)
        assert [item.value for item in writes] == list(range(rounds, -1, -1))
        assert (await audit(stack.database_url, stack.nats.url, settled=True)).problems == []


def test_the_page_can_be_followed(stack: Stack, tmp_path: pathlib.Path) -> None:
    """I7, I11, K5, O3, Q25: the commands of docs/blackboard.md, as they are there, do what the page says."""
    page = (ROOT / "docs/blackboard.md").read_text()
    for name, text in re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```", page, re.S | re.M):
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "\n".join(["set -euxo pipefail", *re.findall(r"^```sh\n(.*?)^```", page, re.S | re.M)])
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **stack.environment(), "PATH": path}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    said = done.stdout.split("\n")
    assert said.count('"Bern"') == 3  # before, and after going back, twice
    assert any("finding/cost" in line for line in said)
    hashes = [line.split()[1] for line in said if line.startswith("before-merge")]
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]
    assert any(line.startswith("policy") and '"tone": "dry"' in line for line in said)
