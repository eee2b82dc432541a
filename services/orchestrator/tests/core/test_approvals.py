"""Approvals: steps that ask people. See Q17, L13, L14 and docs/flows.md."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tierflow_orchestrator.core import Run, decide, dump, load
from tierflow_orchestrator.core.commands import Cancel, DecideApproval, Pause, Resume, WakeUp
from tierflow_orchestrator.core.turn import Reply
from tierflow_orchestrator.machine import RunMachine, is_waiting

from .fakes import RUN_ID, SECOND, START, approval, call, create, emit, flow, fold, wait

_ids = iter(range(10**9))


def begun(*specs: Any) -> Run:
    """A run of these steps, created at START."""
    made = flow(*specs)
    run = Run.fresh(RUN_ID)
    run.flow = made
    decide(run, create(made), START)
    return run


def said(run: Run, actor: str, verdict: str = "APPROVED", at: int = 1, **more: Any) -> Reply:
    """Somebody decides about step `ok`."""
    more = {"command_id": f"d{next(_ids)}", "step_id": "ok", **more}
    return decide(run, DecideApproval(verdict=verdict, actor=actor, **more), START + at).reply


def code(reply: Reply) -> str:
    return reply.failure.code if reply.failure is not None else ""


def test_a_step_waits_for_a_person() -> None:
    """H12, Q17, R15: SUSPENDED with the reason, parked; who approves and why is the step's output."""
    run = begun(approval("ok", users=["ada"], message="Really?"), emit("e", "ok"))
    assert (run.state, run.reason, run.steps["ok"].state) == ("SUSPENDED", "APPROVAL: ok", "AWAITING_APPROVAL")
    assert run.next_wake() is None
    assert is_waiting(run)
    assert said(run, "ada", reason="fine").applied
    assert run.state == "COMPLETED"
    output = msgspec.json.decode(run.steps["ok"].output or "")
    assert output == {"approved": True, "by": [{"user": "ada", "reason": "fine", "time": START + 1}]}


def test_one_rejection_is_enough() -> None:
    """Q17, L13: the step fails with the reason, and the run with it."""
    run = begun(approval("ok", users=["ada", "bob"], needed=2))
    said(run, "ada")
    said(run, "bob", "REJECTED", reason="too much")
    failure = run.steps["ok"].failure
    assert run.state == "FAILED"
    assert failure is not None
    assert (failure.code, failure.message) == ("APPROVAL_REJECTED", "bob rejected ok: too much")


def test_a_rejection_may_be_tolerated() -> None:
    """Q17, E6: on_error says what it means."""
    run = begun(approval("ok", users=["ada"], on_error="continue"), emit("e", "ok"))
    said(run, "ada", "REJECTED")
    assert (run.state, run.outcome) == ("COMPLETED", "PARTIAL")


def test_so_many_different_people() -> None:
    """Q17, V44: the same person twice counts once, whatever they say the second time."""
    run = begun(approval("ok", users=["ada"], roles=["boss"], needed=2))
    assert said(run, "ada").applied
    again = said(run, "ada", "REJECTED")
    assert (again.applied, code(again)) == (False, "")
    assert run.steps["ok"].state == "AWAITING_APPROVAL"
    assert said(run, "eve", roles=("clerk", "boss")).applied
    assert run.state == "COMPLETED"


@pytest.mark.parametrize(("actor", "roles"), [("mallory", ()), ("", ()), ("", ("boss",)), ("eve", ("clerk",))])
def test_who_was_not_asked_decides_nothing(actor: str, roles: tuple[str, ...]) -> None:
    """L14: nor does somebody without a name."""
    run = begun(approval("ok", users=["ada"], roles=["boss"]))
    before = dump(run)
    assert code(said(run, actor, roles=roles)) == "PERMISSION_DENIED"
    assert dump(run) == before


def test_what_waits_for_nobody_cannot_be_approved() -> None:
    """Q17: a step that is not there, one that asks nothing, one that is decided, a run that has ended."""
    run = begun(approval("ok", users=["ada"]), wait("w", "1h"))
    assert code(said(run, "ada", step_id="nope")) == "NOT_FOUND"
    assert code(said(run, "ada", step_id="w")) == "STATE_CONFLICT"
    said(run, "ada", command_id="once")
    assert code(said(run, "ada")) == "STATE_CONFLICT"
    assert said(run, "ada", command_id="once").applied
    decide(run, Cancel(command_id="c"), START + 2)
    assert code(said(run, "ada")) == "STATE_CONFLICT"


