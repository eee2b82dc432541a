"""Approvals through the whole system: any replica, over the death of whoever had the run."""

import asyncio
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

import asyncpg
import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed, NotFound, PermissionDenied
from tierflow_contracts.common.v1.explanation_pb2 import BlockerKind
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]
FLOW = """
name: refund
steps:
  ok:
    approval: {message: "Refund ${{ input.amount }}?", users: [ada, bob], roles: [finance], needed: 2}
  refund: {call: echo, needs: ok, with: {amount: "${{ input.amount }}"}}
"""


async def suspended(client: Client, run_id: str) -> bool:
    """Whether the run does nothing but wait."""
    try:
        return (await client.get_run(run_id)).state == RunState.RUN_STATE_SUSPENDED
    except NotFound:  # Tier 2 has not taken it yet
        return False


def tierflow(stack: Stack, user: str, *arguments: str) -> str:
    """What the command prints for this user."""
    command = [sys.executable, "-m", "tierflow_cli.main", *arguments, "--address", stack.address, "--user", user]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    return done.stdout


async def test_approvals_over_the_death_of_both_orchestrators(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """H12, Q17, L13, L14, K7, S5, S12: asked is stored; whoever dies, who was asked decides through any replica, by client and command, once; nobody else does."""
    stack = make_stack(orchestrators=2)
    text = tmp_path / "refund.yaml"
    text.write_text(FLOW)
    async with (
        Client(stack.address, user="carl", patience=60) as client,
        Client(stack.address, user="ada", patience=60) as ada,
        Client(stack.address, user="eve", roles=["finance"], patience=60) as eve,
        Client(stack.address, user="mallory", patience=60) as mallory,
        Client(stack.address, user="ada", tenant="other", patience=60) as stranger,
    ):
        one, two = [await client.submit(str(text), {"amount": n}) for n in (1, 2)]
        for handle in (one, two):
            await eventually(lambda run_id=handle.run_id: suspended(client, run_id))
        assert await ada.approve(one.run_id, "ok", "first", decision_id="same")
        whole, run = await client.explain(one.id)
        assert [(b.kind, list(b.held_by)) for b in whole.blockers] == [(BlockerKind.BLOCKER_KIND_CHILD, [one.run_id])]
        assert [(b.kind, b.step_id, b.held_by[0]) for b in run.blockers] == [
            (BlockerKind.BLOCKER_KIND_APPROVAL, "ok", "ada")
        ]
        assert await client.pause(two.id, "lunch")
        told = json.loads(await asyncio.to_thread(tierflow, stack, "carl", "explain", two.run_id))
        assert (told[0]["blockers"][0]["kind"], told[0]["blockers"][0]["held_by"]) == ("BLOCKER_KIND_PAUSE", ["carl"])
        needs = await client.explain(two.id, "refund")
        assert [b.kind for b in needs[0].blockers] == [BlockerKind.BLOCKER_KIND_PAUSE, BlockerKind.BLOCKER_KIND_NEEDS]
        assert await client.resume(two.id)
        for orchestrator in stack.orchestrators:
            orchestrator.kill()
        for orchestrator in stack.orchestrators:
            await asyncio.to_thread(orchestrator.start)
        assert await ada.approve(one.run_id, "ok", "first", decision_id="same")
        assert not await ada.approve(one.run_id, "ok", "again")
        with pytest.raises(PermissionDenied, match="mallory is not among those"):
            await mallory.approve(one.run_id, "ok")
        with pytest.raises(NotFound):
            await stranger.approve(one.run_id, "ok")
        assert [a.run_id async for a in mallory.approvals()] == []
        assert [a.run_id async for a in stranger.approvals()] == []
        listed = json.loads(await asyncio.to_thread(tierflow, stack, "bob", "approvals"))
        assert [(row["run_id"], row["message"]) for row in listed] == [
            (two.run_id, "Refund 2?"),
            (one.run_id, "Refund 1?"),
        ]
        assert await eve.approve(one.run_id, "ok")
        assert (await one.result(60))["refund"] == {"amount": 1}
        said = await asyncio.to_thread(
            tierflow, stack, "bob", "approvals", "reject", two.run_id, "ok", "--reason", "no"
        )
        assert json.loads(said)["applied"] is True
        with pytest.raises(ExecutionFailed) as failed:
            await two.result(60)
        assert "APPROVAL_REJECTED" in repr(failed.value.failure)
        history = (await client.events(one.id, one.run_id)).events
        decided = [e.approval_decided.actor for e in history if e.HasField("approval_decided")]
        assert decided == ["ada", "eve"]
        checks = json.loads(await asyncio.to_thread(tierflow, stack, "carl", "verify", one.id))
        assert [(check["entity_id"], check["intact"]) for check in checks] == [(one.id, True), (one.run_id, True)]
        connection = await asyncpg.connect(stack.database_url)
        flip = "UPDATE orchestrator.journal SET data = set_byte(data, 9, get_byte(data, 9) # 1) WHERE entity_id = $1 AND first_seq = 1"
        await connection.execute(flip, two.run_id)
        await connection.close()
        (broken,) = await client.verify(two.run_id)
        assert (broken.intact, broken.broken_at) == (False, 1)
        command = [sys.executable, "-m", "tierflow_cli.main", "verify", two.id, "--address", stack.address]
        done = await asyncio.to_thread(subprocess.run, [*command, "--user", "carl"], check=False, capture_output=True)
        assert done.returncode == 1
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert [text for text in report.problems if two.run_id not in text] == []


POLICY = """
norms:
  - {name: echo-is-fine, permit: echo}
  - {name: not-for-others, prohibit: echo, if: run.labels.other == "yes"}
  - {name: ask, oblige: echo, if: call.input.n > 1.0, approval: {roles: [finance], message: "Echo ${{ call.input.n }}?"}}
"""
PLAIN = """
name: plain
steps:
  a: {call: echo, side_effecting: true, with: {n: "${{ input.n }}"}}
"""


async def test_the_policy_of_the_service(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """L12, L13, L14, B3: what the policy permits is called, what it prohibits is not, what it wants approved waits; while it cannot be read, nothing is called."""
    policy, text = tmp_path / "policy.yaml", tmp_path / "plain.yaml"
    policy.write_text(POLICY)
    text.write_text(PLAIN)
    stack = make_stack(orchestrator_environment={"TIERFLOW_POLICY_FILE": str(policy)})
    calm, other = {"other": "no"}, {"other": "yes"}
    async with (
        Client(stack.address, user="carl") as client,
        Client(stack.address, user="eve", roles=["finance"]) as eve,
    ):
        assert (await client.run(str(text), {"n": 1}, labels=calm))["a"] == {"n": 1}
        with pytest.raises(ExecutionFailed, match="policy:not-for-others") as denied:
            await client.run(str(text), {"n": 1}, labels=other)
        assert "PERMISSION_DENIED" in repr(denied.value.failure)
        asked = await client.submit(str(text), {"n": 2}, labels=calm)
        await eventually(lambda: suspended(client, asked.run_id))
        (approval,) = [approval async for approval in eve.approvals()]
        assert (approval.message, approval.norm, approval.handler) == ("Echo 2?", "policy:ask", "echo")
        assert json.loads(approval.input.json) == {"n": 2}
        assert await eve.approve(asked.run_id, "a")
        assert (await asked.result(60))["a"] == {"n": 2}
        policy.write_text("norms: [")

        async def closed() -> bool:
            try:
                await client.run(str(text), {"n": 1}, labels=calm)
            except ExecutionFailed as error:
                return "PERMISSION_DENIED" in repr(error.failure)
            return False

        await eventually(closed)
