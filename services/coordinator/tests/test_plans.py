"""Plans of several runs, decided by the core alone."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import msgspec
import pytest
from tierflow_coordinator.core import commands, states
from tierflow_coordinator.core.plan import FlowChoice, PlannedRun
from tierflow_coordinator.core.planning import allocation_of
from tierflow_coordinator.core.react import open_effects, react
from tierflow_coordinator.core.swarm import Swarm
from tierflow_runtime.values import Allocation, BlobRef, Usage

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from plan_world import BOOM, FIRST, LOST, Walk, choice, create, planned, walked

TRIAGE = (
    planned("triage"),
    planned("collect", condition="runs.triage.output.verdict == 'insufficient data'"),
    planned("answer", needs=("collect",), condition="always() && runs.triage.state == 'COMPLETED'"),
)


def test_triage_decides_what_follows() -> None:
    """B17: 'insufficient data' leads to the collection of data, 'sufficient' skips it; the reason is the condition that was false."""
    short = walked(*TRIAGE, ends={"triage": '{"verdict": "sufficient"}', "answer": '{"a": 1}'})
    assert short.states == {"triage": "COMPLETED", "collect": "SKIPPED", "answer": "COMPLETED"}
    assert short.reason("collect") == "its condition is false: runs.triage.output.verdict == 'insufficient data'"
    assert short.swarm.state == states.COMPLETED
    assert json.loads(str(short.swarm.output)) == {"answer": {"a": 1}}
    long = walked(*TRIAGE, ends={"triage": '{"verdict": "insufficient data"}'})
    assert long.states == dict.fromkeys(("triage", "collect", "answer"), "COMPLETED")
    assert long.swarm.usage == Usage(steps=3)


def test_one_run_at_a_time_each_with_an_id_of_its_moment() -> None:
    """B17, R8: the first run has the id that the client was told; later ones are UUIDv7s of the moment in which they were decided, the same for the same decision."""
    walk = Walk(create(*TRIAGE))
    again = Walk(create(*TRIAGE))
    assert walk.swarm.run is not None
    assert walk.swarm.run.run_id == FIRST
    for each in (walk, again):
        each.end(output='{"verdict": "insufficient data"}')
    assert walk.swarm == again.swarm
    second = walk.swarm.run.run_id
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", second)
    assert int(second[:8] + second[9:13], 16) == walk.now // 1000
    assert second != FIRST


@pytest.mark.parametrize(
    ("condition", "completed", "tolerated", "failed", "skipped", "after_failure"),
    [
        ("", True, True, False, False, False),
        ("success()", True, True, False, False, False),
        ("failure()", False, False, True, False, True),
        ("always()", True, True, True, True, True),
        ("runs.a.state == 'COMPLETED'", True, False, False, False, False),
        ("always() && runs.a.state != 'FAILED'", True, False, False, True, True),
        ("!success()", False, False, True, True, True),
    ],
)
def test_conditions_mean_what_they_mean_in_flows(
    condition: str, completed: bool, tolerated: bool, failed: bool, skipped: bool, after_failure: bool
) -> None:
    """B17, E10: the table of docs/flows.md, for runs."""
    b = planned("b", needs=("a",), condition=condition)
    seen = [
        walked(planned("a"), b),
        walked(planned("a", tolerate=True), b, ends={"a": "FAILED"}),
        walked(planned("a"), b, ends={"a": "FAILED"}),
        walked(planned("a", condition="input.x == 2"), b, given='{"x": 1}'),
        walked(planned("z"), planned("a", needs=("z",)), b, ends={"z": "FAILED"}),
    ]
    assert [walk.states["b"] == "COMPLETED" for walk in seen] == [completed, tolerated, failed, skipped, after_failure]
    assert [walk.swarm.state for walk in seen] == ["COMPLETED", "COMPLETED", "FAILED", "COMPLETED", "FAILED"]
    assert seen[1].swarm.outcome == "PARTIAL"
    assert seen[2].swarm.failure == BOOM, "F23: not relabelled"


def test_a_choice_chooses() -> None:
    """B17, E13: the runs of the first case that is true; all others that it names are skipped; branches meet again."""
    plan = (
        planned("triage"),
        choice(
            "route", ("runs.triage.output.n < 2", ("small",)), ("runs.triage.output.n < 3", ("big",)), default=("none",)
        ),
        planned("small"),
        planned("big"),
        planned("none"),
        planned("after-small", needs=("small",)),
        planned("report", needs=("after-small", "big", "none")),
    )
    walk = walked(*plan, ends={"triage": '{"n": 2}'})
    assert [name for name, state in walk.states.items() if state == "COMPLETED"] == ["triage", "route", "big", "report"]
    assert walk.reason("route") == "case 1 is true: runs.triage.output.n < 3"
    assert walk.reason("small") == "route has not chosen it: case 1 is true: runs.triage.output.n < 3"
    assert walk.reason("after-small") == "needs small, which route has not chosen"
    default = walked(*plan, ends={"triage": '{"n": 5}'})
    assert default.states["none"] == "COMPLETED"
    assert default.reason("route") == "no case is true"


def test_a_result_names_the_next_flow() -> None:
    """B17: the flow itself comes from a result, out of those that the plan allows; any other name is a typed failure."""
    flows = (FlowChoice(name="collect", hash="c" * 64), FlowChoice(name="answer", version="2", hash="a" * 64))
    plan = (planned("triage"), PlannedRun(id="next", flows=flows, naming="${{ runs.triage.output.next }}"))
    walk = Walk(create(*plan))
    walk.end(output='{"next": "answer@2"}')
    assert walk.swarm.plan is not None
    assert walk.swarm.plan.standings["next"].flow == flows[1]
    refused = walked(*plan, ends={"triage": '{"next": "rm -rf"}'})
    assert refused.states["next"] == "FAILED"
    assert refused.swarm.failure is not None
    assert refused.swarm.failure.code == "EXPRESSION_FAILED"
    assert '"rm -rf" is not among collect, answer' in refused.swarm.failure.message


def test_inputs_are_made_from_results() -> None:
    """B17: a run's input is a template; without one it gets the plan's input. What is large is handed on, and not looked into."""
    plan = (
        planned("a"),
        planned("b", input='{"from": "${{ runs.a.output }}", "text": "got ${{ input.n }}"}'),
        planned("c", input='"${{ runs.b.output }}"'),
    )
    walk = Walk(create(*plan, given='{"n": 5}'))
    assert walk.swarm.plan is not None
    standings = walk.swarm.plan.standings
    assert standings["a"].input == '{"n": 5}'
    walk.end(output='{"x": [1]}')
    assert json.loads(str(standings["b"].input)) == {"from": {"x": [1]}, "text": "got 5"}
    large = BlobRef(sha256="f" * 64, size=100_000)
    walk.end(output=large)  # type: ignore[arg-type]
    assert standings["c"].input == large
    walk.end(output=large)  # type: ignore[arg-type]
    assert json.loads(str(walk.swarm.output)) == {
        "c": {"ref": {"sha256": "f" * 64, "size": 100_000, "media_type": "application/json"}}
    }


def test_the_plan_words_its_output() -> None:
    """B17: the swarm's output is a template over the results, of those that took place."""
    output = '{"best": "${{ default(runs.b.output, runs.a.output) }}", "b": "${{ runs.b.state }}"}'
    walk = walked(planned("a"), planned("b", condition="false"), output=output, ends={"a": '{"v": 1}'})
    assert json.loads(str(walk.swarm.output)) == {"best": {"v": 1}, "b": "SKIPPED"}


