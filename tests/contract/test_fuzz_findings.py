"""What fuzzing has found, each as the message that did it (`make fuzz` prints them so), with the answer that it must have."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.message_factory import GetMessageClass
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.flow_pb2 import FlowRef, FlowSource
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.requests import run_request
from tierflow_runtime.values import Allocation, Context, Options
from tierflow_testing.fuzzing.calls import Case, Outcome, make_call
from tierflow_testing.fuzzing.cases import methods
from tierflow_testing.stack import Stack

FLOW = 'name: found\nversion: "1"\nsteps:\n  a: {call: contract.echo, with: {n: "${{ input }}"}}\n'
NOBODY = 'name: found-nobody\nversion: "1"\nsteps:\n  a: {call: nobody.offers.this}\n'
NOT_UTF8 = b"\x0a\x04\xc3\x28ab"

REFUSED = [
    ("coordinator", "ListSwarms", 'labels {key: "a\\000" value: "b"}', "labels[a\0]"),
    ("coordinator", "ListSwarms", "created_after {seconds: 9223372036854775807}", "created_after"),
    ("coordinator", "WaitSwarm", 'swarm_id: "ID" timeout {seconds: 1 nanos: -2147483648}', "timeout"),
    ("coordinator", "ListRuns", 'filter {labels {key: "a" value: "\\000"}}', "labels[a]"),
    ("coordinator", "ListRuns", "filter {created_before {seconds: 315576000001}}", "created_before"),
    ("coordinator", "ListFlows", 'name: "a\\000b"', "name"),
    ("coordinator", "GetFlow", 'flow {name: "\\000"}', "flow.name"),
    ("orchestrator", "ListRuns", "states: 77", "states[0]"),
    ("orchestrator", "ListRuns", 'swarm_id: "{01890000-0000-7000-8000-000000000000}"', "swarm_id"),
    ("orchestrator", "ListSteps", 'run_id: "ID" page_token: "' + "9" * 5000 + '"', "page_token"),
    ("orchestrator", "ListSteps", 'run_id: "ID" page_token: "²"', "page_token"),
    ("orchestrator", "WaitRun", 'run_id: "ID" timeout {seconds: -1}', "timeout"),
    ("orchestrator", "CommandRun", 'run_id: "ID" command: RUN_COMMAND_PAUSE reason: "a\\000"', "reason"),
    ("orchestrator", "GetRun", 'run_id: "01A1F8BD-6E5F-7EAF-A245-92F251509E99"', "run_id"),
    ("orchestrator", "ListFlows", 'page_token: "a\\nb\\000"', "page_token"),
]


async def call(system: Stack, tier: str, method: str, frames: Sequence[bytes], *, half_close: bool = True) -> Outcome:
    """A call of any kind with coded messages."""
    found = next(each for where, each in methods() if where == tier and each.name == method)
    async with open_channel(getattr(system, f"{tier}s")[0].address) as channel:
        return await make_call(channel, Case("found", found, frames, half_close=half_close))


def coded(tier: str, method: str, text: str) -> bytes:
    """A message as fuzzing shows it, coded."""
    found = next(each for where, each in methods() if where == tier and each.name == method)
    message = text_format.Parse(text.replace("ID", uuid7()), GetMessageClass(found.input_type)())
    return message.SerializeToString()


@pytest.mark.parametrize(("tier", "method", "text", "field"), REFUSED, ids=lambda each: str(each)[:30])
async def test_refused_by_name(system: Stack, tier: str, method: str, text: str, field: str) -> None:
    """A5, F22, L13, Lesson 28: what the database would stumble over is refused at the edge, by the field's name; these were INTERNAL."""
    outcome = await call(system, tier, method, [coded(tier, method, text)])
    assert outcome.failure is not None
    assert (outcome.status, outcome.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [violation.field for violation in outcome.failure.violations] == [field]
    assert outcome.failure.tier == (2 if tier == "orchestrator" or method.endswith(("Runs", "Flow", "Flows")) else 1)


@pytest.mark.parametrize(("tier", "method"), [("coordinator", "ListEvents"), ("orchestrator", "ListRunEvents")])
async def test_a_place_beyond_any_journal(system: Stack, tier: str, method: str) -> None:
    """F22: sequence numbers of the contract go further than the database's; there is nothing after them, which is no defect."""
    async with open_channel(system.address) as channel:
        submit = next(each for _, each in methods() if each.name == "SubmitSwarm")
        request = GetMessageClass(submit.input_type)()
        request.input.flow.flow.source.yaml = FLOW
        made = await make_call(channel, Case("found", submit, [request.SerializeToString()]))
    (answer,) = made.answers
    ids = f'swarm_id: "{answer.swarm_id}"' if tier == "coordinator" else f'run_id: "{answer.run_id}"'
    await asyncio.wait_for(taken(system, answer.run_id), 60)
    outcome = await call(system, tier, method, [coded(tier, method, f"{ids} after_seq: 9223372036854775808")])
    assert outcome.status == "OK"
    assert not outcome.answers[0].batch.events


async def taken(system: Stack, run_id: str) -> None:
    """Returns when Tier 2 knows the run."""
    while (
        await call(system, "orchestrator", "GetRun", [pb.GetRunRequest(run_id=run_id).SerializeToString()])
    ).status != "OK":
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "frame",
    [NOT_UTF8, b"\xff", b"\x0b" * 150, b"\x0a\xff\xff\xff\xff\x0f"],
    ids=["not UTF-8", "cut off", "groups", "length"],
)
@pytest.mark.parametrize(
    ("tier", "method"),
    [
        ("coordinator", "SubmitSwarm"), ("coordinator", "WatchSwarm"), ("coordinator", "ExecuteSwarms"), ("orchestrator", "StartRun"),
        ("orchestrator", "ExecuteRuns"), ("orchestrator", "PutBlob"), ("orchestrator", "WatchRun"), ("executor", "ExecuteStep"), ("executor", "ExecuteSteps"),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_message(system: Stack, tier: str, method: str, frame: bytes) -> None:
    """A5, F22: they are the caller's mistake, INVALID_ARGUMENT with a reason; they were UNKNOWN with a stack in the log, and streams ended as if all were well."""
    hello = {"ExecuteRuns": b"\x0a\x05\x0a\x03abc", "ExecuteSteps": b"\x0a\x26\x0a\x24" + uuid7().encode()}
    frames = [hello[method], frame] if method in hello else [frame]
    outcome = await call(system, tier, method, frames)
    assert (outcome.status, outcome.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "cannot be read" in outcome.details


def run(source: str, **context: object) -> bytes:
    """A request for a run, coded."""
    about = Context(tenant="default", user_id="dev", swarm_id=uuid7(), run_id=uuid7())
    request = run_request(
        about, FlowRef(source=FlowSource(yaml=source)), input="{}", allocation=Allocation(), options=Options()
    )
    for name, value in context.items():
        setattr(request.context, name, value)
    return request.SerializeToString()


async def test_a_generation_that_cannot_be_stored(system: Stack) -> None:
    """A5: it was INTERNAL after the run had been decided; now it is refused before."""
    outcome = await call(system, "orchestrator", "StartRun", [run(FLOW, generation=2**31)])
    assert outcome.failure is not None
    assert [violation.field for violation in outcome.failure.violations] == ["context.generation"]


async def test_a_refused_run_leaves_no_flow(system: Stack) -> None:
    """A5: a flow brought along with a run that is refused was stored all the same."""
    outcome = await call(system, "orchestrator", "StartRun", [run(NOBODY)])
    assert outcome.reason == "HANDLER_NOT_FOUND"
    connection = await asyncpg.connect(system.database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM orchestrator.flow WHERE name = 'found-nobody'") == 0
    finally:
        await connection.close()


async def test_a_command_of_a_peer_that_cannot_be_read(system: Stack) -> None:
    """F22, R14: junk among forwarded commands has an answer of its own; it was INTERNAL for all of them."""
    text = 'commands {entity_id: "x" command: "\\377"} commands {entity_id: "x" command: "1"}'
    for tier in ("coordinator", "orchestrator"):
        outcome = await call(system, tier, "Forward", [coded(tier, "Forward", text)])
        assert outcome.status == "OK"
        assert [reply.HasField("failure") for reply in outcome.answers[0].replies] == [True, True]


async def test_junk_acknowledgements_condemn_no_run(system: Stack) -> None:
    """F27, R5: an acknowledgement that names nothing is dropped; the runs that shared its commit were quarantined for it."""
    ids = [uuid7() for _ in range(8)]
    junk = [
        pb.RunAcknowledgement(run_id="NaN", generation=1),
        pb.RunAcknowledgement(run_id=uuid7(), generation=2**32 - 1),
    ]
    async with open_channel(system.orchestrators[0].address) as channel:
        stub = channel.stream_stream(
            "/tierflow.orchestrator.v1.OrchestratorService/ExecuteRuns",
            request_serializer=pb.ExecuteRunsRequest.SerializeToString,
            response_deserializer=pb.ExecuteRunsResponse.FromString,
        )

        async def sending() -> AsyncIterator[pb.ExecuteRunsRequest]:
            yield pb.ExecuteRunsRequest(hello=pb.CoordinatorHello(instance_id=uuid7(), name="found"))
            for run_id in ids:
                request = pb.ExecuteRunsRequest(acknowledge=junk)
                request.execute.add().MergeFromString(run(FLOW, run_id=run_id))
                yield request
            await asyncio.Event().wait()  # until the call ends

        ended: dict[str, int] = {}
        stream = stub(sending(), timeout=60)
        try:
            async for frame in stream:
                ended.update(
                    {result.context.run_id: result.state for result in frame.results if result.context.run_id in ids}
                )
                if len(ended) == len(ids):
                    break
        except grpc.aio.AioRpcError as error:
            pytest.fail(f"{error.code().name}, ended: {len(ended)} of {len(ids)}")
        stream.cancel()
    assert set(ended.values()) == {state_pb2.RUN_STATE_COMPLETED}
