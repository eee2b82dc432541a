"""Runs of other flows as their parents' orchestrator handles them: nesting, and what becomes of them when a parent is stopped (E12, Q7)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_flow import Flow, parse
from tierflow_orchestrator.children import Children
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.nesting import MOST_NESTED, look_into, nested_wrongly
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Context, Failure, FailureError

from .core.fakes import Shell, flow, subflow


class Registered:
    """Flows as they are registered."""

    def __init__(self, *texts: str) -> None:
        self.flows = {made.name: made for made in (parse(text) for text in texts)}

    async def find(self, tenant: str, ref: flow_pb2.FlowRef) -> Flow:
        if ref.name not in self.flows:
            raise FailureError(failure("FLOW_NOT_FOUND", f"there is no flow {ref.name}"))
        return self.flows[ref.name]


def calling(name: str, *others: str) -> str:
    """A flow that runs others."""
    steps = ", ".join(f"s{number}: {{flow: {other}}}" for number, other in enumerate(others))
    return f"name: {name}\nsteps: {{{steps or 'a: {call: x}'}}}"


async def wrong(registered: Registered, text: str) -> list[tuple[str, str, bool]]:
    found = await look_into(parse(text), registered, "t")  # type: ignore[arg-type]
    return [(each.code, each.description, each.refuses) for each in found]


async def test_circles_are_seen_when_a_flow_is_checked() -> None:
    """E12: however long they are; two ways to one flow are no circle."""
    registered = Registered(calling("a", "b"), calling("b", "c"), calling("c", "d", "d"), calling("d"))
    assert await wrong(registered, calling("top", "a", "c")) == []
    ((code, text, refuses),) = await wrong(registered, calling("d", "a"))
    assert (code, refuses) == ("FLOW_INVALID", True)
    assert text == "flow d would run within itself: d -> a -> b -> c -> d"


async def test_what_is_not_registered_is_said() -> None:
    """E12, L7: of the flow's own steps no run begins without it."""
    assert await wrong(Registered(), calling("top", "nowhere")) == [
        ("FLOW_NOT_FOUND", "there is no flow nowhere", True)
    ]
    deeper = Registered(calling("a", "nowhere"))
    assert await wrong(deeper, calling("top", "a")) == [("FLOW_NOT_FOUND", "there is no flow nowhere", False)]


async def test_depth_is_limited() -> None:
    """E12: when a flow is checked, and when it runs."""
    chain = [calling(f"f{n}", f"f{n + 1}") for n in range(MOST_NESTED + 1)] + [calling(f"f{MOST_NESTED + 1}")]
    found = await wrong(Registered(*chain[1:]), chain[0])
    assert [(code, "at most" in text) for code, text, _ in found] == [("FLOW_INVALID", True)]
    leaf = parse(calling("leaf"))
    names = tuple(f"f{n}" for n in range(MOST_NESTED))
    assert nested_wrongly(leaf, Context(ancestors=names[:-1])) is None
    for ancestors in (names, ("a", "leaf", "b")):
        refused = nested_wrongly(leaf, Context(ancestors=ancestors))
        assert refused is not None
        assert refused.code == "FLOW_INVALID"


class Scene:
    """An orchestrator that owns a parent."""

    def __init__(self, close: str) -> None:
        self.shell = Shell(flow(subflow("c", "other", settings={"on_parent_close": close})))
        entity = SimpleNamespace(state=self.shell.run, closing=False, seq=1)
        host = SimpleNamespace(
            entities={self.shell.run.id: entity},
            spawn=lambda work: self.working.append(asyncio.ensure_future(work)),
            writer=SimpleNamespace(acknowledge=lambda run_id, generation: self.acknowledged.append(run_id)),
        )
        durable = SimpleNamespace(
            host=host,
            router=SimpleNamespace(command=self.told),
            reader=SimpleNamespace(view=self.view),
            instance=SimpleNamespace(alive=True),
        )
        self.working: list[Any] = []
        self.acknowledged: list[str] = []
        self.heard: list[Any] = []
        self.cancelled: list[str] = []
        self.buried = False
        self.weather = 0
        self.children = Children(durable, start=None, command=self.command, traceparent=lambda *_: "")  # type: ignore[arg-type]

    async def told(self, run_id: str, command: Any, command_id: str = "") -> None:
        if self.weather:
            self.weather -= 1
            raise FailureError(failure("UNAVAILABLE", "not now"))
        self.heard.append(command)

    async def command(self, request: pb.CommandRunRequest) -> pb.CommandRunResponse:
        self.cancelled.append(request.run_id)
        return pb.CommandRunResponse()

    async def view(self, run_id: str, look: Any) -> Any:
        return self.buried

    async def stop(self) -> None:
        run = self.shell.run
        for _ in range(2):  # whatever is said twice is done once at a time
            self.children.stop(run, run.steps["c"])
        await asyncio.gather(*self.working)


@pytest.mark.parametrize(
    ("close", "buried", "cancels", "reports"),
    [("cancel", False, 1, 0), ("cancel", True, 1, 1), ("wait", False, 0, 0), ("abandon", False, 0, 1)],
)
async def test_what_becomes_of_it_when_its_parent_is_stopped(
    close: str, buried: bool, cancels: int, reports: int
) -> None:
    """Q7, R29: cancelled (one that never came is reported as such), waited for, or left to itself."""
    scene = Scene(close)
    scene.buried = buried
    await scene.stop()
    assert len(scene.cancelled) == cancels
    assert [type(command) for command in scene.heard] == [commands.ReportResult] * reports
    assert all(command.state == "CANCELLED" for command in scene.heard)


async def test_a_result_is_brought_until_it_is_stored() -> None:
    """R28, E12: acknowledged only then; over whatever weather there is."""
    scene = Scene("cancel")
    scene.weather = 3
    child = Run("01a1f941-dbb2-73a6-b6de-ee2ae9930ee9")
    child.state, child.outcome, child.flow_name = "FAILED", "FAILURE", "other"
    child.failure = Failure(code="STEP_FAILED", message="no")
    child.context = Context(parent_id=scene.shell.run.id, attempt_id=scene.shell.attempt_id("c"))
    scene.children.ended(child)
    assert scene.acknowledged == []
    await asyncio.gather(*scene.working)
    assert scene.acknowledged == [child.id]
    (report,) = scene.heard
    assert (report.state, report.failure.code, report.failure.cause) == ("FAILED", "STEP_FAILED", child.failure)
