"""Schedules with the whole engine: a coordinator killed around firings, and every command of docs/schedules.md."""

import pathlib
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner
from tierflow import Client
from tierflow_cli.main import main
from tierflow_contracts.common.v1 import state_pb2
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).resolve().parents[2]
ECHO = {
    "name": "tick",
    "version": "1",
    "input": {"at": {"type": "string"}},
    "steps": {"say": {"call": "echo", "with": {"at": "${{ input.at }}"}}},
    "output": "${{ steps.say.output }}",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Stack(tmp_path_factory.mktemp("schedules"), StackOptions(slots=8)) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, patience=60) as client:
        yield client


async def _fired(client: Client, count: int) -> bool:
    return (await client.schedules.get("tick")).counts.fired >= count


async def test_killed_around_firings(stack: Stack, client: Client) -> None:
    """Q6, K1, R8, R16: killed again and again while it fires every second, the coordinator makes exactly one swarm for each second, and loses none."""
    await client.register_flow(ECHO)
    await client.schedules.create(
        "tick", "tick", {"at": "${{ schedule.time }}"}, every=1, overlap="allow", catch_up="10m"
    )
    for kill in range(1, 4):
        await eventually(lambda kill=kill: _fired(client, 3 * kill))
        stack.coordinators[0].kill()
        stack.coordinators[0].start()
    await eventually(lambda: _fired(client, 15))
    await client.schedules.pause("tick", "enough")

    async def all_over() -> bool:
        return not (await client.schedules.get("tick")).open

    await eventually(all_over)
    schedule = await client.schedules.get("tick")
    swarms = [swarm async for swarm in client.list(labels={"tierflow.schedule": "tick"}, limit=None)]
    assert len(swarms) == schedule.counts.fired == schedule.counts.succeeded
    assert {swarm.state for swarm in swarms} == {state_pb2.SWARM_STATE_COMPLETED}
    said = sorted([(await client.get(swarm.context.swarm_id)).output.value.struct_value["at"] for swarm in swarms])
    seconds = [int(text[17:19]) + 60 * int(text[14:16]) + 3600 * int(text[11:13]) for text in said]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    assert (schedule.counts.missed, schedule.counts.skipped) == (0, 0)
    report = await audit(stack.database_url, stack.nats.url)
    assert report.problems == [], report
    assert report.counts["swarms_of_schedules"] == len(swarms)


def _commands() -> list[str]:
    """The commands in the page's blocks, continued lines joined."""
    text = (ROOT / "docs/schedules.md").read_text()
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("tierflow ")]


def test_every_command_of_the_page(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q6, Lesson 44: every command of docs/schedules.md does what it says, in its order."""
    commands = _commands()
    assert len(commands) >= 12
    monkeypatch.chdir(ROOT)
    for command in commands:
        _, *arguments = shlex.split(command)
        done = CliRunner().invoke(main, arguments, env={"TIERFLOW_ADDRESS": stack.address})
        assert done.exit_code == 0, (command, done.output)


async def test_the_client(client: Client) -> None:
    """Q6, Q14: what the page says of the client: make, look, change, fire, follow, delete."""
    await client.register_flow(ECHO)
    made = await client.schedules.create(
        "client", "tick", {"at": "${{ schedule.date }}"}, cron="@daily", labels={"team": "a"}, timeout="5m"
    )
    assert made.version == 1
    changed = await client.schedules.update("client", cron=["0 3 * * *"], jitter="10m", description="for tests")
    assert changed.version == 2
    assert changed.spec.swarm == made.spec.swarm
    assert len(await client.schedules.times("client", 4)) == 4
    firing = await client.schedules.trigger("client")
    output = await client.handle(firing.swarm_id).result()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", output["at"])
    assert (await client.get(firing.swarm_id)).context.labels == {"team": "a", "tierflow.schedule": "client"}
    assert "client" in [each.name async for each in client.schedules.list()]
    replayed = await client.replay(firing.swarm_id)
    assert await client.handle(replayed).result() == output
    assert await client.schedules.delete("client")
    assert [each.name async for each in client.schedules.list() if each.name == "client"] == []
