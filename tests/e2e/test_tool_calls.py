"""Tool calls within the whole system: seen while they happen, and both events of each confirmed, whatever is killed meanwhile."""

import asyncio
import pathlib
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client, Gap
from tierflow_contracts.common.v1.state_pb2 import ToolOutcome
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "chaos"))
from scraping import metric  # noqa: E402 - beside the tests under chaos

MakeStack = Callable[..., Stack]
RETRY = {"max_attempts": 4, "initial_delay": "10ms"}


@pytest.fixture
def tools(make_stack: MakeStack) -> Stack:
    """A system of its own, with its own stream: two executors with the handlers beside this file."""
    environment = {"PYTHONPATH": str(HERE)}
    return make_stack(
        own_servers=True, executors=2, slots=16, handlers=["tool_handlers"], executor_environment=environment
    )


def one_step(name: str, call: str, **given: Any) -> dict[str, Any]:
    steps = {"only": {"call": call, "with": given, "retry": RETRY}}
    return {"name": name, "version": "1", "steps": steps}


async def users_see_it_in_order(client: Client, tmp_path: pathlib.Path) -> None:
    """H2, H1, B19: who watches sees started, thinking, tool executing, tool completed, completed, in this order, of its own swarm only, and no word of what a tool is given."""
    gate = tmp_path / "gate"
    mine, other = [
        await client.submit(one_step(name, "t.agent", gate=str(gate), secret="hush")) for name in ("mine", "other")
    ]
    seen: list[tuple[str, str]] = []
    async for event in client.watch(mine.id, progress=True):
        assert not isinstance(event, Gap)
        assert event.swarm_id == mine.id
        body: Any = event.message
        if event.type == "progress_reported":
            gate.touch()
            if (body.kind, body.message) not in seen:
                seen.append((body.kind, body.message))
        elif event.type.startswith("tool_call"):
            outcome = getattr(body, "outcome", 0)
            seen.append((event.type, f"{body.tool} {ToolOutcome.Name(outcome).removeprefix('TOOL_OUTCOME_')}"))
            assert "hush" not in str(event.message)
            assert getattr(body, "code", "") == ("NOT_FOUND" if "FAILURE" in seen[-1][1] else "")
            if outcome == ToolOutcome.TOOL_OUTCOME_SUCCESS:
                assert body.size == len('{"found":"hush"}')
        elif event.type in ("swarm_created", "step_started", "step_completed", "run_ended", "swarm_ended"):
            seen.append((event.type, ""))
    order = [
        ("swarm_created", ""),
        ("thinking", "what to look for"),
        ("tool_call_began", "search UNSPECIFIED"),
        ("tool_call_ended", "search SUCCESS"),
        ("tool_call_began", "weather UNSPECIFIED"),
        ("tool_call_ended", "weather FAILURE"),
        ("step_completed", ""),
        ("run_ended", ""),
        ("swarm_ended", ""),
    ]
    assert [one for one in seen if one in order] == order
    assert await other.result(60) == {"only": {"found": 1}}


async def test_both_events_of_every_tool_call_are_confirmed(tools: Stack, tmp_path: pathlib.Path) -> None:
    """H7, P13, B19: under load both executors are killed within tool calls; each call has both events, journaled and acknowledged by JetStream: the ratio is 1."""
    async with Client(tools.address, patience=60) as client:
        await users_see_it_in_order(client, tmp_path)
        calls = {"t.hangs": 3, "t.hangs_whole": 3, "t.lookup": 8, "t.agent": 4}
        gate = tmp_path / "gate"
        given: dict[str, dict[str, Any]] = {
            "t.lookup": {"n": 1}, "t.agent": {"gate": str(gate)}, "t.hangs": {"marks": str(tmp_path)}, "t.hangs_whole": {"marks": str(tmp_path)},
        }  # fmt: skip
        steps = {
            f"{call[2:]}{n}": {"call": call, "with": given[call], "retry": RETRY} for call, count in calls.items() for n in range(count)
        }  # fmt: skip
        handle = await client.submit({"name": "killed", "version": "1", "steps": steps})
        hanging = [name for name in steps if name.startswith("hangs")]
        for name in hanging:
            await eventually((tmp_path / name).exists, 60)
        for executor in tools.executors:  # one after the other: all that hang are lost with them
            await asyncio.to_thread(executor.kill)
            await asyncio.to_thread(executor.start)
        result = await handle.result(120)
        assert {name: result[name] for name in hanging} == dict.fromkeys(hanging, 2)

        report = await audit(tools.database_url, tools.nats.url, settled=True)
        assert report.ok, str(report)
        counts = report.counts
        assert counts["tool_calls"] == counts["tool_calls_ended"]
        assert counts["tool_calls_lost"] == len(hanging)
        history = (await client.events(handle.id, handle.run_id)).events
        ended = Counter(
            (e.tool_call_ended.tool, ToolOutcome.Name(e.tool_call_ended.outcome)[13:])
            for e in history
            if e.HasField("tool_call_ended")
        )
        assert ended["deep thought", "LOST"] == ended["deep thought", "SUCCESS"] == calls["t.hangs"]
        assert ended["t.hangs_whole", "LOST"] == ended["t.hangs_whole", "SUCCESS"] == calls["t.hangs_whole"]
        assert ended["two", "SUCCESS"] == 2 * calls["t.hangs_whole"]

        (orchestrator,) = tools.orchestrators
        assert await metric(orchestrator, "tierflow_tool_visibility") == 1
        assert await metric(orchestrator, "tierflow_tool_calls_open") == 0
        began = await metric(orchestrator, "tierflow_tool_calls_began")
        assert began == await metric(orchestrator, "tierflow_tool_calls_ended") == counts["tool_calls"]
        assert await metric(orchestrator, "tierflow_tool_events_confirmed") == 2 * began
