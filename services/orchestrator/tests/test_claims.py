"""What executors claim and may not: of others' attempts, of what is over, beyond the contract, or never."""

import asyncio
import time
from typing import Any

import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, Usage
from tierflow_contracts.common.v1.failure_pb2 import ERROR_CODE_HANDLER_FAILED, Failure
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_orchestrator.claims import Refusals, claimed
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link

RUN = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"
MINE = f"{RUN}/a/1"


class Heard(Reports):
    """Notes what the engine would be told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def result(self, link: Link, result: step_pb2.StepExecutionResult) -> None:
        self.said.append(("result", result.context.attempt_id))

    def started(self, run_id: str, attempt_id: str, started_at: int) -> None:
        self.said.append(("started", attempt_id))

    def progress(self, progress: pb.AttemptProgress) -> None:
        self.said.append(("progress", progress.attempt_id))

    def lost(self, run_id: str, attempt_id: str, reason: str) -> None:
        self.said.append(("lost", attempt_id))

    def stopped(self, run_id: str, attempt_id: str) -> None:
        self.said.append(("stopped", attempt_id))


class Scene:
    """An honest executor with one attempt, and another that speaks of it."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.dispatcher = Dispatcher((), self.heard, lambda: True, lost_after=30.0)
        self.honest, self.liar = (Link(f"127.0.0.1:{number}", self.dispatcher, lambda: True) for number in (1, 2))
        self.honest._greet(pb.ExecutorHello(name="honest", executor_id="1", slots=8))
        self.liar._greet(pb.ExecutorHello(name="liar", executor_id="2", slots=8))
        self.dispatcher.board(self.honest, MINE, RUN, "a")
        request = step_pb2.StepExecutionRequest()
        request.options.timeout.FromSeconds(5)
        self.began = time.monotonic()
        self.dispatcher.send(MINE, lambda: request)

    def says(self, link: Link, **frame: Any) -> None:
        self.dispatcher.heard(link, pb.ExecuteStepsResponse(**frame))

    @property
    def refused(self) -> dict[str, int]:
        return {reason: count for reason, count in self.dispatcher.refusals.counts.items() if count}


@pytest.fixture
async def scene() -> Scene:
    return Scene()


def _result(attempt_id: str = MINE, **fields: Any) -> step_pb2.StepExecutionResult:
    return step_pb2.StepExecutionResult(
        context=ExecutionContext(run_id=RUN, step_id="a", attempt_id=attempt_id),
        state=state_pb2.STEP_STATE_COMPLETED,
        **fields,
    )


async def test_others_attempts(scene: Scene) -> None:
    """R23, R24, O7: what an executor says of an attempt that was given to another changes nothing and frees no slot."""
    scene.says(scene.liar, results=[_result()])
    scene.says(scene.liar, started=[pb.AttemptStarted(attempt_id=MINE, run_id=RUN)])
    scene.says(scene.liar, progress=[pb.AttemptProgress(attempt_id=MINE, run_id=RUN, step_id="a")])
    scene.says(
        scene.liar, cancelled=[pb.CancelStepResponse(attempt_id=MINE, receipt=pb.CANCEL_RECEIPT_UNKNOWN, run_id=RUN)]
    )
    scene.says(scene.liar, statuses=[pb.AttemptStatus(attempt_id=MINE)])
    assert scene.heard.said == []
    assert scene.refused == {"foreign": 4}
    assert (scene.honest.used, scene.liar.used) == (1, 0)
    scene.says(scene.honest, results=[_result()])
    assert scene.heard.said == [("result", MINE)]
    assert scene.honest.used == 0


async def test_progress_of_another_step(scene: Scene) -> None:
    """R24: progress under an attempt of its own, and under another step's name, would be handed to that step's next attempt."""
    scene.says(scene.honest, progress=[pb.AttemptProgress(attempt_id=MINE, run_id=RUN, step_id="b")])
    scene.says(scene.honest, progress=[pb.AttemptProgress(attempt_id=MINE, run_id=RUN[::-1], step_id="a")])
    assert scene.refused == {"foreign": 2}
    scene.says(scene.honest, progress=[pb.AttemptProgress(attempt_id=MINE, run_id=RUN, step_id="a")])
    assert scene.heard.said == [("progress", MINE)]