def test_nobody_decides_in_time() -> None:
    """L13, L14: then it is rejected."""
    run = begun(approval("ok", users=["ada", "bob"], needed=2, timeout="5s"))
    said(run, "ada")
    assert run.next_wake() == START + 5 * SECOND
    decide(run, WakeUp(), START + 5 * SECOND)
    failure = run.steps["ok"].failure
    assert failure is not None
    assert failure.code == "APPROVAL_REJECTED"
    assert "1 of 2" in failure.message


def test_further_people_are_asked() -> None:
    """H12, Q17: who was asked first may still decide; then time is over for all."""
    run = begun(approval("ok", users=["ada"], timeout="5s", escalate={"roles": ["boss"], "timeout": "10s"}))
    assert code(said(run, "eve", roles=("boss",))) == "PERMISSION_DENIED"
    decide(run, WakeUp(), START + 5 * SECOND)
    assert (run.state, run.next_wake()) == ("SUSPENDED", START + 15 * SECOND)
    other = load(dump(run))
    other.flow = run.flow
    assert said(run, "eve", roles=("boss",), at=6 * SECOND).applied
    assert run.state == "COMPLETED"
    decide(other, WakeUp(), START + 15 * SECOND)
    assert other.state == "FAILED"


def test_a_say_is_handed_on() -> None:
    """Q17: to one person, who may then decide; who handed it on may not."""
    run = begun(approval("ok", users=["ada", "bob"]))
    for to in ("", "ada", "bob"):
        assert code(said(run, "ada", "DELEGATED", delegate_to=to)) == "INVALID_REQUEST"
    assert said(run, "ada", "DELEGATED", delegate_to="eve").applied
    assert code(said(run, "ada")) == "PERMISSION_DENIED"
    assert code(said(run, "eve", "DELEGATED", delegate_to="ada")) == "INVALID_REQUEST"
    assert said(run, "eve").applied
    assert run.state == "COMPLETED"


def test_a_paused_run_keeps_what_people_say() -> None:
    """G6, Q17: nothing moves while it is paused, over a restart as well."""
    run = begun(approval("ok", users=["ada"]))
    decide(run, Pause(command_id="p"), START + 1)
    assert said(run, "ada", at=2).applied
    assert (run.state, run.steps["ok"].state) == ("PAUSED", "AWAITING_APPROVAL")
    again = load(dump(run))
    again.flow = run.flow
    decide(again, Resume(command_id="r"), START + 3)
    moment = again.next_wake()
    assert moment is not None
    assert moment <= START + 3
    decide(again, WakeUp(), START + 4)
    assert again.state == "COMPLETED"


@pytest.mark.parametrize(
    "more",
    [{"users": [7]}, {"users": "ada"}, {"users": [], "roles": []}, {"users": ["a", "a"], "needed": 2}],
)
def test_what_nobody_could_decide_is_not_asked(more: dict[str, Any]) -> None:
    """L14, F1: it fails at once instead of waiting for ever."""
    run = begun(approval("ok", **more))
    failure = run.steps["ok"].failure
    assert failure is not None
    assert failure.code == "EXPRESSION_FAILED"


def test_its_events_are_of_a_class_of_their_own() -> None:
    """H10, A11, V12: and say all that is needed to tell the state again."""
    machine = RunMachine()
    made = flow(approval("ok", users=["ada"], timeout="5s", escalate={"users": ["bob"]}), call("c", "ok"))
    run = Run.fresh(RUN_ID)
    run.flow = made
    found = [(event, START) for event in decide(run, create(made), START).events]
    found += [(e, START + 5 * SECOND) for e in decide(run, WakeUp(), START + 5 * SECOND).events]
    command = DecideApproval(command_id="d", step_id="ok", verdict="APPROVED", actor="bob", reason="r")
    found += [(e, START + 6 * SECOND) for e in decide(run, command, START + 6 * SECOND).events]
    asked = [event for event, _ in found if machine.classify(event) == "approvals"]
    names = [type(event).__name__ for event in asked]
    assert names == ["ApprovalRequested", "ApprovalEscalated", "ApprovalDecided", "ApprovalResolved"]
    stored = b"".join(b"\x12" + _length(part) + part for part in _encoded(machine, found))
    read = [(event, time) for _, time, event in machine.decode(stored)]
    assert read == found
    assert dump(fold(made, read)) == dump(run)


def _encoded(machine: RunMachine, found: list[Any]) -> list[bytes]:
    return [machine.encode(event, seq, time) for seq, (event, time) in enumerate(found, 1)]


def _length(part: bytes) -> bytes:
    size, out = len(part), b""
    while size > 127:
        out += bytes((size & 127 | 128,))
        size >>= 7
    return out + bytes((size,))