def test_the_blackboard_is_seen() -> None:
    """B17, U1: a condition reads what agents have written, at the moment in which it is decided."""
    walk = Walk(create(planned("a"), planned("b", needs=("a",), condition="board.verdict == 'more'")))
    change = commands.KeyChange(key="verdict", value='"more"', size=6, sha256="0" * 64)
    walk.tell(commands.WriteKeys(command_id="w", changes=(change,)))
    walk.end()
    assert walk.running == "b"
    missing = walked(planned("a"), planned("b", needs=("a",), condition="board.verdict == 'more'"))
    assert missing.states["b"] == "FAILED"
    assert "board.verdict is not there" in missing.reason("b")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("runs.a.output.missing == 1", "runs.a.output.missing is not there"),
        ("runs.a.output.x", "expected true or false, found an integer"),
        ("range(100000).all(x, range(1000).all(y, true))", "costs more than 500000 units"),
    ],
)
def test_a_condition_that_cannot_be_evaluated_fails(condition: str, told: str) -> None:
    """B17: typed, with the expression; never silently false. What needs the run is skipped after a failure, the swarm fails."""
    walk = walked(
        planned("a"),
        planned("b", needs=("a",), condition=condition),
        planned("c", needs=("b",)),
        planned("tidy", needs=("c",), condition="always()"),
        ends={"a": '{"x": 1}'},
    )
    assert walk.states == {"a": "COMPLETED", "b": "FAILED", "c": "SKIPPED", "tidy": "COMPLETED"}
    assert walk.swarm.failure is not None
    assert walk.swarm.failure.code == "EXPRESSION_FAILED"
    assert told in walk.swarm.failure.message
    assert walk.reason("c") == "needs b, which is FAILED"


def test_a_run_that_tier_2_refuses_has_failed() -> None:
    """B17, F23: what runs if something failed still runs; what Tier 2 said is the cause."""
    walk = Walk(create(planned("a"), planned("b", needs=("a",), condition="failure()")))
    assert walk.swarm.run is not None
    walk.tell(commands.RefuseRun(run_id=walk.swarm.run.run_id, failure=LOST))
    assert walk.running == "b"
    walk.end()
    assert walk.swarm.failure is not None
    assert walk.swarm.failure.cause == LOST


