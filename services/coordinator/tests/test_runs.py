"""Runs that a coordinator asks for, and commands to them, while orchestrators come and go."""

from typing import Any

import pytest
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_coordinator.core import commands
from tierflow_coordinator.links import MOST_ASKED
from tierflow_coordinator.runs import Runs
from tierflow_runtime.values import Context

pytestmark = pytest.mark.interpreted
"""A link is stood in for."""

RUN = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"
CONTEXT = Context(tenant="t", user_id="u", run_id=RUN)
CANCEL = commands.CommandRun(run_id=RUN, command="cancel", command_id="c", actor="a", reason="r")


class Orchestrator:
    """A link that notes what is sent over it."""

    ready = True
    outstanding = 0
    asked = 0

    def __init__(self) -> None:
        self.sent: list[str] = []

    def put(self, field: str, item: Any) -> None:
        self.sent.append(field)

    put_first = put


class Scene:
    """Runs on a clock that stands still, with one orchestrator that is there or not."""

    def __init__(self) -> None:
        self.now = 100.0
        self.link: Orchestrator | None = None
        self.runs = Runs(self, clock=lambda: self.now)  # type: ignore[arg-type]
        self.runs.fleet = self  # type: ignore[assignment]

    def pick(self) -> Any:
        return self.link

    any = pick

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def connect(self) -> list[str]:
        """The orchestrator comes; what is sent to it at once."""
        self.link = Orchestrator()
        self.runs.link_up(self.link)  # type: ignore[arg-type]
        while self.runs._fire():
            pass
        return self.link.sent


class Window:
    """One orchestrator with room for any number, as long as it answers."""

    def __init__(self, link: Orchestrator) -> None:
        self._link = link

    def pick(self) -> Any:
        return self._link if self._link.asked < MOST_ASKED else None

    def any(self) -> Any:
        return self._link

    def busy(self) -> bool:
        return True

    def probe(self, *, waiting: int) -> None:
        pass


async def test_a_cancel_finds_the_first_orchestrator() -> None:
    """R29, Lesson 32: a swarm is ended by force while no orchestrator is connected, and let go: the cancel of its run is sent as soon as one is."""
    scene = Scene()
    scene.runs.request("s", RUN, run_pb2.RunExecutionRequest)
    scene.runs.command("s", CANCEL, CONTEXT)
    scene.runs.forget(RUN, but_command=True)
    assert scene.connect() == ["commands"]


async def test_a_run_and_its_cancel_are_sent_once_each() -> None:
    """R28, R29: both waited for an orchestrator, both are due at the same moment."""
    scene = Scene()
    scene.runs.request("s", RUN, run_pb2.RunExecutionRequest)
    scene.runs.command("s", CANCEL, CONTEXT)
    assert sorted(scene.connect()) == ["commands", "execute"]


async def test_an_orchestrator_is_asked_for_no_more_than_it_answers_soon() -> None:
    """J10, R28: beyond those without an answer runs wait here, are counted as behind, and each answer lets the next one out."""
    scene = Scene()
    link = scene.link = Orchestrator()
    scene.runs.fleet = Window(link)  # type: ignore[assignment]
    told: list[int] = []
    scene.runs.caught_up = lambda: told.append(scene.runs.behind)
    run_ids = [f"{number:04}" for number in range(MOST_ASKED + 100)]
    for run_id in run_ids:
        scene.runs.request("s", run_id, run_pb2.RunExecutionRequest)
    assert (len(link.sent), link.asked, scene.runs.behind) == (MOST_ASKED, MOST_ASKED, 100)
    answers = [orchestrator.StartRunResponse(run_id=run_id, created=True) for run_id in run_ids[:40]]
    scene.runs.received(link, orchestrator.ExecuteRunsResponse(accepted=answers))  # type: ignore[arg-type]
    scene.runs._advance()
    assert (len(link.sent), link.asked, scene.runs.behind) == (MOST_ASKED + 40, MOST_ASKED, 60)
    assert told[-1] == 60
    for run_id in run_ids[50:60]:
        scene.runs.forget(run_id)
    scene.runs._advance()
    assert (link.asked, scene.runs.behind) == (MOST_ASKED, 50)
    scene.runs.link_down(link)  # type: ignore[arg-type]
    assert link.asked == 0
