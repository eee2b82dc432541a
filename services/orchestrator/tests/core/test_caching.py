"""Results that are taken over instead of made anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import FlowError, parse
from tierflow_orchestrator.core import Run, decide, dump, load, react
from tierflow_orchestrator.core.caching import key_hash
from tierflow_orchestrator.core.commands import Cancel, Pause, Recall, Resume, StoreResult
from tierflow_orchestrator.core.events import CacheMissed, StepCompleted, VariablesSet
from tierflow_orchestrator.machine import is_waiting
from tierflow_runtime.values import Options, Usage
from tierflow_testing.history import check_history, shape_of

from .fakes import START, Shell, create
from .invariants import check_invariants

TEXT = """
name: %s
input: {n: integer}
steps:
  a:
    call: h
    with: {n: "${{ input.n }}"}
    cache: {key: {n: "${{ input.n }}"}, ttl: 1h, scope: %s}
    output_schema: {type: integer}
    validate: [output < 100]
    set: {got: "${{ output }}"}
  b: {call: h, needs: a, with: {got: "${{ vars.got }}"}}
"""


def shell_of(scope: str = "flow", name: str = "t", given: int = 1, **more: Any) -> Shell:
    return Shell(parse(TEXT % (name, scope)), input=json.dumps({"n": given}), **more)


def key_of(shell: Shell, step_id: str = "a") -> str:
    return key_hash(shell.run, shell.run.steps[step_id])


def hit(shell: Shell, output: str = "7", step_id: str = "a") -> Recall:
    return Recall(
        step_id=step_id,
        key_hash=key_of(shell, step_id),
        found=True,
        output=output,
        run_id="r",
        made_by="x",
        stored_at=5,
    )


def stored(shell: Shell) -> list[StoreResult]:
    effects = [effect for event in shell.events(StepCompleted) for effect in react(shell.run, event)]
    return [effect for effect in effects if isinstance(effect, StoreResult)]


def test_a_stored_result_completes_the_step() -> None:
    """Q15, K10: no attempt, no cost; the event says where it comes from; what follows sees it as any other."""
    shell = shell_of()
    assert list(shell.run.lookups) == ["a"]
    assert not is_waiting(shell.run)
    shell.tell(hit(shell))
    step, completed = shell.run.steps["a"], shell.events(StepCompleted)[0]
    assert (step.state, step.output, step.epoch, step.usage) == ("COMPLETED", "7", 0, Usage())
    assert (completed.cached.run_id, completed.cached.step_id, completed.cached.stored_at) == ("r", "x", 5)
    assert [event.step_id for event in shell.events(VariablesSet)] == ["a"]
    assert shell.dispatched[0].input == '{"got":7}'
    assert not stored(shell)
    shell.complete("b")
    shell.check()
    assert not check_history(shell.journal, **shape_of(shell.flow), complete=True)


def test_without_one_it_is_performed_and_kept() -> None:
    """Q15: under the key that was looked for, also where the attempt comes after a retry and a restart."""
    shell = shell_of()
    key = key_of(shell)
    shell.tell(Recall(step_id="a", key_hash=key))
    assert shell.events(CacheMissed) == [CacheMissed(step_id="a", key_hash=key)]
    shell.run = load(dump(shell.run))
    shell.run.flow = shell.flow
    shell.complete("a", "5")
    (effect,) = stored(shell)
    assert (effect.key_hash, effect.output, effect.ttl) == (key, "5", 3_600_000_000)
    shell.check()


def test_what_is_not_whole_is_not_kept() -> None:
    """F18: a result with reservations, or a failure."""
    for outcome in ("DEGRADED", "PARTIAL"):
        shell = shell_of()
        shell.tell(Recall(step_id="a", key_hash=key_of(shell)))
        shell.complete("a", "5", outcome=outcome)
        assert not stored(shell)


@pytest.mark.parametrize("output", ['"text"', "100"])
def test_a_stored_result_that_does_not_fit_is_made_anew(output: str) -> None:
    """F20: it is checked as one that was just made."""
    shell = shell_of()
    shell.tell(hit(shell, output))
    assert (shell.state("a"), len(shell.events(CacheMissed))) == ("SCHEDULED", 1)


def test_whose_results_stand_for_whose() -> None:
    """Q15, L4: scope, handler, version and key; rehearsals keep to themselves. The tenant is part of the table's key."""
    one = {scope: key_of(shell_of(scope)) for scope in ("tenant", "flow", "run")}
    assert len(set(one.values())) == 3
    assert key_of(shell_of(given=2)) != one["flow"]
    assert key_of(shell_of(name="other")) != one["flow"]
    assert key_of(shell_of("tenant", "other")) == one["tenant"]
    assert key_of(shell_of("flow")) == one["flow"]
    assert key_of(shell_of("flow", options=Options(test_mode=True))) != one["flow"]
    text = TEXT % ("t", "flow")
    for other in (
        text.replace("call: h\n    with", "call: g\n    with"),
        text.replace("scope: flow", "scope: flow, version: v2"),
    ):
        shell = Shell(parse(other), input='{"n": 1}')
        assert key_of(shell) != one["flow"]