def test_a_pause_is_between_the_runs() -> None:
    """B17, G4: a run that ends while the swarm is to pause leaves it paused; nothing is decided before it is resumed."""
    walk = Walk(create(*TRIAGE))
    walk.steer("pause")
    walk.end(output='{"verdict": "sufficient"}')
    assert walk.swarm.state == states.PAUSED
    assert walk.states["collect"] == "PENDING"
    assert not open_effects(walk.swarm)
    reply = walk.steer("resume", "go")
    assert reply.state == states.RUNNING
    assert walk.running == "answer"
    told = [effect for event, _ in walk.journal[-4:] for effect in react(walk.swarm, event)]
    assert all(isinstance(effect, commands.RequestRun) for effect in told), "the resume is none to the new run"
    assert [type(effect) for effect in open_effects(walk.swarm)] == [commands.RequestRun]


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_stop_is_between_the_runs(how: str) -> None:
    """B17, G8: a run that completes while the swarm is to stop is the last; where it was the plan's last, the plan is complete."""
    walk = Walk(create(*TRIAGE))
    walk.steer(how)
    walk.end(output='{"verdict": "sufficient"}')
    assert (walk.swarm.state, walk.swarm.outcome) == (states.STOPPED, "CANCELLED")
    last = Walk(create(planned("a")))
    last.steer(how)
    last.end()
    assert last.swarm.state == states.COMPLETED


def test_a_cancelled_run_stops_the_swarm() -> None:
    """B17: as with one flow."""
    walk = Walk(create(*TRIAGE))
    walk.end("CANCELLED")
    assert walk.swarm.state == states.STOPPED
    assert walk.states["answer"] == "PENDING"


def test_retry_goes_on_where_it_failed() -> None:
    """B17, R31: the run that failed gets its next generation, what comes after it is decided anew; what it used is counted once."""
    walk = Walk(
        create(planned("a"), planned("b", needs=("a",)), planned("c", needs=("b",)), planned("d", needs=("a",)))
    )
    walk.end()
    walk.end("FAILED", usage=Usage(steps=2))
    assert walk.running == "d"
    walk.end()
    assert walk.swarm.state == states.FAILED
    failed_run = walk.swarm.plan.standings["b"].run_id  # type: ignore[union-attr]
    walk.steer("retry", "again")
    assert walk.swarm.run is not None
    assert (walk.swarm.run.run_id, walk.swarm.run.generation, walk.swarm.generation) == (failed_run, 2, 2)
    told = [effect for event, _ in walk.journal[-3:] for effect in react(walk.swarm, event)]
    assert {type(effect) for effect in told} == {commands.CommandRun, commands.RequestRun}
    walk.end(usage=Usage(steps=5))
    assert walk.running == "c"
    walk.end()
    assert (walk.swarm.state, walk.swarm.generation) == (states.COMPLETED, 2)
    assert walk.swarm.usage == Usage(steps=1 + 5 + 1 + 1)


def test_retry_of_a_decision() -> None:
    """B17: where a condition failed there is no run to retry: it is evaluated again, and what it needs may be there now."""
    walk = walked(planned("a"), planned("b", needs=("a",), condition="board.go"))
    assert walk.swarm.state == states.FAILED
    walk.steer("retry")
    assert walk.swarm.state == states.FAILED, "still not there"
    assert walk.swarm.generation == 2


def test_each_run_gets_what_is_left() -> None:
    """B17, H1: the budget is one for all runs; what one used the next cannot use. A retried run has what it had, and what the others left."""
    walk = Walk(create(planned("a"), planned("b", needs=("a",)), allocation=Allocation(credits=100, steps=10, depth=3)))
    walk.end(usage=Usage(credits=70, steps=9, attempts=9))
    assert walk.swarm.run is not None
    assert allocation_of(walk.swarm, walk.swarm.run.run_id) == Allocation(credits=30, steps=1, depth=3)
    walk.end("FAILED", usage=Usage(credits=20))
    walk.steer("retry")
    assert allocation_of(walk.swarm, walk.swarm.run.run_id).credits == 30


def test_nothing_to_do_is_done_at_once() -> None:
    """B17: a plan whose conditions are all false completes, with everything shown as skipped."""
    walk = Walk(create(planned("a", condition="has(input.wanted)"), planned("b", needs=("a",))))
    assert walk.swarm.state == states.COMPLETED
    assert walk.states == {"a": "SKIPPED", "b": "SKIPPED"}
    assert json.loads(str(walk.swarm.output)) == {"b": None}


def test_a_plain_swarm_is_stored_as_before() -> None:
    """K6: a swarm with one flow has no plan, and its snapshot can be read by the builds before; one with a plan cannot."""
    plain = Swarm(swarm_id="s")
    assert (plain.plan, plain.schema) == (None, 1)
    assert Walk(create(planned("a"))).swarm.schema == 2
    assert msgspec.structs.replace(plain) == plain
