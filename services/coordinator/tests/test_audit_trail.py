"""Every call that may change something leaves an entry (I14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.coordinator.v1 import audit_pb2, swarm_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_coordinator.auditing import READS, SUBMISSIONS
from tierflow_testing.fake_orchestrator import FakeOrchestrator

SERVICE = api.DESCRIPTOR.services_by_name["CoordinatorService"]
Requests = Callable[..., swarm_pb2.SwarmExecutionRequest]
ADA = (("tierflow-tenant", "acme"), ("tierflow-user", "ada"))
EVE = (("tierflow-tenant", "acme"), ("tierflow-user", "eve"))


def filled(message: Message, values: dict[str, str]) -> Message:
    """The message with these values in its fields of these names."""
    for field in message.DESCRIPTOR.fields:
        if field.name in values and field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, values[field.name])
    return message


async def ended(call: Any) -> str:
    """Name of the status with which a call ended."""
    return str((await call.code()).name)


async def trail(tier1: Any, metadata: Any = ADA, **wanted: Any) -> list[audit_pb2.AuditEntry]:
    answer = await tier1.stub.ListAudit(audit_pb2.ListAuditRequest(**wanted), metadata=metadata)
    return list(answer.entries)


def test_reads_are_named_as_reads() -> None:
    """I14: every call that needs no entry is there, and changes nothing by its name."""
    reading = ("Get", "List", "Wait", "Watch", "Query", "Explain", "Verify", "Check", "Read")
    assert [name for name in READS if not name.startswith(reading)] == []
    assert {method.name for method in SERVICE.methods} >= READS | SUBMISSIONS


async def test_every_rpc_that_changes_something_leaves_an_entry(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """I14: all methods of the service's descriptor but reads and submissions: who, which, about what, why, and what came of it, whether it was let through or not."""
    tier2.mode = "accept"
    made = await tier1.stub.SubmitSwarm(request_of(), metadata=ADA)
    values = {"swarm_id": made.swarm_id, "run_id": made.run_id, "reason": "as asked", "command_id": "c-1"}
    changing = [one for one in SERVICE.methods if one.name not in READS | SUBMISSIONS]
    assert len(changing) >= 28
    before = len(await trail(tier1))
    codes = {}
    for method in changing:
        assert not method.client_streaming
        assert not method.server_streaming, f"{method.name}: streams are not audited: give them a way"
        request: Any = filled(method.input_type._concrete_class(), values)
        codes[method.name] = await ended(getattr(tier1.stub, method.name)(request, metadata=ADA, timeout=20))
    assert "OK" in codes.values()
    assert "INTERNAL" not in codes.values(), codes
    entries = await trail(tier1, page_size=1000)
    assert len(entries) == before + len(changing)
    by_action = {entry.action: entry for entry in entries}
    assert by_action.keys() == {method.name for method in changing} | {"SubmitSwarm"}
    for method in changing:
        entry = by_action[method.name]
        assert entry.user_id == "ada"
        assert (entry.code == "OK") == (codes[method.name] == "OK"), (entry.code, codes[method.name])
        assert entry.code
        fields = method.input_type.fields_by_name
        if "swarm_id" in fields:
            assert entry.subject == made.swarm_id
        assert entry.reason == ("as asked" if "reason" in fields else "")
    assert [entry.id for entry in entries] == sorted((entry.id for entry in entries), reverse=True)


async def test_submissions_are_listed_and_cost_nothing(tier1: Any, request_of: Requests) -> None:
    """I14: however they came, they are in the trail by the swarms' own rows; no entry is written for them."""
    one = await tier1.stub.SubmitSwarm(request_of(), metadata=ADA)
    many = await tier1.stub.SubmitSwarms(api.SubmitSwarmsRequest(requests=[request_of(), request_of()]), metadata=ADA)
    ids = {one.swarm_id, *(answer.accepted.swarm_id for answer in many.answers)}
    entries = await trail(tier1)
    assert {entry.subject for entry in entries} == ids
    assert {(entry.action, entry.code, entry.user_id, entry.result) for entry in entries} == {
        ("SubmitSwarm", "OK", "ada", "greet@1")
    }
    stored = await tier1.coordinator.durable.database.pool()
    assert await stored.fetchval("SELECT count(*) FROM audit") == 0


async def test_the_trail_is_filtered_paged_and_ones_own(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """I14, L4: by subject, call and time, page by page; a refusal is there with its code; nobody sees what others did; a call that only validates leaves nothing."""
    tier2.mode = "accept"
    made = await tier1.stub.SubmitSwarm(request_of(), metadata=ADA)
    other = await tier1.stub.SubmitSwarm(request_of(), metadata=ADA)
    pause = api.PauseSwarmRequest(swarm_id=made.swarm_id, reason="lunch", command_id="p1")
    assert await ended(tier1.stub.PauseSwarm(pause, metadata=EVE)) == "PERMISSION_DENIED"
    assert await ended(tier1.stub.PauseSwarm(pause, metadata=ADA)) == "OK"
    assert await ended(tier1.stub.RetrySwarm(api.RetrySwarmRequest(swarm_id=made.swarm_id), metadata=ADA)) != "OK"
    await ended(tier1.stub.RetrySwarm(api.RetrySwarmRequest(swarm_id=made.swarm_id, validate_only=True), metadata=ADA))
    mine = await trail(tier1, subject=made.swarm_id)
    assert [(one.action, one.code) for one in mine] == [
        ("RetrySwarm", "STATE_CONFLICT"), ("PauseSwarm", "OK"), ("SubmitSwarm", "OK"),
    ]  # fmt: skip
    assert (mine[1].reason, mine[1].command_id) == ("lunch", "p1")
    (hers,) = await trail(tier1, EVE)
    assert (hers.subject, hers.code, hers.action) == (made.swarm_id, "PERMISSION_DENIED", "PauseSwarm")
    assert await trail(tier1, EVE, user_id="ada") == []
    assert [one.action for one in await trail(tier1, actions=["PauseSwarm"])] == ["PauseSwarm"]
    later = Timestamp()
    later.FromMicroseconds(mine[0].time.ToMicroseconds() + 3_600_000_000)
    assert await trail(tier1, after=later) == []
    everything = await trail(tier1, before=later)
    assert [one.subject for one in everything][-2:] == [other.swarm_id, made.swarm_id]
    first = await tier1.stub.ListAudit(audit_pb2.ListAuditRequest(page_size=3), metadata=ADA)
    rest = await tier1.stub.ListAudit(audit_pb2.ListAuditRequest(page_token=first.next_page_token), metadata=ADA)
    assert [*first.entries, *rest.entries] == everything
    assert not rest.next_page_token
    wrong = tier1.stub.ListAudit(audit_pb2.ListAuditRequest(page_token="x"), metadata=ADA)
    assert await wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