async def test_after_the_end(scene: Scene) -> None:
    """R23: progress and starts of an attempt that is over are refused and counted."""
    scene.says(scene.honest, results=[_result()])
    scene.says(scene.honest, progress=[pb.AttemptProgress(attempt_id=MINE, run_id=RUN, step_id="a")])
    scene.says(scene.honest, started=[pb.AttemptStarted(attempt_id=MINE, run_id=RUN)])
    assert scene.heard.said == [("result", MINE)]
    assert scene.refused == {"stale": 2}


async def test_accepted_and_never_answered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """R26, F5, Lesson 9: an executor that keeps no timeout is told to stop the attempt, and where that does not help either the attempt is lost."""
    began = scene.began

    async def after(seconds: float) -> None:
        monkeypatch.setattr("tierflow_orchestrator.dispatcher.time.monotonic", lambda: began + seconds)
        scene.dispatcher._give_up()

    await after(34)
    while scene.honest.frames.size:
        assert "cancel" not in await scene.honest.frames.next()
    await after(36)
    frame = await asyncio.wait_for(scene.honest.frames.next(), 60)
    assert [cancel.attempt_id for cancel in frame["cancel"]] == [MINE]
    await after(65)
    assert scene.heard.said == []
    await after(67)
    assert scene.heard.said == [("lost", MINE)]
    assert scene.refused == {"overdue": 1}
    assert scene.dispatcher.flights == {}


UNSOUND = {
    "no JSON": (_result(output=Payload(json='{"n": ')), "OUTPUT_INVALID"),
    "not a number": (_result(output=Payload(json="NaN")), "OUTPUT_INVALID"),
    "NUL": (_result(output=Payload(json='"\\u0000"')), "OUTPUT_INVALID"),
    "too deep": (_result(output=Payload(json="[" * 5000 + "]" * 5000)), "OUTPUT_INVALID"),
    "too large": (_result(output=Payload(json='"' + "x" * 2_000_000 + '"')), "PAYLOAD_TOO_LARGE"),
    "no reference": (_result(output=Payload(ref=BlobRef(sha256="../../etc/passwd", size=1))), "OUTPUT_INVALID"),
    "a debt": (_result(output=Payload(json="1"), usage=Usage(credits=-1_000_000)), "OUTPUT_INVALID"),
    "NUL in a message": (
        _result(failure=Failure(code=ERROR_CODE_HANDLER_FAILED, message="a\0b")),
        "OUTPUT_INVALID",
    ),
    "a story": (_result(logs=[step_pb2.LogLine(text="x" * 100_000)]), "OUTPUT_INVALID"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_beyond_the_contract(name: str) -> None:
    """F22, Lesson 27: what no contract allows is a failed attempt, for good, with every violation; nothing of what it brought is taken."""
    result, code = UNSOUND[name]
    refusals = Refusals()
    command = claimed("liar/2", result, refusals)
    assert (command.state, command.output, command.executor_id) == ("FAILED", None, "liar/2")
    assert command.failure is not None
    assert command.failure.code == code
    assert not command.failure.retryable
    assert command.failure.violations
    assert len(command.failure.message) < 2000
    assert refusals.counts["unsound"] == 1


def test_within_the_contract() -> None:
    """F22: an honest result is taken as it is."""
    refusals = Refusals()
    usage = Usage(credits=3, attempts=1)
    command = claimed("honest/1", _result(output=Payload(json='{"n": 1}'), usage=usage), refusals)
    assert (command.state, command.output, command.usage.credits) == ("COMPLETED", '{"n": 1}', 3)
    assert not any(refusals.counts.values())
