"""The blackboard and the context over the public API, with a real Postgres: by key and version, large values apart, from any replica, over crashes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import asyncpg
import grpc
import pytest
from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.common.v1 import execution_pb2, failure_pb2, payload_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_runtime.errors import failure_of
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]
LARGE = json.dumps({"text": "the quick brown fox " * 20_000})


def put(key: str, text: str, expected: int | None = None) -> bb.BlackboardChange:
    return bb.BlackboardChange(key=key, value=payload_pb2.Payload(json=text), expected_version=expected)


async def write(at: Any, swarm_id: str, *changes: bb.BlackboardChange, **more: Any) -> int:
    request = api.WriteBlackboardRequest(swarm_id=swarm_id, changes=changes, **more)
    return int((await at.stub.WriteBlackboard(request)).revision)


async def read(at: Any, swarm_id: str, *keys: str, packed: bool = True) -> dict[str, bb.BlackboardEntry]:
    request = api.ReadBlackboardRequest(swarm_id=swarm_id, keys=keys, accept_compressed=packed)
    return {entry.key: entry for entry in (await at.stub.ReadBlackboard(request)).entries}


def text_of(entry: bb.BlackboardEntry) -> str:
    return zlib.decompress(entry.compressed).decode() if entry.compressed else entry.value.json


@pytest.fixture
async def swarm_id(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> str:
    """A swarm that works."""
    tier2.mode = "accept"
    return str((await tier1.submit(request_of())).swarm_id)


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), failure_of(raised.value)


async def test_keys_are_written_and_read_by_version(tier1: Any, swarm_id: str) -> None:
    """I11: one key, several keys, keys by prefix without their values; a write from a version that is past is refused with the field's name."""
    first = await write(tier1, swarm_id, put("facts/a", '{"n": 1}', 0), put("facts/b", "2"))
    assert await write(tier1, swarm_id, put("facts/a", '{"n": 3}', first)) == first + 1
    found = await read(tier1, swarm_id, "facts/a", "facts/b", "nothing")
    assert {key: (text_of(entry), entry.version) for key, entry in found.items()} == {
        "facts/a": ('{"n": 3}', first + 1),
        "facts/b": ("2", first),
    }
    people = await read(tier1, swarm_id, "facts/a", packed=False)
    assert people["facts/a"].value.value.struct_value.fields["n"].number_value == 3
    await write(tier1, swarm_id, put("other", "1"))
    page = await tier1.stub.ListBlackboard(api.ListBlackboardRequest(swarm_id=swarm_id, prefix="facts/", page_size=1))
    assert [(entry.key, entry.HasField("value"), entry.actor) for entry in page.entries] == [("facts/a", False, "dev")]
    rest = await tier1.stub.ListBlackboard(
        api.ListBlackboardRequest(swarm_id=swarm_id, prefix="facts/", page_token=page.next_page_token)
    )
    assert [entry.key for entry in rest.entries] == ["facts/b"]
    assert rest.next_page_token == ""
    code, failure = await refusal(write(tier1, swarm_id, put("facts/a", "0", first)))
    assert (code, failure.code) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    assert [each.field for each in failure.violations] == ["changes[0].expected_version"]


async def test_concurrent_writers_lose_nothing(tier1: Any, swarm_id: str) -> None:
    """I11: many writers that each add to one key, from the version that they read, lose no addition."""
    await write(tier1, swarm_id, put("n", "0"))

    async def add() -> None:
        while True:
            entry = (await read(tier1, swarm_id, "n"))["n"]
            try:
                await write(tier1, swarm_id, put("n", str(int(text_of(entry)) + 1), entry.version))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED:
                    raise
            else:
                return

    await asyncio.gather(*(add() for _ in range(12)))
    assert text_of((await read(tier1, swarm_id, "n"))["n"]) == "12"


