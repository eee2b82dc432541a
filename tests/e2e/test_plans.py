"""Plans of several runs through all tiers: triage first, then only what is needed."""

import asyncio
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from tierflow import Client, InvalidRequest, fn, plan
from tierflow_contracts.common.v1 import state_pb2
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """A stack whose executors have the handler beside this file."""
    return make_stack(
        handlers=["plan_handlers"], executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)}
    )


def one_step(name: str, call: str, with_: Any) -> dict[str, Any]:
    """A flow that returns what its one step returns."""
    return {"name": name, "steps": {"s": {"call": call, "with": with_}}, "output": "${{ steps.s.output }}"}


def triage_plan(directory: pathlib.Path, verdict: str) -> Any:
    """Triage, which takes as long as the test wants; then what it says."""
    directory.mkdir()
    p = plan(f"question {verdict}")
    told = {"directory": str(directory), "says": {"verdict": verdict, "next": "answer"}}
    triage = p.run("triage", one_step("triage", "p.held", told))
    route = p.switch("route", (triage.output.verdict == "insufficient data", "collect"))
    collect = p.run(
        "collect", one_step("collect", "echo", {"facts": "${{ input.about }}"}), {"about": p.input.question}
    )
    p.run(
        "answer",
        triage.output.next,
        {"facts": fn.default(collect.output, "none were needed")},
        among=[one_step("answer", "echo", {"got": "${{ input.facts }}"})],
        needs=[route],
        if_=fn.always() & (triage.state == "COMPLETED"),
    )
    return p


async def run_tierflow(stack: Stack, *arguments: str) -> str:
    """What the command prints. It must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tierflow_cli.main", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, **stack.environment()},
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_triage_and_a_kill(stack: Stack, tmp_path: pathlib.Path) -> None:
    """B17, J2, R16: 'insufficient data' leads to the collection of data, 'sufficient' skips it. The coordinator is killed while triage runs, and triage ends while there is none: its successor decides, once."""
    verdicts = ("insufficient data", "sufficient")
    async with Client(stack.address, patience=120, timeout=60) as client:
        handles = {}
        for verdict in verdicts:
            wanted = triage_plan(tmp_path / verdict.partition(" ")[0], verdict)
            handles[verdict] = await client.submit(wanted, {"question": "why?"})
        held = [tmp_path / verdict.partition(" ")[0] for verdict in verdicts]
        await eventually(lambda: all((each / "begun").exists() for each in held), timeout=60)
        (explained,) = (await client.explain(handles["sufficient"].id))[:1]
        assert "(triage of the plan)" in explained.blockers[0].description
        stack.coordinators[0].kill()
        for each in held:
            (each / "released").touch()
        await eventually(lambda: ended(stack, [handle.run_id for handle in handles.values()]), timeout=60)
        stack.coordinators[0].start()
        outputs = {verdict: await handle.result(90) for verdict, handle in handles.items()}
        assert outputs == {
            "insufficient data": {"answer": {"got": {"facts": "why?"}}},
            "sufficient": {"answer": {"got": "none were needed"}},
        }
        for verdict, handle in handles.items():
            await check_decisions(client, handle.id, collected=verdict == "insufficient data")
        shown = await run_tierflow(stack, "describe", handles["sufficient"].id)
        assert "route has not chosen it: no case is true" in shown
        # As a user would, with the example of the docs.
        example = ["submit", "examples/triage/plan.yaml", "-i", "question=why?", "--wait"]
        assert json.loads(await run_tierflow(stack, *example)) == {
            "text": "why? what is known of: why?", "collected": True,
        }  # fmt: skip
        known = json.loads(await run_tierflow(stack, *example, "-i", 'facts=["it is so"]'))
        assert known == {"text": "why? it is so", "collected": False}
        with pytest.raises(InvalidRequest) as refused:
            await client.submit({"runs": {"a": {"flow": "none", "if": "runs.b.output"}, "c": {"needs": "d"}}})
        assert {each.field for each in refused.value.violations} == {
            "input.fixed.runs[0].if", "input.fixed.runs[1]", "input.fixed.runs[1].needs[0]",
        }  # fmt: skip
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def check_decisions(client: Client, swarm_id: str, *, collected: bool) -> None:
    """Each run was asked for once, and each decision made once, with its reason."""
    events = (await client.events(swarm_id)).events
    asked = [event.run_requested.planned for event in events if event.HasField("run_requested")]
    assert asked == ["triage", *(["collect"] if collected else []), "answer"]
    decisions = [event.plan_decided.decision for event in events if event.HasField("plan_decided")]
    because = 'case 0 is true: runs.triage.output.verdict == "insufficient data"' if collected else "no case is true"
    assert [(each.id, each.reason) for each in decisions] == [
        ("route", because),
        *([] if collected else [("collect", f"route has not chosen it: {because}")]),
    ]
    swarm = await client.get(swarm_id)
    assert len(swarm.run_ids) == len(asked)
    states = {each.id: state_pb2.StepState.Name(each.state) for each in swarm.plan}
    assert states["collect"] == ("STEP_STATE_COMPLETED" if collected else "STEP_STATE_SKIPPED")


async def ended(stack: Stack, run_ids: list[str]) -> bool:
    """Whether Tier 2 has stored the ends of runs."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        query = "SELECT count(*) FROM orchestrator.entity WHERE id = ANY($1::uuid[]) AND ended_at IS NOT NULL"
        return bool(await connection.fetchval(query, run_ids) == len(run_ids))
    finally:
        await connection.close()
