"""Norms: the gate before every dispatch. See L12, L13, L14, B3 and docs/norms.md."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from tierflow_flow.definition import Norm
from tierflow_flow.norms import Policy, matches, parse_policy
from tierflow_flow.parsing import parse
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.commands import AssignSlot, DecideApproval, Retry, WakeUp
from tierflow_orchestrator.core.events import ApprovalRequested
from tierflow_runtime.values import Context, RetryPolicy
from tierflow_testing.history import check_history

from .fakes import RUN_ID, SECOND, Computed, Shell, Value, call, flow, map_, raising

YES, NO, BROKEN, NEITHER = Value(True), Value(False), Computed(raising), Value("yes")


def tried(*norms: Norm, policy: Policy | None = None, handler: str = "pay.charge", **more: Any) -> Shell:
    """A run of one step after one dispatch was tried."""
    made = flow(call("a", handler=handler, **more), norms=norms)
    shell = Shell(made, auto=False)
    shell.run.policy = policy
    shell.decide(AssignSlot(step_id="a", executor_id="e"))
    return shell


def said(shell: Shell, step_id: str = "a") -> str:
    """What became of it: the state, and of a denial the norm."""
    step = shell.run.steps[step_id]
    if step.failure is None:
        return step.state
    assert step.failure.code == "PERMISSION_DENIED"
    return f"DENIED {step.failure.violations[0].field}"


@pytest.mark.parametrize(
    ("prohibited", "permitted", "side_effecting", "in_policy"),
    list(product((None, "yes", "no", "broken", "neither"), (None, "yes", "no"), (False, True), (False, True))),
)
def test_every_combination_of_rules(
    prohibited: str | None, permitted: str | None, side_effecting: bool, in_policy: bool
) -> None:
    """L12, Lesson 10: prohibition wins; what has side effects is denied unless it is permitted, where a policy is, or where the flow permits anything."""
    conditions: dict[str, Any] = {"yes": YES, "no": NO, "broken": BROKEN, "neither": NEITHER}
    norms: list[Norm] = []
    if prohibited is not None:
        norms.append(Norm("forbid", "prohibit", ("pay.*",), conditions[prohibited]))
    if permitted is not None:
        norms.append(Norm("allow", "permit", ("pay.*",), conditions[permitted]))
    if in_policy:
        shell = tried(policy=Policy(tuple(norms)), side_effecting=side_effecting)
    else:
        shell = tried(*norms, side_effecting=side_effecting)
    name = "policy" if in_policy else "flow"
    closed = in_policy or permitted is not None
    if prohibited in ("yes", "broken", "neither"):
        wanted = f"DENIED {name}:forbid"
    elif side_effecting and closed and permitted != "yes":
        wanted = f"DENIED {name}"
    else:
        wanted = "SCHEDULED"
    assert said(shell) == wanted
    shell.check()


@pytest.mark.parametrize(("policy", "own"), list(product(("none", "permit", "prohibit", "ask", "broken"), repeat=2)))
def test_both_sets_must_let_it_pass(policy: str, own: str) -> None:
    """L12: a flow cannot allow what the policy does not, nor the other way round; nobody is asked for what is denied."""
    sets: dict[str, tuple[Norm, ...]] = {
        "none": (),
        "permit": (Norm("n", "permit", ("*",)),),
        "prohibit": (Norm("n", "prohibit", ("*",)),),
        "ask": (Norm("n", "oblige", ("*",), approval=Value({"users": ["ada"]})),),
        "broken": (Norm("n", "permit", ("*",), BROKEN),),
    }
    shell = tried(*sets[own], policy=Policy(sets[policy]))
    denied = next(
        (f"{key}:n" for key, kind in (("policy", policy), ("flow", own)) if kind in ("prohibit", "broken")), ""
    )
    asked = "ask" in (policy, own)
    assert said(shell) == (f"DENIED {denied}" if denied else "AWAITING_APPROVAL" if asked else "SCHEDULED")
    assert bool(shell.events(ApprovalRequested)) == (asked and not denied)


def test_a_policy_that_cannot_be_read_allows_nothing() -> None:
    """L14: whatever it was before."""
    assert said(tried(policy=Policy((Norm("all", "permit", ("*",)),), unreadable="gone"))) == "DENIED policy"


def test_what_the_handler_says_of_itself_counts() -> None:
    """B3, L12: a flow that keeps silent about side effects changes nothing about them."""
    made = flow(call("a"))
    shell = Shell(made, auto=False)
    shell.run.policy = Policy()
    shell.decide(AssignSlot(step_id="a", executor_id="e", side_effecting=True))
    assert said(shell) == "DENIED policy"


def test_something_else_must_come_first() -> None:
    """L12: an obligation names handlers of which a step must have completed in the run; on_error says what a denial means, as ever."""
    norm = Norm("check-first", "oblige", ("pay",), after=("check*",))
    shell = Shell(flow(call("a", handler="check.it"), call("b", "a", handler="pay"), norms=(norm,)))
    shell.complete("a")
    assert said(shell, "b") == "SCHEDULED"
    other = Shell(flow(call("b", handler="pay", on_error="continue"), norms=(norm,)))
    assert said(other, "b") == "DENIED flow:check-first"
    assert (other.run.state, other.run.outcome) == ("COMPLETED", "PARTIAL")


def decide(shell: Shell, step_id: str, actor: str, verdict: str = "APPROVED", number: int = 0) -> None:
    command = DecideApproval(command_id=f"{step_id}{actor}{number}", step_id=step_id, verdict=verdict, actor=actor)
    assert shell.tell(command).reply.applied


def test_named_handlers_wait_for_a_person() -> None:
    """L13, R15: the run is SUSPENDED, the slot is free; once approved, exactly what was shown is called; a retry is not asked about again."""
    norm = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"]}))
    shell = Shell(flow(call("a", with_=Value({"n": 1})), norms=(norm,)))
    assert (shell.run.state, shell.run.reason) == ("SUSPENDED", "APPROVAL: a")
    assert not shell.dispatched
    approval = shell.run.steps["a"].approval
    assert approval is not None
    assert (approval.norm, approval.input) == ("flow:ask", '{"n": 1}')
    again = load(dump(shell.run))
    again.flow = shell.flow
    shell.run = again
    decide(shell, "a", "ada")
    assert [attempt.input for attempt in shell.dispatched] == ['{"n": 1}']
    shell.check()


@pytest.mark.parametrize("verdict", ["REJECTED", "EXPIRED"])
def test_who_is_not_approved_is_not_called(verdict: str) -> None:
    """L13: rejected by somebody, or by time."""
    norm = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"], "timeout": "5s"}))
    shell = Shell(flow(call("a"), norms=(norm,)))
    if verdict == "REJECTED":
        decide(shell, "a", "ada", verdict)
    else:
        shell.now += 6 * SECOND
        shell.tell(WakeUp())
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert failure.code == "APPROVAL_REJECTED"
    assert shell.run.state == "FAILED"
    assert not shell.dispatched


def test_each_item_of_a_map_is_asked_about() -> None:
    """L13, E6: by itself, and within what the map tolerates."""
    norm = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"]}))
    shell = Shell(flow(map_("m", 3, tolerate=1), norms=(norm,)))
    assert [event.step_id for event in shell.events(ApprovalRequested)] == ["m[0]", "m[1]", "m[2]"]
    decide(shell, "m[1]", "ada", "REJECTED")
    decide(shell, "m[0]", "ada")
    decide(shell, "m[2]", "ada")
    assert [attempt.step_id for attempt in shell.dispatched] == ["m[0]", "m[2]"]
    shell.complete("m[0]")
    shell.complete("m[2]")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "PARTIAL")
    shell.check()


def test_a_flow_cannot_stand_in_for_the_policy() -> None:
    """L12, L14: norms of one name in both sets are two norms; the approval of one is not that of the other."""
    easy = Norm("ask", "oblige", ("h",), approval=Value({"users": ["me"]}))
    strict = Norm("ask", "oblige", ("h",), approval=Value({"users": ["boss"]}))
    shell = Shell(flow(call("a"), norms=(easy,)), auto=False)
    shell.run.policy = Policy((strict,))
    shell.assign()
    decide(shell, "a", "boss")
    shell.assign()
    assert not shell.dispatched
    decide(shell, "a", "me")
    shell.assign()
    assert len(shell.dispatched) == 1


def test_a_change_of_policy_reaches_the_next_attempt() -> None:
    """C12, L12: what was allowed before is not allowed for ever; nor what is asked about a retry decided by what was not."""
    made = flow(call("a", retry=RetryPolicy(max_attempts=3, initial_delay=SECOND)))
    shell = Shell(made)
    shell.fail("a", "TIMEOUT", retryable=True)
    assert shell.run.steps["a"].attempt == 1
    shell.run.policy = Policy((Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"]})),))
    shell.now += 3 * SECOND
    shell.tell(WakeUp())
    assert said_state(shell) == "AWAITING_APPROVAL"
    decide(shell, "a", "ada")
    assert shell.run.steps["a"].attempt == 2
    shell.run.policy = Policy((Norm("never", "prohibit", ("h",)),))
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.now += 3 * SECOND
    shell.tell(WakeUp())
    assert said(shell) == "DENIED policy:never"


def said_state(shell: Shell) -> str:
    return shell.state("a")


NORMS = """
name: f
input: {n: number}
vars: {limit: 10}
norms:
  - {name: tenant, prohibit: '*', if: run.tenant != "t"}
  - {name: cashiers, permit: pay.*, if: '"cashier" in run.roles && run.labels.desk == "3"'}
  - {name: much, oblige: pay.*, if: call.input.amount > vars.limit || input.n > 5, approval: {roles: [boss], message: "${{ call.step }} ${{ call.input.amount }}"}}
