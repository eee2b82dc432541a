"""Addresses of executors that change: names that cannot be resolved, processes at new addresses, and addresses that somebody else has taken."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_orchestrator import dispatcher
from tierflow_orchestrator.discovery import follow
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link

RUN = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"


class Heard(Reports):
    """Notes what is lost."""

    def __init__(self) -> None:
        self.lost_ones: list[str] = []

    def lost(self, run_id: str, attempt_id: str, reason: str) -> None:
        self.lost_ones.append(attempt_id)


class Still(Link):
    """A link whose stream opens and ends when the test says so."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def greet(self, name: str, executor_id: str) -> None:
        self._greet(pb.ExecutorHello(name=name, executor_id=executor_id, slots=8))

    def part(self) -> None:
        self._parted()


class Scene:
    """A dispatcher that knows addresses by being told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dispatcher, "Link", Still)
        self.heard = Heard()
        self.dispatcher = Dispatcher((), self.heard, lambda: True, lost_after=30.0)

    def at(self, address: str) -> Still:
        if address not in self.dispatcher._links:
            self.dispatcher._appeared(address)
        link: Any = self.dispatcher._links[address]
        return link

    def fly(self, link: Link, attempt_id: str, *, seconds_ago: float = 0.0) -> None:
        """An attempt is under way there, for some time."""
        self.dispatcher.board(link, attempt_id, RUN, "a")
        self.dispatcher.send(attempt_id, step_pb2.StepExecutionRequest)
        self.dispatcher.flights[attempt_id].since -= seconds_ago
        self.dispatcher.flights[attempt_id].due = time.monotonic() + 600

    async def sent(self, link: Link) -> dict[str, list[Any]]:
        frames: dict[str, list[Any]] = {}
        while link.frames.size:
            for name, items in (await link.frames.next()).items():
                frames.setdefault(name, []).extend(items)
        return frames


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.mark.interpreted
async def test_a_process_at_a_new_address(scene: Scene) -> None:
    """R25, O7: an executor keeps its process and gets another address: its attempts are asked for there, and none is lost."""
    old = scene.at("10.0.0.1:1")
    old.greet("e", "one")
    scene.fly(old, "x/a/1", seconds_ago=100)
    new = scene.at("10.0.0.2:1")
    new.greet("e", "one")
    assert (await scene.sent(new))["adopt"] == ["x/a/1"]
    old.part()
    scene.dispatcher._vanished("10.0.0.1:1")
    scene.dispatcher._give_up()
    assert (scene.heard.lost_ones, new.used) == ([], 1)
    assert list(scene.dispatcher._links) == ["10.0.0.2:1"]


@pytest.mark.interpreted
async def test_an_address_that_another_has_taken(scene: Scene) -> None:
    """R25, R26, O7: at an executor's address there is another one: its own attempts are not lost before their time, are not believed of the other, and are adopted where it appears."""
    link = scene.at("10.0.0.1:1")
    link.greet("a", "one")
    scene.fly(link, "x/a/1", seconds_ago=100)
    await scene.sent(link)
    link.part()
    link.greet("b", "one")
    assert await scene.sent(link) == {}
    scene.dispatcher.heard(link, pb.ExecuteStepsResponse(statuses=[pb.AttemptStatus(attempt_id="x/a/1", state=0)]))
    scene.dispatcher._give_up()
    assert scene.heard.lost_ones == []
    assert [found.key for found in scene.dispatcher._by_key.values()] == ["b/one"]
    assert link.used == 0
    elsewhere = scene.at("10.0.0.2:1")
    elsewhere.greet("a", "one")
    assert (await scene.sent(elsewhere))["adopt"] == ["x/a/1"]
    assert (elsewhere.used, link.used) == (1, 0)


@pytest.mark.interpreted
async def test_who_does_not_come_back_is_lost_in_its_time(scene: Scene) -> None:
    """R26: an executor whose address was taken and that appears nowhere has the time of a lost one."""
    link = scene.at("10.0.0.1:1")
    link.greet("a", "one")
    scene.fly(link, "x/a/1")
    link.greet("b", "one")
    scene.dispatcher.flights["x/a/1"].since -= 31
    scene.dispatcher._give_up()
    assert scene.heard.lost_ones == ["x/a/1"]


@pytest.mark.interpreted
async def test_who_is_not_listed_any_more_ends_its_work(scene: Scene) -> None:
    """L6: a process that drains is taken off the list of addresses; what it does is heard until its stream ends."""
    link = scene.at("10.0.0.1:1")
    link.greet("a", "one")
    scene.fly(link, "x/a/1")
    scene.dispatcher._vanished("10.0.0.1:1")
    assert link.connected
    assert scene.dispatcher.links() == [link]
    scene.dispatcher._appeared("10.0.0.1:1")
    scene.dispatcher._vanished("10.0.0.1:1")
    link.part()
    assert scene.dispatcher.links() == []
    scene.dispatcher._give_up()
    assert scene.heard.lost_ones == []


@pytest.mark.interpreted
async def test_two_ways_to_one_process(scene: Scene) -> None:
    """R26, O7: a process is met at two addresses; when the way that was used breaks, the other is taken, and nothing is lost."""
    first, second = scene.at("10.0.0.1:1"), scene.at("[fd00::1]:1")
    first.greet("a", "one")
    second.greet("a", "one")
    scene.fly(second, "x/a/1")
    await scene.sent(first)
    second.part()
    assert (await scene.sent(first))["adopt"] == ["x/a/1"]
    scene.dispatcher.flights["x/a/1"].since -= 100
    scene.dispatcher._give_up()
    assert scene.heard.lost_ones == []


async def test_a_name_server_that_is_away_takes_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """R26, L6, O7: as long as a name cannot be resolved its last addresses count; a new address of a name is met, and one that is gone is told."""
    answers: list[list[str] | OSError] = [["10.0.0.1"], socket.gaierror("away"), ["10.0.0.2", "fd00::1"], []]
    seen: list[str] = []
    over = asyncio.Event()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not answers:
            over.set()
            raise socket.gaierror("away")
        answer = answers.pop(0)
        seen.append("?" if isinstance(answer, OSError) else str(len(answer)))
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    following = asyncio.create_task(
        follow(
            ["dns:///executors:7703", "10.9.9.9:1"],
            lambda address: seen.append(f"+{address}"),
            lambda address: seen.append(f"-{address}"),
            every=0.0,
        )
    )
    await asyncio.wait_for(over.wait(), 30)
    following.cancel()
    assert seen == ["1", "+10.0.0.1:7703", "+10.9.9.9:1", "?", "2", "+10.0.0.2:7703", "+[fd00::1]:7703", "-10.0.0.1:7703",
                    "0", "-10.0.0.2:7703", "-[fd00::1]:7703"]  # fmt: skip
