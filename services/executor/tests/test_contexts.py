"""What attempts ask of their swarm's context, on this side: again while nobody answers, and never with a secret."""

from __future__ import annotations

import base64
import json
import socket
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from tierflow import Context, handler
from tierflow.blackboard import Blackboard
from tierflow.errors import Conflict
from tierflow.handler import declared
from tierflow.own_swarm import OwnSwarm
from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_executor.contexts import ContextCalls
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.table import UNARY
from tierflow_executor.isolated import Parent, perform
from tierflow_executor.isolation import Assignment, Report
from tierflow_executor.running import Running
from tierflow_executor.secrets import MASK, Secrets
from tierflow_runtime.errors import failure
from tierflow_runtime.wire import failure_to_proto


class Scripted(ContextCalls):
    """Answers from a list."""

    def __init__(self, *codes: str) -> None:
        self.codes = list(codes)
        self.calls: list[bb.ContextCall] = []

    async def _asked(self, running: Any, call: bb.ContextCall) -> bb.ContextAnswer:
        kept = bb.ContextCall()
        kept.CopyFrom(call)
        self.calls.append(kept)
        code = self.codes.pop(0)
        if code:
            return bb.ContextAnswer(failure=failure_to_proto(failure(code, "so it is")))
        return bb.ContextAnswer(written=bb.BlackboardWritten(revision=2, applied=True))


def board(scripted: Scripted) -> Blackboard:
    request = StepExecutionRequest()
    request.context.run_id, request.context.attempt_id = "r", "r/a/1"
    running: Any = SimpleNamespace(request=request)
    port: Any = SimpleNamespace(call_context=lambda call: scripted.call_context(running, call))
    return Blackboard(OwnSwarm(port))


async def test_a_write_is_the_same_write_until_somebody_answers() -> None:
    """I11, K10: while the run changes its owner the call is made again, with the command id that it had; a refusal is told at once."""
    scripted = Scripted("UNAVAILABLE", "UNAVAILABLE", "")
    assert await board(scripted).set("a", 1) == 2
    assert len({call.write.command_id for call in scripted.calls}) == 1
    assert [call.author.attempt_id for call in scripted.calls] == ["r/a/1"] * 3
    scripted = Scripted("VERSION_CONFLICT")
    with pytest.raises(Conflict) as raised:
        await board(scripted).set("a", 1, expected_version=9)
    assert raised.value.code == "VERSION_CONFLICT"
    assert len(scripted.calls) == 1


@handler("t.shares_apart")
async def shares_apart(context: Context, auth: str) -> None:
    """Puts what it was given onto the blackboard."""
    await context.blackboard.set("auth", auth)


class Apart:
    """The executor of an isolated attempt, as that sees it."""

    default_timeout = 10.0

    def __init__(self) -> None:
        self.calls: list[bb.ContextCall] = []

    def tell(self, report: Report) -> None:
        """Takes a report."""

    async def call_context(self, _running: Any, call: bb.ContextCall) -> bb.ContextAnswer:
        """Takes a call."""
        self.calls.append(call)
        return bb.ContextAnswer(written=bb.BlackboardWritten(revision=2, applied=True))


