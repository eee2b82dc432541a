"""Explanations with what the shell knows of executors and queues (S5)."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.explaining import Explaining
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link

from .core.fakes import Shell, call, flow


class Scene(Explaining):
    """What an orchestrator sees."""

    def __init__(self) -> None:
        self._dispatcher = Dispatcher((), Reports(), lambda: True)

    def greet(self, handler: str, slots: int = 1, **labels: str) -> Link:
        """An executor introduces itself."""
        link = Link(f"127.0.0.1:{len(self._dispatcher._links) + 1}", self._dispatcher, lambda: True)
        self._dispatcher._links[link.address] = link
        hello = pb.ExecutorHello(name=link.address, executor_id="x", slots=slots, labels=labels)
        hello.handlers.add(name=handler)
        link._greet(hello)
        return link

    def why(self, **more: Any) -> Any:
        """What a step waits for that wants a slot."""
        found = self._explained(Shell(flow(call("a", **more)), auto=False).run, "a")
        assert found is not None
        (blocker,) = found.blockers
        return blocker


@pytest.mark.parametrize("labels", [{}, {"gpu": "big"}])
def test_nobody_could_take_it(labels: dict[str, str]) -> None:
    """S5, Lesson 43: no executor with the handler, or none with its labels."""
    scene = Scene()
    scene.greet("h" if labels else "other")
    blocker = scene.why(labels=labels)
    assert (blocker.kind, blocker.held_by) == ("NO_EXECUTOR", ())
    assert "h" in blocker.description


def test_an_executor_that_is_away_is_named() -> None:
    """S5: it has the handler, and does not answer."""
    scene = Scene()
    link = scene.greet("h")
    link._parted()
    blocker = scene.why()
    assert (blocker.kind, blocker.held_by) == ("NO_EXECUTOR", (link.key,))


def test_all_slots_are_in_use() -> None:
    """S5: whose, how many, and the place in line; who has the higher priority stands before."""
    scene = Scene()
    link = scene.greet("h", slots=2)
    link.used = 2
    slots = scene._dispatcher.slots
    run_id = Shell(flow(call("a")), auto=False).run.id
    for other, priority in (("one", 0), (run_id, 0), ("two", 0), ("three", 5)):
        assert slots.reserve(other, "h", {}, priority) is None
    blocker = scene.why()
    assert (blocker.kind, blocker.held_by, blocker.position) == ("SLOT", (link.key,), 3)
    assert "2 of 2 slots" in blocker.description