steps:
  a: {call: pay.charge, side_effecting: true, with: {amount: "${{ input.n * 3.0 }}"}}
"""


@pytest.mark.parametrize(
    ("n", "context", "wanted"),
    [
        (1, {}, "SCHEDULED"),
        (4, {}, "AWAITING_APPROVAL"),
        (1, {"roles": ("clerk",)}, "DENIED flow"),
        (1, {"labels": {}}, "DENIED flow:cashiers"),
        (1, {"labels": {"desk": "4"}}, "DENIED flow"),
        (1, {"tenant": "u"}, "DENIED flow:tenant"),
    ],
)
def test_conditions_see_the_run_and_the_call(n: int, context: dict[str, Any], wanted: str) -> None:
    """L12: tenant, roles, labels, handler and input, in the flow language's own expressions; a label that is not there denies."""
    made = parse(NORMS)
    known: dict[str, Any] = {"tenant": "t", "user_id": "u", "roles": ("cashier",), "labels": {"desk": "3"}, **context}
    shell = Shell(made, input=f'{{"n": {n}}}', context=Context(run_id=RUN_ID, **known))
    assert said(shell) == wanted
    if wanted == "AWAITING_APPROVAL":
        approval = shell.run.steps["a"].approval
        assert approval is not None
        assert approval.message == "a 12.0"


