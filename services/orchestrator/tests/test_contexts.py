"""The way of attempts to what their swarm shares: who gets through, as whom, and what happens when the way is lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_orchestrator.contexts import ContextService, Questions
from tierflow_orchestrator.core.commands import ReportTool
from tierflow_orchestrator.core.turn import Reply
from tierflow_runtime.streams import Frames
from tierflow_runtime.values import Failure, FailureError

from .core.written import shell


class Coordinator:
    """A coordinator's stream."""

    def __init__(self) -> None:
        self.frames = Frames()

    async def heard(self) -> bb.ContextCall:
        """The next call that was sent here."""
        frame = await asyncio.wait_for(self.frames.next(), 60)
        call: bb.ContextCall = frame["context_calls"][0]
        return call


async def test_a_question_is_asked_elsewhere_when_its_way_is_lost() -> None:
    """B11, R14, I11: what was on its way on a stream that ended is asked of another coordinator, as the same write; a late answer is dropped."""
    first, second = Coordinator(), Coordinator()
    ways = [first, second]
    questions = Questions(lambda: ways[0] if ways else None)
    call = bb.ContextCall(write=bb.BlackboardWrite(command_id="w1"))
    asking = asyncio.ensure_future(questions.ask(call))
    lost = (await first.heard()).call_id
    ways.pop(0)
    questions.lost(first)
    again = await second.heard()
    assert again.write.command_id == "w1"
    questions.answered(bb.ContextAnswer(call_id=lost, written=bb.BlackboardWritten(revision=9)))
    questions.answered(bb.ContextAnswer(call_id=again.call_id, written=bb.BlackboardWritten(revision=2)))
    assert (await asking).written.revision == 2
    assert len(questions) == 0
    ways.clear()
    with pytest.raises(FailureError) as raised:
        await questions.ask(call)
    assert raised.value.failure.code == "UNAVAILABLE"


class Asked:
    """Takes questions, and gives each an empty answer."""

    def __init__(self) -> None:
        self.calls: list[bb.ContextCall] = []

    async def ask(self, call: bb.ContextCall) -> bb.ContextAnswer:
        """Answers."""
        self.calls.append(call)
        return bb.ContextAnswer()


def service(run: Any, asked: Asked) -> ContextService:
    entities = {run.id: SimpleNamespace(state=run, closing=False)}
    durable: Any = SimpleNamespace(
        host=SimpleNamespace(entities=entities), instance=SimpleNamespace(alive=True), router=None
    )
    questions: Any = asked
    return ContextService(durable, questions)


def request(run_id: str, attempt_id: str) -> pb.CallContextRequest:
    author = bb.ContextAuthor(run_id=run_id, attempt_id=attempt_id, user_id="eve", tenant="other", step_id="forged")
    call = bb.ContextCall(swarm_id="another", author=author, read=bb.BlackboardRead(keys=["a"]))
    return pb.CallContextRequest(call=call)


async def test_only_attempts_under_way_get_through_and_as_who_they_are() -> None:
    """B2, B3, L2: swarm, user and step are those of the stored run, whatever the message says; an attempt that ended is stale, a run that is elsewhere is looked for there."""
    it = shell("  a: {call: h}\n  b: {call: h, needs: a}\n")
    run, asked = it.run, Asked()
    contexts = service(run, asked)
    attempt = run.steps["a"].attempt_id
    await contexts.CallContext(request(run.id, attempt), None)
    call = asked.calls[0]
    assert (call.swarm_id, call.author.user_id, call.author.tenant, call.author.step_id) == (
        run.context.swarm_id,
        run.context.user_id,
        run.context.tenant,
        "a",
    )
    it.complete("a")
    for run_id, attempt_id, code in (
        (run.id, attempt, "STALE"),
        (run.id, "junk", "STALE"),
        ("other", attempt, "UNAVAILABLE"),
    ):
        with pytest.raises(FailureError) as raised:
            await contexts.CallContext(request(run_id, attempt_id), None)
        assert raised.value.failure.code == code
    assert len(asked.calls) == 1


class Routed:
    """Takes commands for runs."""

    def __init__(self, *refused: str) -> None:
        self.refused = list(refused)
        self.told: list[ReportTool] = []

    async def command(self, _run_id: str, command: ReportTool) -> Reply:
        """Answers."""
        self.told.append(command)
        return Reply(
            applied=True,
            state="RUNNING",
            failure=Failure(code=self.refused.pop(), message="no") if self.refused else None,
        )


def tool_request(run_id: str, attempt_id: str, **report: Any) -> pb.CallContextRequest:
    call = bb.ContextCall(author=bb.ContextAuthor(run_id=run_id, attempt_id=attempt_id))
    call.tool_call.CopyFrom(bb.ToolCallReport(**report))
    return pb.CallContextRequest(call=call)


async def test_tool_calls_are_the_runs_own() -> None:
    """B19, H7, R7: a report goes into the journal of its run and no further, is answered once it is there, and refused where the run refuses it."""
    it = shell("  a: {call: h}\n")
    asked, routed = Asked(), Routed()
    contexts = service(it.run, asked)
    contexts._durable.router = routed
    attempt = it.run.steps["a"].attempt_id
    answer = (await contexts.CallContext(tool_request(it.run.id, attempt, number=1, tool="search"), None)).answer
    assert answer.HasField("tool_call_stored")
    assert routed.told == [ReportTool(attempt_id=attempt, number=1, tool="search")]
    assert not asked.calls
    routed.refused = ["STALE"]
    with pytest.raises(FailureError) as raised:
        await contexts.CallContext(tool_request(it.run.id, attempt, number=1, tool="search", outcome=1), None)
    assert raised.value.failure.code == "STALE"


@pytest.mark.parametrize(
    ("report", "fields"),
    [
        ({}, ["number", "tool"]),
        ({"number": 1, "tool": "a\nb"}, ["tool"]),
        ({"number": 1, "tool": "x" * 201, "code": "y" * 101, "size": -1}, ["tool", "code", "size"]),
        ({"number": 1, "tool": "x", "outcome": 4}, ["outcome"]),
        ({"number": 1, "tool": "x", "outcome": 77}, ["outcome"]),
        ({"number": 2**31, "tool": "x", "duration": {"seconds": -1}}, ["number", "duration"]),
        ({"number": 1, "tool": "x", "duration": {"seconds": 2**62}}, ["duration"]),
    ],
)
async def test_a_report_that_breaks_the_contract(report: dict[str, Any], fields: list[str]) -> None:
    """A5: all that is wrong with a report is said at once, before anything is stored; that a call is lost is not for an attempt to say."""
    it = shell("  a: {call: h}\n")
    contexts = service(it.run, Asked())
    contexts._durable.router = routed = Routed()
    with pytest.raises(FailureError) as raised:
        await contexts.CallContext(tool_request(it.run.id, it.run.steps["a"].attempt_id, **report), None)
    assert [v.field.removeprefix("tool_call.") for v in raised.value.failure.violations] == fields
    assert not routed.told
