"""Every call that may change something leaves an entry (I14)."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tierflow import Client
from tierflow.errors import TierflowError
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as stubs
from tierflow_coordinator.auditing import READS, SUBMISSIONS
from tierflow_testing.stack import Stack, StackOptions

SERVICE = api.DESCRIPTOR.services_by_name["CoordinatorService"]
SLEEPER = {"name": "sleeper", "version": "1", "steps": {"w": {"wait": "10m"}}}
ADA = (("tierflow-user", "ada"),)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("trail"), StackOptions()) as stack:
        yield stack


def filled(message: Message, ids: dict[str, str]) -> Message:
    """The message with what its fields of these names ask for."""
    for field in message.DESCRIPTOR.fields:
        if field.name in ids and field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, ids[field.name])
    return message


async def status(call: Any) -> grpc.StatusCode:
    """How a call ended."""
    code: grpc.StatusCode = await call.code()
    return code


def test_reads_are_named_as_reads() -> None:
    """I14: no call that changes something by its name is on the list of those that need no entry."""
    reading = ("Get", "List", "Wait", "Watch", "Query", "Explain", "Verify", "Check", "Read")
    assert [name for name in READS if not name.startswith(reading)] == []
    assert {"GetSwarm", "ListAudit", "ReadBlob"} <= READS


async def test_every_rpc_that_changes_something_leaves_an_entry(stack: Stack) -> None:
    """I14: all methods of the service's descriptor but reads and submissions, by name of the caller, about the swarm, with what came of it, whether it was let through or not."""
    async with Client(stack.address, user="ada", patience=60) as client, grpc.aio.insecure_channel(stack.address) as ch:
        stub = stubs.CoordinatorServiceStub(ch)
        handle = await client.submit(SLEEPER, request_id="r1")
        ids = {"swarm_id": handle.id, "run_id": handle.run_id, "reason": "as asked", "command_id": "c-1"}
        changing = [one for one in SERVICE.methods if one.name not in READS | SUBMISSIONS]
        assert len(changing) > 20
        for method in changing:
            assert not method.client_streaming
            assert not method.server_streaming
            request: Any = filled(method.input_type._concrete_class(), ids)
            code = await status(getattr(stub, method.name)(request, metadata=ADA, timeout=20))
            assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), method.name
        entries = [entry async for entry in client.audit(limit=None)]
        by_action = {entry.action: entry for entry in entries}
        assert by_action.keys() >= {method.name for method in changing} | {"SubmitSwarm"}
        for method in changing:
            entry = by_action[method.name]
            assert entry.user_id == "ada"
            assert entry.code, method.name
            if "swarm_id" in method.input_type.fields_by_name:
                assert entry.subject == handle.id
        assert by_action["CancelSwarm"].reason == "as asked"
        submitted = [entry for entry in entries if entry.action == "SubmitSwarm" and entry.subject == handle.id]
        assert [entry.result for entry in submitted] == ["sleeper@1"]
        assert [entry.id for entry in entries] == sorted((entry.id for entry in entries), reverse=True)


async def test_the_trail_is_read_by_those_it_is_about(stack: Stack) -> None:
    """I14, L4: filters, pages, the command; another user sees nothing of it; a refused call is there with its code; a plan leaves nothing."""
    async with Client(stack.address, user="ada", patience=60) as client, Client(stack.address, user="eve") as eve:
        first = await client.submit(SLEEPER)
        await first.cancel("not needed")
        with pytest.raises(TierflowError):
            await eve.cancel(first.id, "mine now")
        again = await first.replay()
        with pytest.raises(TierflowError):
            await first.retry()
        mine = [entry async for entry in client.audit(subject=first.id)]
        assert [(entry.action, entry.code) for entry in mine] == [
            ("RetrySwarm", "STATE_CONFLICT"), ("ReplaySwarm", "OK"), ("CancelSwarm", "OK"), ("SubmitSwarm", "OK"),
        ]  # fmt: skip
        assert (mine[1].result, mine[2].reason) == (again.id, "not needed")
        hers = [entry async for entry in eve.audit()]
        assert [(entry.user_id, entry.subject, entry.code) for entry in hers] == [
            ("eve", first.id, "PERMISSION_DENIED")
        ]
        cancels = [entry async for entry in client.audit(actions=["CancelSwarm"], after=mine[3].time.ToDatetime())]
        assert first.id in [entry.subject for entry in cancels]
        everything = [entry.id async for entry in client.audit(limit=None)]
        page = await client._calls.call("ListAudit", _page(2))
        assert [entry.id for entry in page.entries] == everything[:2]
        rest = await client._calls.call("ListAudit", _page(1000, page.next_page_token))
        assert [entry.id for entry in rest.entries] == everything[2:]
        command = [sys.executable, "-m", "tierflow_cli.main", "trail", first.id, "--json", "--user", "ada"]
        said = await asyncio.to_thread(subprocess.check_output, [*command, "--address", stack.address])
        assert [one["action"] for one in json.loads(said)][-1] == "SubmitSwarm"


def _page(size: int, token: str = "") -> Any:
    from tierflow_contracts.coordinator.v1 import audit_pb2

    return audit_pb2.ListAuditRequest(page_size=size, page_token=token)
