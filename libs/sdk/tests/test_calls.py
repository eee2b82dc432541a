"""Reads and commands: rich errors become the error to act on, pages become one sequence, repeats are safe."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import tierflow
from tierflow import Budget, Client, Conflict, InvalidRequest, NotFound, ResourceExhausted, TierflowError, Unavailable
from tierflow.ids import new_id
from tierflow.times import microseconds
from tierflow_contracts.common.v1 import flow_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm
from tierflow_contracts.events.v1 import event_pb2
from tierflow_testing.fake_coordinator import FakeCoordinator, rich


async def test_rich_errors_become_errors_to_act_on(fake: FakeCoordinator, client: Client) -> None:
    """F24, F29, Lesson 34: the reason, all violations and the delay come from google.rpc details, never from the text."""
    status = grpc.StatusCode
    fake.errors["GetSwarm"] = rich(status.RESOURCE_EXHAUSTED, "Too many.", reason="TENANT_LIMIT", retry_after=1.5)
    with pytest.raises(ResourceExhausted) as limit:
        await client.get("s")
    assert (limit.value.reason, limit.value.retry_after, limit.value.code) == ("TENANT_LIMIT", 1.5, "TENANT_LIMIT")
    fake.errors["RegisterFlow"] = rich(
        status.INVALID_ARGUMENT,
        "Two problems.",
        reason="FLOW_INVALID",
        violations={"name": "is missing", "steps": "none"},
    )
    with pytest.raises(InvalidRequest, match=r"Two problems\.\n  name: is missing\n  steps: none") as invalid:
        await client.register_flow({})
    assert [v.field for v in invalid.value.violations] == ["name", "steps"]
    fake.errors["RegisterFlow"] = rich(status.ALREADY_EXISTS, "Other content.", reason="ALREADY_EXISTS")
    with pytest.raises(Conflict):
        await client.register_flow({})
    fake.errors["GetRun"] = rich(status.INTERNAL, "A defect.", reason="INTERNAL")
    with pytest.raises(TierflowError) as defect:
        await client.get_run("r")
    assert type(defect.value) is TierflowError
    with pytest.raises(NotFound):
        await client.get("unknown")


async def test_a_reason_outside_the_catalogue_falls_back_on_the_status(fake: FakeCoordinator, client: Client) -> None:
    """A12: a newer server's reason does not break an older client."""
    fake.errors["GetSwarm"] = rich(grpc.StatusCode.NOT_FOUND, "Gone.", reason="SOMETHING_NEW")
    with pytest.raises(NotFound, match="Gone"):
        await client.get("s")


async def test_calls_are_repeated_while_nobody_answers(fake: FakeCoordinator) -> None:
    """N12: a restart in between is not noticed; commands carry one id over all tries."""
    fake.answers["CancelSwarm"] = api.CancelSwarmResponse(applied=True)
    async with Client(fake.address, patience=60) as client:
        fake.errors["CancelSwarm"] = rich(grpc.StatusCode.UNAVAILABLE, "draining", reason="UNAVAILABLE")
        assert await client.cancel("s", "enough") is True
        ids = {request.command_id for _, request in fake.calls}
        assert len(fake.calls) == 2
        assert len(ids) == 1
        await fake.stop()
        pending = asyncio.create_task(client.cancel("s"))
        await asyncio.sleep(0)
        await fake.start()
        assert await pending is True


async def test_pages_are_one_sequence(fake: FakeCoordinator, client: Client) -> None:
    """Q14: filters are sent, pages are followed, a limit stops them."""
    rows = [Swarm(context=ExecutionContext(swarm_id=str(n))) for n in range(5)]
    fake.answers["ListSwarms"] = api.ListSwarmsResponse(swarms=rows, next_page_token="more")
    after = datetime(2026, 1, 2, tzinfo=UTC)
    found = [s async for s in client.list(states=["running"], flow="f", labels={"a": "b"}, after=after, limit=8)]
    assert len(found) == 8
    (_, first), (_, second) = fake.calls
    assert list(first.states) == [state_pb2.SWARM_STATE_RUNNING]
    assert (first.flow_name, dict(first.labels), first.created_after.seconds) == ("f", {"a": "b"}, 1767312000)
    assert second.page_token == "more"
    with pytest.raises(InvalidRequest, match="'asleep' is no state; there are STARTING, RUNNING"):
        client.list(states=["asleep"])