def test_items_are_looked_up_one_by_one() -> None:
    """Q8, Q15: each under its key, those of later turns too."""
    text = "name: t\nsteps: {m: {map: [1, 2, 3], call: h, concurrency: 2, with: {i: '${{ item }}'}, cache: {key: '${{ item }}'}}}"
    shell = Shell(parse(text))
    assert list(shell.run.lookups) == ["m[0]", "m[1]"]
    shell.tell(hit(shell, "10", "m[0]"))
    assert list(shell.run.lookups) == ["m[1]", "m[2]"]
    shell.tell(Recall(step_id="m[1]", key_hash=key_of(shell, "m[1]")))
    shell.tell(hit(shell, "30", "m[2]"))
    shell.complete("m[1]", "20")
    assert shell.run.output == '{"m":[10,20,30]}'
    check_invariants(shell.run)
    shell.check()


def test_pause_and_cancel_come_before_the_answer() -> None:
    """G5, G6, G10: while the run is paused nothing completes; after a cancel there is nothing to answer."""
    shell = shell_of()
    shell.tell(Pause(command_id="p"))
    assert not shell.tell(hit(shell)).reply.applied
    shell.tell(Resume(command_id="r"))
    assert list(shell.run.lookups) == ["a"]
    shell.tell(Cancel(command_id="c"))
    assert not shell.run.lookups
    assert not shell.tell(Recall(step_id="a", key_hash="k")).reply.applied
    assert shell.run.state == "CANCELLED"
    shell.check()


def test_a_key_that_cannot_be_made_fails_the_step() -> None:
    """E15: as every expression."""
    shell = Shell(parse("name: t\nsteps: {a: {call: h, cache: {key: '${{ input.nothing }}'}}}"))
    shell.tell(Recall(step_id="a", key_hash=""))
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert (failure.code, failure.operation, shell.run.state) == ("EXPRESSION_FAILED", "cache", "FAILED")


def test_what_has_side_effects_is_not_cached() -> None:
    """E5: and a key is needed; both are told."""
    for keys, path, words in (
        ("cache: {key: 1}, side_effecting: true", "steps.a.cache", "side effects"),
        ("cache: {ttl: 1h}", "steps.a.cache", "key is missing"),
        ("cache: {key: 1, ttl: 1ms}", "steps.a.cache.ttl", "must be from 1s"),
        ("cache: {key: 1, scope: all}", "steps.a.cache.scope", "not one of tenant, flow, run"),
    ):
        with pytest.raises(FlowError) as raised:
            parse(f"name: t\nsteps: {{a: {{call: h, {keys}}}}}")
        assert [p.path for p in raised.value.problems if words in p.description] == [path]


def test_flows_without_a_cache_pay_nothing() -> None:
    """E3: no event, no look-up."""
    run = Run.fresh("r")
    run.flow = parse("name: t\nsteps: {a: {call: h}}")
    decide(run, create(run.flow), START)
    assert not run.lookups
    assert run.next_ready("h") == "a"