async def test_large_values_are_compressed_and_apart(tier1: Any, swarm_id: str, tier1_database: str) -> None:
    """I9, I10: a large value is not in the journal nor in memory; it is kept and travels compressed, and comes back as it was, either way it is asked for."""
    await write(tier1, swarm_id, put("text", LARGE), put("small", '"x"'))
    connection = await asyncpg.connect(tier1_database)
    journal = await connection.fetchval("SELECT sum(length(data)) FROM coordinator.journal")
    kept = await connection.fetchval("SELECT sum(length(data)) FROM coordinator.blob")
    await connection.close()
    assert journal < 8 * 1024
    assert kept < len(LARGE) / 20
    packed = (await read(tier1, swarm_id, "text"))["text"]
    assert packed.ByteSize() < len(LARGE) / 20
    assert text_of(packed) == LARGE
    assert packed.sha256 == hashlib.sha256(LARGE.encode()).hexdigest()
    plain = (await read(tier1, swarm_id, "text", packed=False))["text"]
    assert plain.value.value.struct_value.fields["text"].string_value == json.loads(LARGE)["text"]
    change = bb.BlackboardChange(key="again", compressed=zlib.compress(LARGE.encode()))
    await write(tier1, swarm_id, change)
    assert text_of((await read(tier1, swarm_id, "again"))["again"]) == LARGE
    noise = json.dumps("".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000)))
    await write(tier1, swarm_id, put("noise", noise))
    assert text_of((await read(tier1, swarm_id, "noise"))["noise"]) == noise


async def test_answers_have_a_bound(tier1: Any, swarm_id: str) -> None:
    """I8: values beyond what one answer holds are left out, which it says; each can be had by itself."""
    noise = random.Random(2)
    texts = {f"k{i}": json.dumps(noise.randbytes(400_000).hex()) for i in range(8)}
    for key, text in texts.items():
        await write(tier1, swarm_id, put(key, text))
    found = await read(tier1, swarm_id, *texts)
    left = [key for key, entry in found.items() if entry.left_out]
    assert 0 < len(left) < len(texts)
    assert text_of((await read(tier1, swarm_id, left[0]))[left[0]]) == texts[left[0]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("", "1"), "changes[0].key"),
        (put("a b", "1"), "changes[0].key"),
        (put("a", "{"), "changes[0].value.json"),
        (put("a", '"\\u0000"'), "changes[0].value.json"),
        (bb.BlackboardChange(key="a"), "changes[0].value"),
        (bb.BlackboardChange(key="a", delete=True, value=payload_pb2.Payload(json="1")), "changes[0].delete"),
        (bb.BlackboardChange(key="a", compressed=b"junk"), "changes[0].compressed"),
        (bb.BlackboardChange(key="a", compressed=zlib.compress(b" " * 2_000_000)), "changes[0].compressed"),
        (
            bb.BlackboardChange(key="a", value=payload_pb2.Payload(ref=payload_pb2.BlobRef(sha256="ab" * 32))),
            "changes[0].value.ref",
        ),
    ],
)
async def test_what_is_wrong_is_named(tier1: Any, swarm_id: str, change: bb.BlackboardChange, field: str) -> None:
    """A5, I11: what breaks the contract is refused with its field; nothing is written."""
    code, failure = await refusal(write(tier1, swarm_id, change, put("fine", "1")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in [each.field for each in failure.violations]
    assert await read(tier1, swarm_id, "fine") == {}


async def test_one_context_updated_by_its_version(tier1: Any, swarm_id: str, tier1_database: str) -> None:
    """I7, I14, B20: there is one stored context; a change needs the version it was made from, is audited with who and why, and is in no table of its own."""
    shown = (await tier1.stub.GetContext(api.GetContextRequest(swarm_id=swarm_id))).context
    assert (shown.version, shown.revision, shown.adaptive, shown.policy.json) == (1, 1, False, "{}")
    changes = bb.ContextChanges(
        goal="write it down",
        limits=execution_pb2.ResourceAllocation(credits=9),
        policy=payload_pb2.Payload(json='{"tone": "dry"}'),
        adaptive=True,
    )
    request = api.UpdateContextRequest(swarm_id=swarm_id, expected_version=1, changes=changes, reason="asked for")
    after = (await tier1.stub.UpdateContext(request)).context
    assert (after.version, after.goal, after.limits.credits, after.adaptive) == (2, "write it down", 9, True)
    code, failure = await refusal(tier1.stub.UpdateContext(request))
    assert (code, failure.violations[0].field) == (grpc.StatusCode.ABORTED, "expected_version")
    code, failure = await refusal(tier1.stub.UpdateContext(api.UpdateContextRequest(swarm_id=swarm_id)))
    assert (code, failure.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "expected_version")
    history = await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=swarm_id))
    told = [event.context_updated for event in history.batch.events if event.WhichOneof("payload") == "context_updated"]
    assert [(each.actor, each.reason, sorted(each.changed)) for each in told] == [
        ("dev", "asked for", ["adaptive", "goal", "limits", "policy"])
    ]
    connection = await asyncpg.connect(tier1_database)
    tables = await connection.fetch(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'coordinator'"
    )
    await connection.close()
    names = {row["table_name"] for row in tables}
    assert not [name for name in names if "context" in name or "blackboard" in name]