async def test_runs_are_filtered_within_the_filter(fake: FakeCoordinator, client: Client) -> None:
    """Q14: the page's place is in the filter of ListRuns."""
    fake.answers["ListRuns"] = api.ListRunsResponse()
    assert [run async for run in client.runs(swarm_id="s", states=["FAILED"], limit=5)] == []
    request = fake.calls[0][1].filter
    assert (request.swarm_id, list(request.states), request.page_size) == ("s", [state_pb2.RUN_STATE_FAILED], 5)


async def test_history_is_read_to_its_end(fake: FakeCoordinator, client: Client) -> None:
    """H5: events by pages from the journal."""
    fake.answers["ListEvents"] = api.ListEventsResponse(
        batch=event_pb2.EventBatch(events=[event_pb2.Event(seq=1), event_pb2.Event(seq=2)]), more=True
    )
    batch = await client.events("s", limit=4)
    assert len(batch.events) == 4
    assert [request.after_seq for _, request in fake.calls] == [0, 2]


async def test_flows_are_checked_and_registered(fake: FakeCoordinator, client: Client) -> None:
    """B12: flows by the same façade."""
    fake.answers["CheckFlow"] = api.CheckFlowResponse(check=flow_pb2.FlowCheck(missing_handlers=["x.y"]))
    fake.answers["RegisterFlow"] = api.RegisterFlowResponse(flow=flow_pb2.Flow(name="f", hash="0" * 64), created=True)
    assert list((await client.check_flow({"name": "f"})).missing_handlers) == ["x.y"]
    flow, created = await client.register_flow({"name": "f"})
    assert (flow.name, created) == ("f", True)
    assert fake.calls[1][1].source.json == '{"name":"f"}'


def test_durations_are_read_as_people_write_them() -> None:
    """F29: exact microseconds; what is none is refused with an example."""
    assert microseconds("1h30m") == 5_400_000_000
    assert microseconds("1.5s") == microseconds(1.5) == microseconds(timedelta(milliseconds=1500)) == 1_500_000
    for wrong in ("soon", "10", "5 s", 0, -1, timedelta(0)):
        with pytest.raises(InvalidRequest, match="timeout"):
            microseconds(wrong)


def test_budgets_are_whole_numbers() -> None:
    """A9, Lesson 7: money never passes through floating point."""
    assert Budget(credits=2**62, tokens=0).allocation().credits == 2**62
    for wrong in (1.5, -1, True, "7"):
        with pytest.raises(InvalidRequest, match=r"allocation\.credits: must be a whole number"):
            Budget(credits=wrong).allocation()  # type: ignore[arg-type]


def test_ids_are_uuids_of_version_7_and_sort_by_age() -> None:
    """A14: every request has an id of its own."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(i[14], i[19] in "89ab", len(i)) for i in ids} == {("7", True, 36)}
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)


def test_exports_are_loaded_when_used() -> None:
    """B7: importing the package loads neither gRPC nor pydantic; a module does not hide the name that it gives."""
    import subprocess
    import sys

    code = "import sys, tierflow; assert not {'grpc', 'pydantic', 'google.protobuf'} & set(sys.modules), 'eager'"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import tierflow.handler; from tierflow import handler; assert callable(handler), handler"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in tierflow.__all__:
        assert getattr(tierflow, name) is not None
    with pytest.raises(AttributeError):
        _ = tierflow.nothing


async def test_unavailable_names_the_address() -> None:
    """N12: DNS names, refused connections: one line that says where it looked and what to do."""
    async with Client("127.0.0.1:1", patience=0) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 .*tierflow dev.*TIERFLOW_ADDRESS") as caught:
            await client.queue()
    assert "\n" not in str(caught.value)
