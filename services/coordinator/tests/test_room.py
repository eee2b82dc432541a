"""Orchestrators without room: runs wait in line, and nobody is asked again and again (J10)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_coordinator.line import Line
from tierflow_coordinator.room import FIRST_STEP, MOST_STEP, Room
from tierflow_coordinator.wanted import Wanted
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]


class Narrow:
    """Makes an orchestrator take so many runs at once; counts what it refused."""

    def __init__(self, tier2: FakeOrchestrator, room: int) -> None:
        self.room = room
        self.refused: Counter[str] = Counter()
        self.most = 0
        self._tier2 = tier2
        self._take: Any = tier2._execute
        tier2._execute = self._execute  # type: ignore[method-assign]

    @property
    def under_way(self) -> int:
        return sum(not run.ended for run in self._tier2.runs.values())

    async def _execute(self, stream: Any, request: Any) -> None:
        run_id = request.context.run_id
        known = run_id in self._tier2.runs or run_id in self._tier2.tombstones
        if not known and self.under_way >= self.room:
            self.refused[run_id] += 1
            full = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_QUEUE_FULL, tier=failure_pb2.TIER_2, retryable=True)
            stream.send(refused=[orchestrator.RunRefused(run_id=run_id, failure=full)])
            return
        await self._take(stream, request)
        self.most = max(self.most, self.under_way)


async def test_who_finds_no_room_waits_and_goes_on(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J10, Lesson 34: with room for 5 of 60, each end lets the next one in, every swarm completes, and few requests are made in vain."""
    tier2.mode = "accept"
    narrow = Narrow(tier2, 5)
    answers = [await tier1.submit(request_of()) for _ in range(60)]
    ended = 0
    while ended < len(answers):
        open_runs = [run_id for run_id, run in tier2.runs.items() if not run.ended]
        for run_id in open_runs:
            await tier2.finish(run_id)
        ended += len(open_runs)
        await asyncio.sleep(0)
    states = [(await tier1.wait(answer.swarm_id)).state for answer in answers]
    assert set(states) == {state_pb2.SWARM_STATE_COMPLETED}
    assert narrow.most <= 5
    assert max(narrow.refused.values()) <= 4
    order = [answer.run_id for answer in answers]
    later = [order.index(run_id) for run_id in tier2.runs]
    assert sum(abs(place - number) for number, place in enumerate(later)) < 10 * len(order)


async def test_a_full_orchestrator_is_tried_again_now_and_then(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """J10: room that no end of ours has made is found too, and while there is none, few are sent."""
    tier2.mode = "complete"
    narrow = Narrow(tier2, 0)
    answers = [await tier1.submit(request_of()) for _ in range(40)]
    before = sum(narrow.refused.values())
    await eventually(lambda: sum(narrow.refused.values()) >= before + 2 * FIRST_STEP)
    assert sum(narrow.refused.values()) < before + 8 * FIRST_STEP
    narrow.room = 100
    for answer in answers:
        assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_a_swarm_in_line_can_be_cancelled(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J10, J2: nobody has it, nobody has room: it is stopped all the same, and soon."""
    tier2.mode = "accept"
    narrow = Narrow(tier2, 1)
    first = await tier1.submit(request_of())
    await eventually(lambda: first.run_id in tier2.runs)
    second = await tier1.submit(request_of())
    await eventually(lambda: narrow.refused[second.run_id] >= 1)
    await tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=second.swarm_id))
    assert (await asyncio.wait_for(tier1.wait(second.swarm_id), 60)).state == state_pb2.SWARM_STATE_STOPPED
    assert second.run_id not in tier2.runs


async def test_a_restart_of_a_full_orchestrator(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J10, R28: what is known of its room ends with the stream; all its runs are attached to again."""
    tier2.mode = "accept"
    Narrow(tier2, 3)
    answers = [await tier1.submit(request_of()) for _ in range(6)]
    await eventually(lambda: len(tier2.runs) == 3)
    await tier2.stop()
    await tier2.start()
    tier2.mode = "complete"
    for run_id in list(tier2.runs):
        await tier2.finish(run_id)
    for answer in answers:
        assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


def test_room() -> None:
    """J10: as large as it was when it was refused; tried beyond that in growing steps; forgotten with the stream."""
    room = Room()
    assert room.refused(7)
    assert not room.refused(6)
    assert room.limit == 6
    steps = []
    for _ in range(12):
        before = room.limit
        room.probe()
        steps.append(room.limit - before)
    assert steps[:3] == [FIRST_STEP, 2 * FIRST_STEP, 4 * FIRST_STEP]
    assert steps[-1] == MOST_STEP
    room.open()
    room.probe()
    assert room.limit == float("inf")


@pytest.mark.parametrize("times", [1, 3])
def test_line(times: int) -> None:
    """J10: the oldest first, each once, and who left is not found."""
    line = Line()
    for run_id in ("b", "c", "a") * times:
        line.join(Wanted("s", run_id, None))
    line.leave("b")
    assert len(line) == 2
    assert [each.run_id for each in (line.next(), line.next()) if each is not None] == ["a", "c"]
    assert line.next() is None
    line.join(Wanted("s", "b", None))
    assert "b" in line