def test_an_isolated_attempt_shares_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: in a process of its own an attempt knows its secrets as well, and what it writes comes without them."""
    monkeypatch.setenv("TIERFLOW_SECRET_API_KEY", "canary-7c1f")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    request = StepExecutionRequest()
    request.context.run_id, request.context.attempt_id = "r", "r/a/1"
    request.input.secrets.append("API_KEY")
    coded = base64.b64encode(request.SerializeToString()).decode()
    apart: Any = Apart()
    ending = perform(Assignment(coded, '{"auth": "canary-7c1f"}', "t.shares_apart", __name__, "", ""), apart)
    assert ending.state == "COMPLETED"
    assert apart.calls[0].write.changes[0].value.json == f'"{MASK}"'


def test_no_secret_gets_onto_the_blackboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: what a handler writes, long or short, its goal, policy and reason come without the values of its secrets."""
    monkeypatch.setenv("TIERFLOW_SECRET_API_KEY", "canary-7c1f")
    secrets = Secrets(["API_KEY"], "acme")
    secrets.fill('"{{secret:API_KEY}}"')
    call = bb.ContextCall()
    call.write.changes.add(key="a").value.json = '"is canary-7c1f"'
    call.write.changes.add(key="b").compressed = zlib.compress(json.dumps(["canary-7c1f"] * 500).encode())
    secrets.hide_in(call)
    assert call.write.changes[0].value.json == f'"is {MASK}"'
    assert json.loads(zlib.decompress(call.write.changes[1].compressed)) == [MASK] * 500
    call = bb.ContextCall()
    call.update_context.reason = call.update_context.changes.goal = "canary-7c1f"
    call.update_context.changes.policy.json = '{"a":"canary-7c1f"}'
    secrets.hide_in(call)
    assert b"canary" not in call.SerializeToString()
    read = bb.ContextCall(read=bb.BlackboardRead(keys=["a"]))
    secrets.hide_in(read)
    assert read == bb.ContextCall(read=bb.BlackboardRead(keys=["a"]))


@handler("t.beats_apart")
async def beats_apart(context: Context) -> None:
    """Lives, and has nothing else to say."""
    context.heartbeat()


def test_an_isolated_attempt_is_heard_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """K9, Lesson 20: a heartbeat without details reaches the executor, which counts the silence; one in a loop does not flood it."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    here, there = socket.socketpair()
    request = StepExecutionRequest()
    request.context.run_id, request.context.attempt_id = "r", "r/a/1"
    coded = base64.b64encode(request.SerializeToString()).decode()
    parent = Parent(there, "")
    with here, there:
        assert perform(Assignment(coded, "{}", "t.beats_apart", __name__, "", ""), parent).state == "COMPLETED"
        parent._beat_at = float("inf")
        assert perform(Assignment(coded, "{}", "t.beats_apart", __name__, "", ""), parent).state == "COMPLETED"
        there.shutdown(socket.SHUT_WR)
        said = [json.loads(line)["kind"] for line in here.makefile("rb")]
    assert said.count("heartbeat") == 1


def tool_call(**fields: Any) -> bb.ContextCall:
    call = bb.ContextCall()
    call.tool_call.CopyFrom(bb.ToolCallReport(tool="search", **fields))
    return call


async def test_tool_calls_of_an_attempt_are_numbered_and_told_until_stored() -> None:
    """B19, H7: each call gets the next number of its attempt, its end the same; told again while the run changes its owner; of an attempt that is no run's nobody is told."""
    request = StepExecutionRequest()
    request.context.run_id, request.context.attempt_id = "r", "r/a/1"
    scripted = Scripted("UNAVAILABLE", "", "", "")
    for owner, told in (("one", [1, 1, 2, 1]), (UNARY, [])):
        scripted.calls.clear()
        running = Running(Attempt("r/a/1", "r", owner), request, declared()[-1], scripted, 0.0)  # type: ignore[arg-type]
        begun = tool_call()
        for call in (begun, tool_call(), tool_call(number=1, outcome=1)):
            answer = await running.call_context(call)
            assert not answer.HasField("failure")
        assert begun.tool_call.number == 1
        assert [call.tool_call.number for call in scripted.calls] == told


async def test_no_secret_gets_into_a_tool_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """L16, H7: names and codes of tool calls come without the values of secrets."""
    monkeypatch.setenv("TIERFLOW_SECRET_API_KEY", "canary-7c1f")
    secrets = Secrets(["API_KEY"], "acme")
    secrets.fill('"{{secret:API_KEY}}"')
    call = tool_call(code="canary-7c1f")
    call.tool_call.tool = "ask canary-7c1f"
    secrets.hide_in(call)
    assert (call.tool_call.tool, call.tool_call.code) == (f"ask {MASK}", MASK)
