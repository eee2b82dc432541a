"""What coordinators are told on their streams."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_orchestrator.core import Run
from tierflow_orchestrator.sessions import Session, Sessions

pytestmark = pytest.mark.interpreted

RUN = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"


class Scene:
    """Sessions without a database: runs are those that the test says are here, and whatever is unacknowledged is said by the test."""

    def __init__(self) -> None:
        self.entities: dict[str, Any] = {}
        self.unacknowledged: list[dict[str, str]] = []
        self.acknowledged: list[tuple[str, int]] = []
        writer = SimpleNamespace(acknowledge=lambda *which: self.acknowledged.append(which))
        host = SimpleNamespace(entities=self.entities, spawn=asyncio.ensure_future, writer=writer)
        self.sessions = Sessions(SimpleNamespace(host=host, database=self), lambda: pb.OrchestratorInfo())  # type: ignore[arg-type]
        self.session = Session(pb.CoordinatorHello(instance_id="i", name="c"))

    async def fetch(self, name: str, **_: object) -> list[dict[str, str]]:
        assert name == "unacknowledged"
        return self.unacknowledged

    def ended(self, moment: int) -> None:
        """A run ends here."""
        run = Run.fresh(RUN)
        run.state, run.ended_at, run.outcome = "COMPLETED", moment, "SUCCESS"
        self.sessions.ended(run)


@pytest.mark.parametrize("applied", [True, False])
async def test_no_word_of_a_command_before_it_is_stored(applied: bool) -> None:
    """R7, R29: while a command is on its way, changes of its run are not said to be its doing; afterwards they are, where it applied."""
    scene = Scene()
    stored = asyncio.Event()

    async def command(request: pb.CommandRunRequest) -> pb.CommandRunResponse:
        await stored.wait()
        return pb.CommandRunResponse(run_id=request.run_id, command_id=request.command_id, applied=applied)

    scene.sessions.command = command
    scene.sessions.take(
        scene.session, pb.ExecuteRunsRequest(commands=[pb.CommandRunRequest(run_id=RUN, command_id="p")])
    )
    await asyncio.sleep(0)
    run = scene.entities[RUN] = Run.fresh(RUN)
    run.state = "CANCELLING"
    scene.sessions.changed(run)
    assert not scene.session.frames.size
    stored.set()
    (answer,) = (await scene.session.frames.next())["commands"]
    assert answer.applied is applied
    run.state = "CANCELLED"
    scene.sessions.changed(run)
    assert scene.session.frames.size == int(applied)


async def test_a_result_acknowledged_elsewhere_is_forgotten() -> None:
    """R28, Lesson 26: another orchestrator has brought it; this one does not keep it for ever."""
    scene = Scene()
    scene.ended(1000)
    scene.unacknowledged = [{"id": RUN}]
    await scene.sessions._sweep(before=2000)
    assert scene.sessions.unacknowledged == 1
    scene.unacknowledged = []
    await scene.sessions._sweep(before=500)
    assert scene.sessions.unacknowledged == 1, "it may not be stored yet that it waits"
    await scene.sessions._sweep(before=2000)
    assert scene.sessions.unacknowledged == 0


async def test_a_run_that_is_retried_meanwhile_has_no_result() -> None:
    """R28, R31: between the look at its row and the look at its state, a run has begun its next generation."""
    scene = Scene()
    run = Run.fresh(RUN)

    async def view(_: str, look: Any) -> Any:
        return look(run)

    async def fetchrow(*_: object, **__: object) -> dict[str, Any]:
        return {"owner": None, "ended_at": 1, "address": None, "fenced": True}

    scene.fetchrow = fetchrow  # type: ignore[attr-defined]
    scene.sessions._durable.reader = SimpleNamespace(view=view)  # type: ignore[assignment]
    scene.sessions._sessions.append(scene.session)
    for state, told in (("RUNNING", False), ("FAILED", True)):
        run.state, run.outcome = state, "FAILURE" if told else ""
        await scene.sessions._attach(scene.session, RUN)
        assert bool(scene.session.frames.size) is told
    await scene.session.frames.next()
    run.state = "RUNNING"
    await scene.sessions._send_again(RUN)
    assert not scene.session.frames.size


async def test_interest_in_runs_that_went_elsewhere_ends() -> None:
    """R28: a run that was parked and goes on elsewhere leaves nothing behind here."""
    scene = Scene()
    scene.sessions._interested[RUN] = scene.session
    scene.sessions._commands[RUN] = scene.sessions._commands["of a stream that has ended"] = "p"
    scene.entities[RUN] = object()
    scene.sessions._forget_strangers()
    scene.sessions._forget_strangers()
    assert RUN in scene.sessions._interested
    del scene.entities[RUN]
    scene.sessions._forget_strangers()
    assert RUN in scene.sessions._interested, "it may just be on its way to memory"
    scene.sessions._forget_strangers()
    assert not scene.sessions._interested
    assert not scene.sessions._commands
