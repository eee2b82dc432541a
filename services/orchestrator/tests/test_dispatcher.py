"""The dispatcher against scripted executors: who is lost, who is asked, what is sent again."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link
from tierflow_runtime.streams import LARGEST_ITEM
from tierflow_runtime.values import Failure

RUN = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"


class Heard(Reports):
    """Notes what the engine would be told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def lost(self, run_id: str, attempt_id: str, reason: str) -> None:
        self.said.append(("lost", attempt_id))

    def stopped(self, run_id: str, attempt_id: str) -> None:
        self.said.append(("stopped", attempt_id))

    def refused(self, run_id: str, attempt_id: str, failure: Failure) -> None:
        self.said.append((failure.code, attempt_id))


class Scene:
    """A dispatcher with one executor's address."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.alive = True
        self.dispatcher = Dispatcher((), self.heard, lambda: self.alive, lost_after=30.0)
        self.link = Link("127.0.0.1:1", self.dispatcher, lambda: self.alive)

    def greet(self, executor_id: str) -> None:
        """A stream opens, and the executor says hello."""
        self.link._greet(pb.ExecutorHello(name="e", executor_id=executor_id, slots=8))

    async def sent(self) -> dict[str, list[Any]]:
        """What waits to be written to the executor."""
        frames: dict[str, list[Any]] = {}
        while self.link.frames.size:
            for name, items in (await self.link.frames.next()).items():
                frames.setdefault(name, []).extend(items)
        return frames

    def unknown(self, attempt_id: str) -> None:
        """The executor answers that it does not know an attempt."""
        self.dispatcher.heard(
            self.link, pb.ExecuteStepsResponse(statuses=[pb.AttemptStatus(attempt_id=attempt_id, state=0)])
        )

    def recover(self, attempt_id: str, executor: str, make: Callable[[], Any] = step_pb2.StepExecutionRequest) -> None:
        """A run was adopted that had this attempt there."""
        self.dispatcher.recover(attempt_id, RUN, "a", executor, make)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_executor_and_orchestrator_die_together(scene: Scene) -> None:
    """R25, R26, K8: a run is adopted after the executor of its attempt has come back as another process: that one's answer loses the attempt at once.

    Not its hello, which may have come before the attempt was even sent elsewhere: only an answer to a question asked now proves who lives now.
    """
    scene.greet("new")
    scene.recover("x/a/1", "e/old")
    assert scene.heard.said == []
    assert (await scene.sent())["adopt"] == ["x/a/1"]
    scene.unknown("x/a/1")
    assert scene.heard.said == [("lost", "x/a/1")]
    assert scene.dispatcher.flights == {}
    assert scene.link.used == 0


async def test_another_executor_proves_nothing(scene: Scene) -> None:
    """R26, S7: an executor of another name is not asked, and what it says of an attempt that is not its own counts for nothing."""
    scene.greet("new")
    scene.recover("x/a/1", "other/old")
    assert await scene.sent() == {}
    scene.unknown("x/a/1")
    assert scene.heard.said == []
    assert "x/a/1" in scene.dispatcher.flights


async def test_lost_by_a_new_hello(scene: Scene) -> None:
    """R26, K8: a hello of a new process of the name loses what the old one had, also where the new one was met before."""
    scene.greet("new")
    scene.link.connected = False
    scene.recover("x/a/1", "e/old")
    scene.greet("new")
    assert scene.heard.said == [("lost", "x/a/1")]


async def test_unknown_is_sent_again(scene: Scene) -> None:
    """R25, S7: what its own executor does not know is sent to it, under its id; what it knows is not."""
    scene.greet("one")
    scene.recover("x/a/1", "e/one", lambda: step_pb2.StepExecutionRequest())
    scene.recover("x/b/1", "e/one", lambda: step_pb2.StepExecutionRequest())
    await scene.sent()
    scene.unknown("x/a/1")
    scene.dispatcher.heard(
        scene.link, pb.ExecuteStepsResponse(statuses=[pb.AttemptStatus(attempt_id="x/b/1", state=5)])
    )
    assert len((await scene.sent())["execute"]) == 1
    assert scene.heard.said == []


async def test_cancelled_before_it_came(scene: Scene) -> None:
    """R29, S6: the receipt UNKNOWN of an attempt's own executor confirms that nothing of it is alive: it will be refused there."""
    scene.greet("one")
    scene.recover("x/a/1", "e/one")
    scene.dispatcher.stop("x/a/1", RUN, "e/one", "CANCELLED")
    receipt = pb.CancelStepResponse(attempt_id="x/a/1", receipt=pb.CANCEL_RECEIPT_UNKNOWN, run_id=RUN)
    scene.dispatcher.heard(scene.link, pb.ExecuteStepsResponse(cancelled=[receipt]))
    assert scene.heard.said == [("stopped", "x/a/1")]


async def test_too_large_to_send(scene: Scene) -> None:
    """Lesson 27, F27: an attempt that no message can carry fails for good; the stream and its other attempts go on."""
    scene.greet("one")
    large = step_pb2.StepExecutionRequest()
    large.input.input.json = "x" * LARGEST_ITEM
    scene.dispatcher.board(scene.link, "x/a/1", RUN, "a")
    scene.dispatcher.send("x/a/1", lambda: large)
    assert scene.heard.said == [("MESSAGE_TOO_LARGE", "x/a/1")]
    assert scene.link.used == 0


async def test_silence_while_asleep(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """R26, Lesson 23: after this process was frozen, an executor that it could not hear meanwhile gets its whole time again."""
    now = 1000.0
    monkeypatch.setattr("tierflow_orchestrator.dispatcher.time.monotonic", lambda: now)
    scene.recover("x/a/1", "e/one")
    now += 45
    scene.dispatcher._count_anew()
    scene.dispatcher._give_up()
    assert scene.heard.said == []
    now += 31
    scene.dispatcher._give_up()
    assert scene.heard.said == [("lost", "x/a/1")]


async def test_handlers_of_executors_that_may_come_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """J2, Q22: a handler counts as offered while its executor is away for a moment; one that was never met is waited for, then it is missing."""
    now = 1000.0
    monkeypatch.setattr("tierflow_orchestrator.dispatcher.time.monotonic", lambda: now)
    scene.link = Link("127.0.0.1:1", scene.dispatcher, lambda: True)
    scene.dispatcher._links["127.0.0.1:1"] = scene.link
    assert scene.dispatcher.missing(["echo"]) == ["echo"]
    waiting = asyncio.create_task(scene.dispatcher.missing_after_meeting(["echo", "other"]))
    await asyncio.sleep(0)
    assert not waiting.done()
    now += 6
    hello = pb.ExecutorHello(name="e", executor_id="1", slots=1, handlers=[pb.HandlerInfo(name="echo")])
    scene.link._greet(hello)
    assert await waiting == ["other"]
    assert await scene.dispatcher.missing_after_meeting(["echo", "other"]) == ["other"]
    scene.link._parted()
    assert scene.dispatcher.missing(["echo"]) == []
    now += 31
    scene.dispatcher._give_up()
    assert scene.dispatcher.missing(["echo"]) == ["echo"]
