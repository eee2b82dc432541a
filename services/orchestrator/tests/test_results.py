"""Results that wait for their acknowledgement, and coordinators that do not read."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tierflow_contracts.common.v1 import payload_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.ids import uuid7
from tierflow_orchestrator import sessions
from tierflow_orchestrator.core import Run
from tierflow_orchestrator.results import Results
from tierflow_orchestrator.sessions import Session, Sessions

pytestmark = pytest.mark.interpreted


def result(size: int = 1000) -> run_pb2.RunExecutionResult:
    """A result of about that size."""
    return run_pb2.RunExecutionResult(output=payload_pb2.Payload(json='"' + "x" * size + '"'))


def test_results_in_memory_are_bounded() -> None:
    """J10, J11: with no coordinator to take them, results fill so much memory and no more; what is acknowledged makes room again."""
    results = Results(most_bytes=10_000)
    kept = [run_id for run_id in map(str, range(100)) if results.keep(run_id, 1, result())]
    assert kept == [str(number) for number in range(9)]
    assert results.keep("0", 2, result(500)), "a later word of the same run replaces the earlier"
    results.forget("1")
    results.forget("nobody")
    assert results.keep("100", 5, result())
    assert len(results) == 9
    assert sorted(results.ended_before(2)) == [str(number) for number in range(2, 9)]


class Scene:
    """Sessions whose unacknowledged runs are those that the test says; what is not in memory is read."""

    def __init__(self, waiting: list[str]) -> None:
        self.waiting = sorted(waiting)
        self.read: list[str] = []
        host = SimpleNamespace(entities={}, spawn=asyncio.ensure_future)
        durable: Any = SimpleNamespace(host=host, database=self, reader=self)
        self.sessions = Sessions(durable, lambda: pb.OrchestratorInfo())

    async def fetch(self, name: str, *, after: str, limit: int, **_: object) -> list[dict[str, str]]:
        return [{"id": each} for each in self.waiting if each > after][:limit]

    async def view(self, run_id: str, look: object) -> run_pb2.RunExecutionResult:
        self.read.append(run_id)
        return result()

    def connect(self) -> Session:
        session = Session(pb.CoordinatorHello(instance_id=uuid7(), name="c"))
        self.sessions._sessions.append(session)
        return session


async def test_every_unacknowledged_result_is_sent_again() -> None:
    """R28, F27: not only the first so many: a few hundred that nobody acknowledges must not hide the others."""
    scene = Scene([uuid7() for _ in range(2 * sessions.SWEPT_AT_ONCE + 7)])
    session = scene.connect()
    await scene.sessions._sweep(10)
    assert scene.read == scene.waiting
    assert session.frames.size == len(scene.waiting)


async def test_a_coordinator_that_does_not_read_is_passed_over() -> None:
    """H6, J10: results go to who has least to read; where nobody reads, nothing gathers beyond the bound."""
    scene = Scene([uuid7() for _ in range(50)])
    stuck, other = scene.connect(), scene.connect()
    for _ in range(sessions.MOST_UNSENT // 2 + 1):
        stuck.frames.put("results", result(10))
    await scene.sessions._sweep(10)
    assert other.frames.size == 50
    scene.sessions._sessions.remove(other)
    before = stuck.frames.size
    await scene.sessions._sweep(10)
    assert stuck.frames.size == before
    while stuck.frames.size <= sessions.MOST_UNSENT:
        stuck.frames.put("results", result(10))
    assert stuck.congested
    run = Run.fresh(uuid7())
    run.state, run.ended_at, run.outcome = "COMPLETED", 1, "SUCCESS"
    before = stuck.frames.size
    scene.sessions.ended(run)
    assert stuck.frames.size == before
    assert scene.sessions.unacknowledged == 1
