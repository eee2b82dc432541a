"""Plans of what is executed again, and runs that start with the results of others."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_orchestrator.core.commands import Retry, ReusedStep
from tierflow_orchestrator.core.events import StepReused
from tierflow_orchestrator.core.planning import Plan, plan, plan_at_checkpoint
from tierflow_runtime.values import Failure, RetryPolicy, Reuse, Usage

from .fakes import SECOND, Ref, Shell, call, flow, map_
from .steered import sound

FLOW = flow(
    call("a"),
    call("b", "a", retry=RetryPolicy(max_attempts=2, jitter=0.0)),
    map_("m", 2, "a"),
    call("z", "b", "m"),
    failure_policy="CONTINUE",
)


def lived() -> Shell:
    """`a` took 3 s, `b` two attempts and failed, an item of `m` failed, `z` never ran."""
    shell = Shell(FLOW)
    shell.now += 3 * SECOND
    shell.complete("a", usage=Usage(credits=5, input_tokens=9))
    shell.fail("b", retryable=True)
    shell.now += 2 * SECOND
    shell.run.make_due(shell.now)
    shell.assign()
    shell.fail("b")
    shell.complete("m[0]")
    shell.fail("m[1]")
    assert shell.run.state == "FAILED"
    return shell


def planned(shell: Shell, kind: str, *step_ids: str) -> Plan:
    made = plan(shell.run, kind, step_ids)
    assert isinstance(made, Plan)
    return made


def test_the_plan_of_a_retry_is_what_the_retry_does() -> None:
    """S11, C9: what will be executed, what is reused, and what that used the last time; the retry does just that."""
    shell = lived()
    made = planned(shell, "RETRY")
    assert [(one.step_id, one.reason, one.attempts) for one in made.executed] == [
        ("b", "FAILED", 2),
        ("m", "FAILED", 1),
        ("z", "needs b", 0),
    ]
    assert made.reused == ("a",)
    assert made.usage.credits == 7 + 7 + 7
    assert made.attempts == 3
    assert 2 * SECOND < made.duration < 3 * SECOND
    assert [one.step_id for one in made.executed if not one.known] == ["z"]
    shell.tell(Retry(command_id="r"))
    assert sorted(shell.run.live) == ["b", "m[1]"]
    sound(shell)


@pytest.mark.parametrize(
    ("kind", "step_ids", "executed", "reused"),
    [
        ("FROM_STEPS", ("b",), ["b", "m", "z"], ("a",)),
        ("FROM_STEPS", ("a",), ["a", "b", "m", "z"], ()),
        ("FORK", ("a",), ["b", "m", "z"], ("a",)),
        ("REPLAY", (), ["a", "b", "m", "z"], ()),
    ],
)
def test_plans_of_new_runs(kind: str, step_ids: tuple[str, ...], executed: list[str], reused: tuple[str, ...]) -> None:
    """S11, Q9: the same for what starts as a new run; nothing about the run is changed by asking."""
    shell = lived()
    count = len(shell.journal)
    made = planned(shell, kind, *step_ids)
    assert ([one.step_id for one in made.executed], made.reused) == (executed, reused)
    assert len(shell.journal) == count


@pytest.mark.parametrize(
    ("kind", "step_ids", "code"),
    [
        ("FORK", ("b",), "INVALID_REQUEST"),
        ("FORK", ("nope",), "INVALID_REQUEST"),
        ("FROM_STEPS", (), "INVALID_REQUEST"),
        ("RETRY", (), "STATE_CONFLICT"),
    ],
)
def test_plans_that_cannot_be(kind: str, step_ids: tuple[str, ...], code: str) -> None:
    """S11: refused with a reason, as the thing itself would be."""
    shell = lived() if kind != "RETRY" else Shell(FLOW)
    refused = plan(shell.run, kind, step_ids)
    assert isinstance(refused, Failure)
    assert refused.code == code


def reusing(**results: Any) -> Shell:
    reused = tuple(ReusedStep(step_id=name, output=output, outcome="SUCCESS") for name, output in results.items())
    other = "0190f000-0000-7000-8000-000000000009"
    definition = flow(call("a"), call("b", "a", with_=Ref("steps.a.output")), call("c", "b"), call("x"))
    return Shell(definition, reuse=Reuse(run_id=other, step_ids=tuple(results)), reused=reused)


def test_a_run_that_starts_with_results_of_another() -> None:
    """Q9: they are COMPLETED from the beginning, are seen like any other result, and are told apart; nothing is executed for them."""
    shell = reusing(a='"from there"')
    assert shell.states() == {"a": "COMPLETED", "b": "SCHEDULED", "c": "PENDING", "x": "SCHEDULED"}
    assert shell.run.steps["b"].input == '"from there"'
    assert shell.run.steps["a"].reused_from
    assert len(shell.events(StepReused)) == 1
    sound(shell)
    for step_id in ("b", "c", "x"):
        shell.complete(step_id)
    assert (shell.run.state, shell.run.usage.attempts) == ("COMPLETED", 3)
    sound(shell, complete=True)


def test_results_without_those_before_them() -> None:
    """Q9: any result may be kept; what it needed runs all the same where it is not kept."""
    shell = reusing(b='"kept"')
    assert shell.states() == {"a": "SCHEDULED", "b": "COMPLETED", "c": "SCHEDULED", "x": "SCHEDULED"}
    for step_id in ("a", "c", "x"):
        shell.complete(step_id)
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_everything_is_there_already() -> None:
    """Q9: a run with nothing left to do ends at once."""
    shell = reusing(a="1", b="2", c="3", x="4")
    assert (shell.run.state, shell.run.output) == ("COMPLETED", '{"c":3,"x":4}')
    sound(shell, complete=True)


def test_plans_at_a_checkpoint_need_no_steps() -> None:
    """K2, S11: from a checkpoint on, what had completed by then is kept; a fork may still name fewer steps, and no others."""
    shell = lived()
    rerun = plan_at_checkpoint(shell.run, "FROM_STEPS", [])
    fork = plan_at_checkpoint(shell.run, "FORK", [])
    assert isinstance(rerun, Plan)
    assert isinstance(fork, Plan)
    assert rerun.reused == fork.reused == ("a",)
    assert [one.step_id for one in rerun.executed] == ["b", "m", "z"]
    again = plan_at_checkpoint(shell.run, "FROM_STEPS", ["a"])
    assert isinstance(again, Plan)
    assert again.reused == ()
    assert isinstance(plan_at_checkpoint(shell.run, "FORK", ["b"]), Failure)
    assert isinstance(plan(shell.run, "FROM_STEPS", []), Failure)
