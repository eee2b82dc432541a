"""Signals: messages that steps wait for. See Q5 and docs/flows.md."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_orchestrator.core import Run, decide, dump, load
from tierflow_orchestrator.core.commands import Cancel, Pause, Resume, Signal, WakeUp
from tierflow_orchestrator.machine import RunMachine, is_waiting

from .fakes import RUN_ID, SECOND, START, create, emit, flow, signal, wait

SCHEMA = {"type": "object", "required": ["amount"]}


def begun(*specs: Any) -> Run:
    """A run of these steps, created at START."""
    made = flow(*specs)
    run = Run.fresh(RUN_ID)
    run.flow = made
    decide(run, create(made), START)
    return run


def sent(name: str = "paid", payload: str = "1", signal_id: str = "s1") -> Signal:
    return Signal(command_id=signal_id, name=name, payload=payload, actor="u")


def test_a_step_waits_for_its_signal() -> None:
    """Q5, R15: SUSPENDED and parked without a moment; the payload is the step's output."""
    run = begun(signal("s", "paid"), emit("e", "s"))
    assert (run.state, run.reason, run.steps["s"].reason) == ("SUSPENDED", "SIGNAL: s", "SIGNAL")
    assert run.next_wake() is None
    assert is_waiting(run)
    assert decide(run, sent(payload='{"a":1}'), START + 1).reply.applied
    assert (run.state, run.steps["s"].output) == ("COMPLETED", '{"a":1}')


def test_the_same_signal_again_is_the_same_signal() -> None:
    """Q5, V16: it is answered alike, and no second step takes it."""
    run = begun(signal("a", "paid"), signal("b", "paid", "a"))
    decide(run, sent(), START + 1)
    again = decide(run, sent(), START + 2)
    assert again.reply.applied
    assert not again.events
    assert run.steps["b"].state == "RUNNING"
    decide(run, sent(signal_id="s2"), START + 3)
    assert run.state == "COMPLETED"


def test_signals_that_come_before_their_step_are_kept() -> None:
    """Q5: over a restart as well; the oldest is taken first, each by one step."""
    run = begun(wait("w", "5s"), signal("a", "paid", "w"), signal("b", "paid", "a"))
    decide(run, sent(payload="1", signal_id="s1"), START + 1)
    decide(run, sent(payload="2", signal_id="s2"), START + 2)
    assert run.state == "SUSPENDED"
    again = load(dump(run))
    again.flow = run.flow
    decide(again, WakeUp(), START + 5 * SECOND)
    assert again.state == "COMPLETED"
    assert (again.steps["a"].output, again.steps["b"].output) == ("1", "2")


def test_nobody_said_anything_in_time() -> None:
    """E13, F1: the step fails with TIMEOUT, once the moment has come."""
    run = begun(signal("s", "paid", settings={"timeout": 5 * SECOND}))
    assert run.next_wake() == START + 5 * SECOND
    decide(run, WakeUp(), START + 5 * SECOND)
    assert run.state == "FAILED"
    failure = run.steps["s"].failure
    assert failure is not None
    assert failure.code == "TIMEOUT"


def test_a_paused_run_keeps_what_it_is_sent() -> None:
    """G6, Q5: nothing moves while it is paused."""
    run = begun(signal("s", "paid"))
    decide(run, Pause(command_id="p"), START + 1)
    assert decide(run, sent(), START + 2).reply.applied
    assert (run.state, run.steps["s"].state) == ("PAUSED", "RUNNING")
    decide(run, Resume(command_id="r"), START + 3)
    moment = run.next_wake()
    assert moment is not None
    assert moment <= START + 3
    decide(run, WakeUp(), START + 4)
    assert run.state == "COMPLETED"


@pytest.mark.parametrize(
    ("name", "payload", "code", "field"),
    [
        ("other", "1", "INVALID_REQUEST", "name"),
        ("paid", "1", "INVALID_REQUEST", "payload"),
        ("paid", "{}", "INVALID_REQUEST", "payload"),
        ("paid", "{", "INVALID_REQUEST", "payload"),
        ("paid", '{"amount":"' + 65_536 * "x" + '"}', "PAYLOAD_TOO_LARGE", ""),
    ],
)
def test_what_no_step_can_take_is_refused(name: str, payload: str, code: str, field: str) -> None:
    """A5, Q5: at once, typed, and nothing of it is stored."""
    run = begun(signal("s", "paid", settings={"schema": SCHEMA}))
    decision = decide(run, sent(name, payload), START + 1)
    assert not decision.events
    assert not decision.reply.applied
    failure = decision.reply.failure
    assert failure is not None
    assert failure.code == code
    assert all(violation.field.startswith(field) for violation in failure.violations)


def test_a_run_keeps_so_many_signals() -> None:
    """Q5, Lesson 27: and then says so."""
    run = begun(wait("w", "5s"), signal("s", "paid", "w"))
    for number in range(1_000):
        assert decide(run, sent(signal_id=f"s{number}"), START + 1).reply.applied
    failure = decide(run, sent(signal_id="one more"), START + 1).reply.failure
    assert failure is not None
    assert failure.code == "QUEUE_FULL"


def test_who_is_stopped_takes_no_signals() -> None:
    """G3: nor who has ended."""
    run = begun(signal("s", "paid"))
    decide(run, Cancel(command_id="c"), START + 1)
    assert run.state == "CANCELLED"
    decision = decide(run, sent(), START + 2)
    assert not decision.reply.applied
    assert not decision.events


def test_signals_are_audited_and_can_be_forwarded() -> None:
    """Q5, R14: who sent what; any replica hands it to the owner."""
    run = begun(signal("s", "paid"))
    machine = RunMachine()
    command = machine.load_command(machine.dump_command(sent()))
    received = decide(run, command, START + 1).events[0]
    assert machine.classify(received) == "audit"
    batch = EventBatch()
    batch.events.add().ParseFromString(machine.encode(received, 7, START + 1))
    assert list(machine.decode(batch.SerializeToString())) == [(7, START + 1, received)]