async def test_it_is_the_same_from_every_replica_and_after_a_crash(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """I7, I11, I6, R14: any replica reads and writes; after its owner has died everything is there, and the same write again is the same write."""
    quick = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5}
    tier1, other = [await make_coordinator(name=name, **quick) for name in ("a", "b")]
    tier2.mode = "accept"
    swarm_id = (await tier1.submit(request_of())).swarm_id
    once = await write(tier1, swarm_id, put("a", LARGE), put("b", "1"), command_id="w1")
    assert await write(other, swarm_id, put("a", LARGE), put("b", "1"), command_id="w1") == once
    assert await write(other, swarm_id, put("b", "2", once)) == once + 1
    assert text_of((await read(tier1, swarm_id, "b"))["b"]) == "2"
    await tier1.stop(graceful=False)
    assert text_of((await read(other, swarm_id, "a"))["a"]) == LARGE
    assert await write(other, swarm_id, put("b", "3", once + 1)) == once + 2
    assert await write(other, swarm_id, put("b", "1"), command_id="w1") == once


async def test_history_of_a_key(tier1: Any, swarm_id: str) -> None:
    """I11, I15: what a key was, write by write, with who wrote it; removed and restored as well."""
    await write(tier1, swarm_id, put("a", "1"))
    await tier1.stub.CheckpointContext(api.CheckpointContextRequest(swarm_id=swarm_id, name="one"))
    await write(tier1, swarm_id, put("a", "2"), put("b", "1"))
    await write(tier1, swarm_id, bb.BlackboardChange(key="a", delete=True))
    await tier1.stub.RestoreContext(api.RestoreContextRequest(swarm_id=swarm_id, name="one"))
    wanted = api.ListBlackboardHistoryRequest(swarm_id=swarm_id, key="a", include_values=True)
    found = (await tier1.stub.ListBlackboardHistory(wanted)).writes
    assert [(each.version, each.deleted, each.value.value.number_value) for each in found] == [
        (5, False, 1.0),
        (4, True, 0.0),
        (3, False, 2.0),
        (2, False, 1.0),
    ]
    wanted.limit, wanted.before_version = 1, 4
    older = await tier1.stub.ListBlackboardHistory(wanted)
    assert ([each.version for each in older.writes], older.more) == ([3], True)


async def test_going_back_gives_the_state_of_the_checkpoint(tier1: Any, make_coordinator: Any, swarm_id: str) -> None:
    """K5: context and blackboard are as they were, which their hash shows, in a new revision; also after a crash between."""
    await write(tier1, swarm_id, put("a", LARGE), put("b", "1"))
    request = api.CheckpointContextRequest(swarm_id=swarm_id, name="before")
    made = (await tier1.stub.CheckpointContext(request)).checkpoint
    await write(tier1, swarm_id, put("a", '"gone"'), put("c", "1"))
    changes = bb.ContextChanges(goal="another")
    await tier1.stub.UpdateContext(api.UpdateContextRequest(swarm_id=swarm_id, expected_version=1, changes=changes))
    await tier1.stop(graceful=False)
    other = await make_coordinator(name="a")
    restored = await other.stub.RestoreContext(
        api.RestoreContextRequest(swarm_id=swarm_id, name="before", reason="wrong")
    )
    assert (restored.checkpoint.hash, restored.keys_changed) == (made.hash, 1)
    found = await read(other, swarm_id, "a", "b", "c")
    assert (text_of(found["a"]), text_of(found["b"]), set(found)) == (LARGE, "1", {"a", "b"})
    assert found["a"].version == restored.revision
    assert (await other.stub.GetContext(api.GetContextRequest(swarm_id=swarm_id))).context.goal == ""
    again = (
        await other.stub.CheckpointContext(api.CheckpointContextRequest(swarm_id=swarm_id, name="after"))
    ).checkpoint
    assert again.hash == made.hash
    code, failure = await refusal(other.stub.RestoreContext(api.RestoreContextRequest(swarm_id=swarm_id, name="none")))
    assert (code, failure.code) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_an_ended_swarm_can_be_read(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests, swarm_id: str
) -> None:
    """I11: what a swarm shared can be read after its end, and not be changed any more; another user's cannot be seen at all."""
    await write(tier1, swarm_id, put("a", "1"))
    await tier2.finish((await tier1.get(swarm_id)).run_ids[0])
    await tier1.wait(swarm_id)
    assert text_of((await read(tier1, swarm_id, "a"))["a"]) == "1"
    code, failure = await refusal(write(tier1, swarm_id, put("a", "2")))
    assert (code, failure.code) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
    stranger = (("tierflow-user", "eve"),)
    request = api.ReadBlackboardRequest(swarm_id=swarm_id, keys=["a"])
    assert (await refusal(tier1.stub.ReadBlackboard(request, metadata=stranger)))[0] is grpc.StatusCode.NOT_FOUND


