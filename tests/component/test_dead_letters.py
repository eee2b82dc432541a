"""Dead letters through both stateful tiers, in one process, with a real database (K4)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import Conflict, ExecutionFailed, InvalidRequest, NotFound, PermissionDenied
from tierflow_contracts.common.v1 import dead_letter_pb2
from tierflow_coordinator.app import serve
from tierflow_coordinator.settings import CoordinatorSettings
from tierflow_orchestrator.app import main
from tierflow_orchestrator.settings import OrchestratorSettings
from tierflow_testing.ports import free_port
from tierflow_testing.waiting import eventually

FAILS = {"name": "asks", "version": "1", "dead_letter": True, "steps": {"a": {"fail": {"code": "NO_STOCK"}}}}
QUIET = {"name": "quiet", "version": "1", "steps": {"a": {"fail": {"code": "NO_STOCK"}}}}
Connect = Callable[[str], Client]


@pytest.fixture
async def connect(migrated_database: str) -> AsyncIterator[Connect]:
    """Clients of a coordinator above an orchestrator without executors."""
    ports, stop = (free_port(), free_port(), free_port()), asyncio.Event()
    common = {"name": "a", "database_url": migrated_database}
    tier2 = OrchestratorSettings(port=ports[0], executors=(f"127.0.0.1:{ports[2]}",), **common)
    tier1 = CoordinatorSettings(port=ports[1], orchestrators=(f"127.0.0.1:{ports[0]}",), **common)
    running = [asyncio.create_task(main(tier2, stop)), asyncio.create_task(serve(tier1, stop))]
    yield lambda user: Client(f"127.0.0.1:{ports[1]}", user=user, patience=60)
    stop.set()
    await asyncio.gather(*running)


async def failed(client: Client, flow: dict[str, Any], given: Any = None) -> Any:
    handle = await client.submit(flow, given)
    with pytest.raises(ExecutionFailed):
        await handle.result(60)
    return handle


async def tierflow(client: Client, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "tierflow_cli.main", *arguments, "--address", client.address, "--user", "ada"]
    return await asyncio.to_thread(subprocess.check_output, command, text=True)


def looked_up(client: Client, swarm_id: str, **wanted: Any) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        found = [letter async for letter in client.dead_letters(swarm_id=swarm_id, **wanted)]
        return found[0] if found else None

    return look


async def test_what_becomes_of_a_dead_letter(connect: Connect) -> None:
    """K4, L4, I14: a flow asks for it, others have none; it is its owner's alone; retried it is one new swarm that names the old one; discarded with a reason; settled by a retry of the swarm; all of it in the trail."""
    async with connect("ada") as ada, connect("eve") as eve:
        await failed(ada, QUIET)
        lost = await failed(ada, FAILS, {"n": 3})
        letter = await eventually(looked_up(ada, lost.id))
        assert (letter.kind, letter.user_id) == (dead_letter_pb2.DEAD_LETTER_KIND_RUN, "ada")
        assert (letter.run_id, letter.generation, letter.flow_name) == (lost.run_id, 1, "asks")
        assert (letter.trace_id, letter.payload_ref) == (lost.trace_id, f"run/{lost.run_id}/input")
        assert "NO_STOCK" in str(letter.failure)
        assert (await ada.get_run(lost.run_id)).reason == "DEAD_LETTER"
        assert [one.id async for one in ada.dead_letters()] == [letter.id]
        assert [one async for one in eve.dead_letters()] == []
        with pytest.raises(NotFound):
            await eve.dead_letter(letter.id)
        with pytest.raises(PermissionDenied):
            await eve.discard_dead_letter(letter.id, "mine")

        table = await tierflow(ada, "dead-letters")
        assert letter.id in table
        assert "NO_STOCK" in table or "Step a failed" in table
        made = json.loads(
            await tierflow(ada, "dead-letters", "retry", letter.id, "--reason", "stock is back", "--json")
        )
        made = made[letter.id]
        assert await ada.retry_dead_letter(letter.id) == made
        again = await ada.get(made)
        assert (again.origin.kind, again.origin.swarm_id, again.origin.run_id) == ("dead_letter", lost.id, lost.run_id)
        assert again.input.value.struct_value.fields["n"].number_value == 3
        told = await tierflow(ada, "dead-letters", "show", letter.id)
        assert made in told
        assert "stock is back" in told
        shown = await ada.dead_letter(letter.id)
        assert (shown.state, shown.actor) == (dead_letter_pb2.DEAD_LETTER_STATE_RETRIED, "ada")
        assert (shown.reason, shown.retried_as) == ("stock is back", made)
        with pytest.raises(Conflict, match="RETRIED already, by ada"):
            await ada.discard_dead_letter(letter.id, "late")

        second = await eventually(looked_up(ada, made))
        with pytest.raises(InvalidRequest, match="say why"):
            await ada.discard_dead_letter(second.id, " ")
        assert second.id in await tierflow(ada, "dead-letters", "discard", second.id, "--reason", "gone for good")
        with pytest.raises(Conflict, match="DISCARDED"):
            await ada.retry_dead_letter(second.id)

        third = await failed(ada, FAILS)
        await eventually(looked_up(ada, third.id))
        assert await third.retry("once more") == 2
        settled = await eventually(looked_up(ada, third.id, states=["RETRIED"]))
        assert (settled.generation, settled.actor, settled.reason) == (1, "ada", "once more")
        newest = await eventually(looked_up(ada, third.id))
        assert newest.generation == 2
        by_call = {(entry.action, entry.subject, entry.code) async for entry in ada.audit()}
        assert {("RetryDeadLetter", letter.id, "OK"), ("DiscardDeadLetter", second.id, "OK")} <= by_call
        assert ("RetryDeadLetter", second.id, "STATE_CONFLICT") in by_call
        assert "DiscardDeadLetter" in await tierflow(ada, "trail", second.id)
