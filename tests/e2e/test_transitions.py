"""Every change of state leaves one fact: in the journal, on the stream, in the log."""

import asyncio
import pathlib
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client, Event
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_testing.auditing.stream import digest, read_stream
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

RUNS = 200
KINDS = {
    "run_state_changed": state_pb2.RunState, "run_ended": state_pb2.RunState, "swarm_state_changed": state_pb2.SwarmState,
    "swarm_ended": state_pb2.SwarmState,
}  # fmt: skip
OUTCOMES = (
    "completes",
    "fails",
    "is cancelled",
    "is paused and resumed",
    "is paused and cancelled",
    "is stopped",
    "is retried",
)


def _flow(outcome: str, chance: random.Random) -> dict[str, Any]:
    steps: dict[str, Any] = {"first": {"call": "echo", "with": {"n": chance.randrange(9)}}}
    if outcome == "fails":
        steps["second"] = {
            "call": "sleep",
            "needs": ["first"],
            "with": {"seconds": "soon"},
            "retry": {"max_attempts": 1},
        }
    elif outcome == "is retried":
        retry = {"max_attempts": 2, "initial_delay": "10ms"}
        steps["second"] = {
            "call": "sleep",
            "needs": ["first"],
            "with": {"seconds": 5},
            "timeout": "100ms",
            "retry": retry,
        }
    elif outcome != "completes":
        steps["second"] = {"call": "t.gate", "needs": ["first"], "with": {"path": "${{ input.gate }}"}}
    return {"name": outcome.replace(" ", "-"), "version": str(chance.random()), "steps": steps}


async def _one(
    client: Client, outcome: str, chance: random.Random, slots: asyncio.Semaphore, gate: pathlib.Path
) -> tuple[str, str]:
    """One run with an outcome; its second step ends once it has been told all that it is told."""
    async with slots:
        handle = await client.submit(_flow(outcome, chance), {"gate": str(gate)})
        if outcome.startswith("is ") and outcome != "is retried":
            await _running(client, handle.id)
            if "paused" in outcome:
                await handle.pause("a look at it")
            if "resumed" in outcome:
                await handle.resume()
            elif "stopped" in outcome:
                await client.stop(handle.id, "no more of it")
            else:
                await handle.cancel("not wanted")
        gate.touch()  # noqa: ASYNC240 - one short write
        await handle.wait(60)
        return handle.id, handle.run_id


async def _running(client: Client, swarm_id: str) -> None:
    async for event in client.watch(swarm_id):
        if isinstance(event, Event) and event.type == "step_started":
            return


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    environment = {"TIERFLOW_LOG_LEVEL": "debug"}
    return make_stack(
        handlers=["tierflow_executor.handlers", "gate_handlers"],
        environment=environment,
        executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )


async def test_each_change_is_one_fact(stack: Stack, tmp_path: pathlib.Path) -> None:
    """C4, C1, C11, H4: for 200 random runs history, stream and log tell the same changes, once each and in order: from, to, when, why and by whom."""
    chance = random.Random(4)
    async with Client(stack.address, patience=60, user="ann") as client:
        slots = asyncio.Semaphore(25)
        outcomes = [chance.choice(OUTCOMES) for _ in range(RUNS)]
        made = await asyncio.gather(
            *(_one(client, outcome, chance, slots, tmp_path / f"{number}") for number, outcome in enumerate(outcomes))
        )
        facts = {}
        for swarm_id, run_id in made:
            swarm, run = await asyncio.gather(client.events(swarm_id), client.events(swarm_id, run_id))
            facts[swarm_id], facts[run_id] = _facts(swarm), _facts(run)
            stored = await client.get(swarm_id)
            assert facts[swarm_id][-1][1] == state_pb2.SwarmState.Name(stored.state).removeprefix("SWARM_STATE_")
            stored_run = await client.get_run(run_id)
            assert facts[run_id][-1][1] == state_pb2.RunState.Name(stored_run.state).removeprefix("RUN_STATE_")
            for batch in (swarm, run):
                _check_chain(batch)
        digests = {
            entity_id: {event.seq: digest(event) for event in batch.events}
            for swarm_id, run_id in made
            for entity_id, batch in (
                (swarm_id, await client.events(swarm_id)),
                (run_id, await client.events(swarm_id, run_id)),
            )
        }
    total = sum(map(len, facts.values()))
    assert total >= 4 * RUNS

    async def published() -> bool:
        seen = (await read_stream(stack.nats.url)).seen
        return all(seen.get(entity_id) == events for entity_id, events in digests.items())

    await eventually(published, interval=0.5)
    assert _logged(stack, facts.keys()) == facts


def _facts(batch: event_pb2.EventBatch) -> list[tuple[str, str]]:
    """From and to of each change, in order."""
    found = []
    for event in batch.events:
        kind = event.WhichOneof("payload") or ""
        if kind in KINDS:
            change = getattr(event, kind)
            names = [KINDS[kind].Name(state).split("_STATE_")[1] for state in (getattr(change, "from"), change.to)]
            found.append((names[0], names[1]))
    return found


def _check_chain(batch: event_pb2.EventBatch) -> None:
    steered = ("PAUSING", "PAUSED", "CANCELLING", "STOPPING", "STOPPED")
    before: tuple[str, int] | None = None
    for event in batch.events:
        kind = event.WhichOneof("payload") or ""
        if kind not in KINDS:
            continue
        change = getattr(event, kind)
        ((left, reached),) = _facts(event_pb2.EventBatch(events=[event]))
        time = event.time.ToMicroseconds()
        assert left != reached
        assert before is None or (before[0] == left and before[1] <= time), batch
        before = (reached, time)
        if reached in steered and kind != "run_ended":
            assert (change.reason, change.actor) in (
                ("a look at it", "ann"), ("no more of it", "ann"), ("not wanted", "ann"),
            ), (kind, reached, change.reason, change.actor)  # fmt: skip


def _logged(stack: Stack, wanted: Any) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for service in (*stack.coordinators, *stack.orchestrators):
        for line in service.lines():
            if line["event"] in ("run changed", "swarm changed"):
                entity_id = line["run_id"] if line["event"] == "run changed" else line["swarm_id"]
                assert line["trace_id"]
                assert line["user"] == "ann"
                if entity_id in wanted:
                    found[entity_id].append((line["from"], line["to"]))
    return dict(found)