async def test_attempts_ask_by_way_of_their_orchestrator(tier1: Any, tier2: FakeOrchestrator, swarm_id: str) -> None:
    """I8, I11, B20, L4, B11: what comes up on the stream is answered on it: for the swarm of the attempt's own user, as that user and step; what is refused says why."""

    async def ask(call_id: str, user: str = "dev", tenant: str = "default", **call: Any) -> bb.ContextAnswer:
        author = bb.ContextAuthor(run_id="r", step_id="think", tenant=tenant, user_id=user)
        tier2.send(context_calls=[bb.ContextCall(call_id=call_id, swarm_id=swarm_id, author=author, **call)])
        await eventually(lambda: call_id in tier2.context_answers)
        return tier2.context_answers[call_id]

    written = await ask("1", write=bb.BlackboardWrite(changes=[put("a", "1", 0)], command_id="w"))
    assert written.written.revision == 2
    assert (await ask("2", write=bb.BlackboardWrite(changes=[put("a", "1", 0)], command_id="w"))).written.revision == 2
    entry = (await ask("3", read=bb.BlackboardRead(keys=["a"]))).entries.entries[0]
    assert (text_of(entry), entry.actor, entry.run_id, entry.step_id) == ("1", "dev", "r", "think")
    assert [each.key for each in (await ask("4", list=bb.BlackboardList())).entries.entries] == ["a"]
    context = (await ask("5", read_context=bb.ContextRead())).context
    changes = bb.ContextChanges(policy=payload_pb2.Payload(json='{"tone": "dry"}'))
    update = bb.ContextUpdate(expected_version=context.version, changes=changes)
    refused = {
        "6": await ask("6", update_context=update),
        "7": await ask("7", user="eve", read=bb.BlackboardRead(keys=["a"])),
        "8": await ask("8", tenant="other", read=bb.BlackboardRead(keys=["a"])),
        "9": await ask("9"),
        "10": await ask("10", read=bb.BlackboardRead(keys=["not a key"])),
    }
    names = {call: failure_pb2.ErrorCode.Name(answer.failure.code) for call, answer in refused.items()}
    assert {call: name.removeprefix("ERROR_CODE_") for call, name in names.items()} == {
        "6": "PERMISSION_DENIED",
        "7": "NOT_FOUND",
        "8": "NOT_FOUND",
        "9": "UNSUPPORTED",
        "10": "INVALID_REQUEST",
    }


async def test_limits_are_those_of_the_next_run(tier1: Any, tier2: FakeOrchestrator, swarm_id: str) -> None:
    """I7: limits that were changed while a run worked are what the next run is asked for with."""
    limits = execution_pb2.ResourceAllocation(credits=77)
    changes = bb.ContextChanges(limits=limits)
    await tier1.stub.UpdateContext(api.UpdateContextRequest(swarm_id=swarm_id, expected_version=1, changes=changes))
    run_id = (await tier1.get(swarm_id)).run_ids[0]
    await tier2.finish(run_id, state="FAILED")
    await tier1.wait(swarm_id)
    await tier1.stub.RetrySwarm(api.RetrySwarmRequest(swarm_id=swarm_id))
    await eventually(lambda: len([each for each in tier2.requests if each.context.generation == 2]) > 0)
    assert tier2.requests[-1].allocation.credits == 77