@pytest.mark.parametrize(
    ("handler", "pattern", "is_so"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("a.b", "a.*", True),
        ("a", "a.*", False),
        ("ab", "a.*", False),
        ("a.b.c", "a.*", True),
        ("a.b.c", "*.c", True),
        ("a.b.c", "a*b*c", True),
        ("a.c.b", "a*b*c", False),
        ("aa", "a*a", True),
        ("a", "a*a", False),
        ("x", "*", True),
        ("x", "**", True),
        ("a" * 200, "*a" * 90 + "b", False),
    ],
)
def test_wildcards(handler: str, pattern: str, is_so: bool) -> None:
    """L12, Lesson 10: they match, in linear time."""
    assert matches(handler, (pattern,)) == is_so


def test_a_policy_is_checked_as_a_whole() -> None:
    """L5, L12: with everything that is wrong at once."""
    from tierflow_flow import FlowError

    assert len(parse_policy("norms: [{name: a, permit: '*'}, {name: b, prohibit: [x, y.*]}]").norms) == 2
    with pytest.raises(FlowError) as wrong:
        parse_policy(
            "norms: [{name: a}, {name: a, permit: x, after: y}, {name: c, permit: x, if: steps.a.output}]\nmore: 1"
        )
    assert len(wrong.value.problems) == 5


def test_a_retried_run_asks_again() -> None:
    """R31, L13: what was rejected, of items as well, is asked about anew in the next generation; what was approved before and is kept is not."""
    norm = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"]}))
    shell = Shell(flow(map_("m", 2), norms=(norm,)))
    decide(shell, "m[0]", "ada")
    shell.complete("m[0]")
    decide(shell, "m[1]", "ada", "REJECTED")
    assert shell.run.state == "FAILED"
    shell.tell(Retry(command_id="again", actor="a"))
    assert [event.step_id for event in shell.events(ApprovalRequested)] == ["m[0]", "m[1]", "m[1]"]
    decide(shell, "m[1]", "ada", number=1)
    shell.complete("m[1]")
    assert shell.run.state == "COMPLETED"
    breaches = check_history(shell.journal, {"m": ()}, complete=True)
    assert not breaches, breaches
    shell.check()
