"""What holds for every plan of several runs, whatever happens and in whatever order."""

from __future__ import annotations

import pathlib
import sys

from hypothesis import given
from hypothesis import strategies as st
from tierflow_coordinator import wire
from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.plan import PlannedRun
from tierflow_coordinator.core.react import open_effects
from tierflow_coordinator.core.swarm import Swarm, evolve
from tierflow_coordinator.machine import SwarmMachine

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from plan_world import LOST, Walk, choice, create, planned, walked

_CONDITIONS = ["", "", "always()", "failure()", "input.n > 2", "!success()", "input.no == 1"]


@st.composite
def plans(draw: st.DrawFn) -> tuple[PlannedRun, ...]:
    """Plans whose runs need earlier ones; with choices."""
    runs: list[PlannedRun] = []
    free: list[str] = []
    for number in range(draw(st.integers(1, 7))):
        name = f"r{number}"
        needs = (
            tuple(draw(st.lists(st.sampled_from([run.id for run in runs]), unique=True, max_size=2))) if runs else ()
        )
        condition = draw(st.sampled_from(_CONDITIONS))
        runs.append(planned(name, needs=needs, condition=condition, tolerate=draw(st.booleans())))
        free.append(name)
    if len(runs) > 2 and draw(st.booleans()):
        named = draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=3))
        cases = [(draw(st.sampled_from(["input.n > 2", "true", "input.no"])), (name,)) for name in named]
        runs.insert(0, choice("pick", *cases))
    return tuple(runs)


_STEPS = st.sampled_from(["COMPLETED", "FAILED", "pause", "resume", "retry", "refuse", "take", "stop"])


@given(plans(), st.lists(st.tuples(_STEPS, st.booleans()), max_size=40))
def test_any_plan_in_any_order(plan: tuple[PlannedRun, ...], script: list[tuple[str, bool]]) -> None:
    """B17, R16, U1, U7: whatever ends, fails, pauses and restarts: the journal yields the state, also as bytes; one run at a time; each needs only what was decided; a swarm ends once in each generation."""
    walk = Walk(create(*plan, given='{"n": 3}'))
    machine = SwarmMachine()
    for number, (step, restart) in enumerate([*script, *[("resume", True), ("COMPLETED", True)] * 12]):
        _do(walk, step, f"c{number}")
        swarm = walk.swarm
        assert swarm.plan is not None
        running = [each for each, state in walk.states.items() if state == "RUNNING"]
        assert len(running) == (1 if swarm.run_open else 0), "one at a time"
        if restart:
            folded = Swarm(swarm_id="s")
            for event, time in walk.journal:
                evolve(folded, event, time)
            assert folded == swarm, "U7: memory is the journal"
            assert machine.load(machine.dump(swarm)) == swarm
            walk.swarm = folded
        if not (swarm.ended or swarm.state == states.PAUSED):
            assert swarm.run_open, "nothing is forgotten"
            assert any(isinstance(effect, commands.RequestRun) for effect in open_effects(swarm))
    assert walk.swarm.ended
    ends = [event for event, _ in walk.journal if isinstance(event, events.SwarmEnded)]
    assert len(ends) == walk.swarm.generation, "U1"
    _check_order(walk)


def _do(walk: Walk, step: str, command_id: str) -> None:
    run = walk.swarm.run
    if step in ("COMPLETED", "FAILED"):
        if walk.swarm.run_open and not walk.swarm.ended:
            walk.end(step)
    elif step in ("refuse", "take"):
        if run is not None:
            told = commands.RefuseRun(run_id=run.run_id, failure=LOST)
            walk.tell(told if step == "refuse" else commands.TakeRun(run_id=run.run_id))
    else:
        walk.steer(step, command_id)


def _check_order(walk: Walk) -> None:
    """No run is asked for before all that it needs is decided, and none of which the latest decision was that it is skipped has run since."""
    plan = walk.swarm.plan
    assert plan is not None
    decided: set[str] = set()
    running = ""
    for event, _ in walk.journal:
        if isinstance(event, events.RunRequested):
            assert not running
            assert decided.issuperset(plan.run(event.planned).needs)
            running = event.planned
        elif isinstance(event, events.PlanDecided):
            assert event.reason
            decided.add(event.planned)
            running = "" if running == event.planned else running
        elif isinstance(event, events.RunFinished):
            decided.add(running)
            running = ""


@given(plans())
def test_plans_are_coded_whole(plan: tuple[PlannedRun, ...]) -> None:
    """B17, A4: what is written of a plan and its decisions is read back."""
    walk = walked(*plan, given='{"n": 3}')
    for event, time in walk.journal:
        data = wire.encode(event, 1, time)
        batch = b"\x12" + _length(len(data)) + data
        ((_, _, read),) = wire.decode(batch)
        assert read == event


def _length(size: int) -> bytes:
    out = b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size])
