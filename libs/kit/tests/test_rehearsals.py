"""Rehearsals: flows on a virtual clock with fakes for their handlers, decided by the core of tier 2. See Q24 and docs/testing-flows.md."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from tierflow import Context, Degraded, HandlerFailed, Rejected, flow, handler
from tierflow.testing import Attempt, FakeError, FlowTest
from tierflow_flow import FlowError
from tierflow_kit import expecting, spoken

SAGA = """
name: saga
input: {amount: number}
on_failure: continue
steps:
  charge: {call: bank.charge, with: {amount: "${{ input.amount }}"}, timeout: 10s}
  ship: {call: courier.book, with: {charge: "${{ steps.charge.output.id }}"}}
  undo: {call: bank.refund, if: failure() && steps.charge.state == "COMPLETED", needs: ship}
output: {parcel: "${{ default(steps.ship.output.parcel, null) }}"}
"""


def saga() -> FlowTest:
    return (
        FlowTest(SAGA).fake("bank.charge", {"id": "c1"}, takes="2s").fake("courier.book", {"parcel": "p1"}, takes="3s")
    )


def test_a_flow_runs_without_servers_and_without_waiting() -> None:
    """Q24: handlers are fakes, an hour is nothing, and what came of it can be asked for."""
    began = time.perf_counter()
    test = FlowTest("name: f\nsteps:\n  rest: {wait: 30d}\n  say: {call: say, needs: rest, timeout: 2h}\n").fake(
        "say", {"said": True}, takes="1h"
    )
    run = test.run()
    assert (run.state, run.output, run.duration) == ("COMPLETED", {"say": {"said": True}}, timedelta(days=30, hours=1))
    assert time.perf_counter() - began < 5


def test_outputs_feed_inputs() -> None:
    """Q24, E15: fakes see what handlers would see."""
    run = saga().run({"amount": 12.5})
    assert [(call.handler, call.input, call.at) for call in run.calls()] == [
        ("bank.charge", {"amount": 12.5}, 0),
        ("courier.book", {"charge": "c1"}, 2_000_000),
    ]
    run.expect(
        state="COMPLETED",
        output={"parcel": "p1"},
        steps={"undo": "SKIPPED"},
        duration="5s",
        order=["charge", "ship", "undo"],
    )


def test_retries_take_virtual_time_without_jitter() -> None:
    """Q24: a failure that can be helped is tried again after the delays that the flow names, exactly."""
    test = FlowTest(SAGA).fails("bank.charge", "UNAVAILABLE", times=2, takes="1s").fake("bank.charge", {"id": "c2"})
    run = test.fake("courier.book", {"parcel": 1}).run({"amount": 1})
    run.expect(state="COMPLETED", steps={"charge": {"state": "COMPLETED", "attempts": 3, "ended": "5s"}}, duration="5s")


def test_failures_that_cannot_be_helped_are_not_retried() -> None:
    """Q24, F3: the catalogue says of a code whether trying again helps, unless the fake does."""
    known = FlowTest(SAGA).fake("bank.charge", {"id": 1}).fails("courier.book", "INPUT_INVALID").fake("bank.refund")
    known.run({"amount": 1}).expect(state="FAILED", calls={"courier.book": 1, "bank.refund": 1})
    own = FlowTest(SAGA).fails("bank.charge", "CARD_DECLINED", retryable=False).run({"amount": 1})
    own.expect(state="FAILED", failure="CARD_DECLINED", calls={"bank.charge": 1, "courier.book": 0})


def test_functions_answer() -> None:
    """Q24: a fake may be a function of the input, plain or async, may take the attempt, may fail as handlers fail."""
    seen: list[Attempt] = []

    async def charge(given: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
        seen.append(attempt)
        if attempt.number == 1:
            raise HandlerFailed("the line is busy", code="UNAVAILABLE", retry_after=7)
        return {"id": f"c-{given['amount']}"}

    run = FlowTest(SAGA).fake("bank.charge", charge).fake("courier.book", lambda given: given).run({"amount": 5})
    run.expect(state="COMPLETED", steps={"ship": {"output": {"charge": "c-5"}}}, duration="7s")
    assert [(attempt.step, attempt.number, attempt.at) for attempt in seen] == [
        ("charge", 1, 0),
        ("charge", 2, 7_000_000),
    ]

    def reject(given: Any) -> Any:
        raise Rejected("never")

    FlowTest(SAGA).fake("bank.charge", reject).run({"amount": 5}).expect(state="FAILED", failure="HANDLER_REJECTED")
    degraded = FlowTest(SAGA).fake("bank.charge", lambda _: Degraded({"id": "x"})).fake("courier.book", {"parcel": 2})
    degraded.run({"amount": 5}).expect(outcome="DEGRADED", steps={"charge": {"outcome": "DEGRADED"}})


def test_attempts_that_hang_meet_their_timeout() -> None:
    """Q24: a fake that is silent, or takes too long, is ended by the attempt's timeout; what was paid for stays booked."""
    slow = FlowTest(SAGA).fake("bank.charge", {"id": 1}, takes="11s").run({"amount": 1})
    slow.expect(state="FAILED", failure="TIMEOUT", calls={"bank.charge": 3}, duration="33s")
    FlowTest(SAGA).hangs("bank.charge").run({"amount": 1}).expect(failure="TIMEOUT", calls={"bank.charge": 3})


def test_lost_executors_follow_on_lost() -> None:
    """Q24, R26: an attempt whose executor is gone is repeated, failed, or waits for somebody, as the flow says."""
    one = "name: f\nsteps:\n  a: {call: h, on_lost: %s}\n"
    FlowTest(one % "retry").loses("h").fake("h", 1).run().expect(state="COMPLETED", calls={"h": 2})
    FlowTest(one % "fail").loses("h").run().expect(state="FAILED", failure="EXECUTOR_LOST")
    asked = FlowTest(one % "ask").loses("h").fake("h", 1).run()
    assert asked.state == "SUSPENDED"
    asked.resume().finish().expect(state="COMPLETED", calls={"h": 2})


def test_others_act_from_outside() -> None:
    """Q24, Q5: signals, pauses and cancels come when the test sends them; what does not apply is an error of the test."""
    test = FlowTest(
        "name: f\nsteps:\n  paid: {signal: paid, timeout: 3d, schema: {type: object}}\n  say: {call: say, needs: paid}\n"
    )
    test.fake("say", 1, takes="10s")
    run = test.start()
    with pytest.raises(AssertionError, match="waits for no signal 'pain'"):
        run.signal("pain")
    with pytest.raises(AssertionError, match="does not match the schema"):
        run.signal("paid", 3)
    run.advance("2h").signal("paid", {"by": "Ada"})
    assert (run.state, run.states) == ("RUNNING", {"paid": "COMPLETED", "say": "RUNNING"})
    run.advance(timedelta(seconds=3)).pause()
    assert run.state == "PAUSING"
    run.finish()
    assert run.state == "COMPLETED"  # nothing was left to start
    cancelled = test.start().advance("1m").cancel("changed my mind")
    cancelled.expect(state="CANCELLED", steps={"paid": "CANCELLED"}, duration="1m")
    late = test.run().expect(state="FAILED", failure={"code": "TIMEOUT", "step": "paid"}, duration="3d")
    with pytest.raises(AssertionError, match="cancel was refused: the run is FAILED"):
        late.cancel()


def test_people_decide_about_approvals() -> None:
    """Q24, Q17, L14: those who are asked decide, in their roles; others are refused; time passes until others are asked."""
    text = """
name: f
steps:
  ok:
    approval: {message: Really?, users: [ada], roles: [finance], needed: 2, timeout: 4h, escalate: {roles: [head], timeout: 1d}}
  pay: {call: pay, needs: ok}
"""
    test = FlowTest(text).fake("pay", 1)
    run = test.start().advance("1h").approve("ok", by="ada", reason="fine")
    with pytest.raises(AssertionError, match="approve was refused: ok: PERMISSION_DENIED: eve is not among those"):
        run.approve("ok", by="eve")
    run.approve("ok", by="bob", roles=["finance"]).finish()
    run.expect(state="COMPLETED", duration="1h")
    test.start().reject("ok", by="ada", reason="no").expect(
        state="FAILED", failure={"code": "APPROVAL_REJECTED", "message": "no"}
    )
    escalated = (
        test.start()
        .advance("5h")
        .delegate("ok", by="ada", to="eve")
        .approve("ok", by="eve")
        .approve("ok", by="zoe", roles=["head"])
    )
    escalated.finish().expect(state="COMPLETED", duration="5h")
    test.run().expect(state="FAILED", failure="APPROVAL_REJECTED", duration="1d4h")


def test_a_cancel_stops_what_runs() -> None:
    """Q24: attempts in flight are stopped, and their answers come to nothing."""
    run = saga().start({"amount": 1}).advance("1s").cancel()
    run.finish()
    run.expect(state="CANCELLED", steps={"charge": "CANCELLED", "ship": "CANCELLED"}, duration="1s")
    assert [call.state for call in run.calls()] == ["CANCELLED"]


def test_maps_run_as_wide_as_they_may() -> None:
    """Q24: items are steps of their own, their number at once is bounded by the flow."""
    text = "name: f\ninput: {n: integer}\nsteps:\n  each: {map: '${{ range(input.n) }}', concurrency: 4, tolerate: 1, call: h, with: {i: '${{ index }}'}}\n"
    test = FlowTest(text).fails("each[3]", "NO", retryable=False).fake("h", lambda given: given["i"] * 2, takes="1s")
    run = test.run({"n": 9})
    run.expect(
        state="COMPLETED", outcome="PARTIAL", output={"each": [0, 2, 4, None, 8, 10, 12, 14, 16]}, duration="2s"
    )  # item 3 fails at once
    FlowTest(text).fake("h", 1).run({"n": 3_000}).expect(state="COMPLETED", calls={"h": 3_000})


def test_large_values_are_stored_apart_as_they_are_in_production() -> None:
    """Q24, R33: what is large goes by reference, and expressions look into it all the same."""
    text = "name: f\nsteps:\n  a: {call: h}\n  m: {map: '${{ steps.a.output.list }}', call: g, with: {i: '${{ item }}'}}\noutput: {n: '${{ size(steps.a.output.text) }}', m: '${{ steps.m.output }}'}\n"
    big = "x" * 100_000
    run = FlowTest(text).fake("h", {"text": big, "list": [1, 2]}).fake("g", lambda given: f"{given['i']}{big}").run()
    assert run.state == "COMPLETED"
    assert run.output["n"] == 100_000
    assert run.steps["m"].output == [f"1{big}", f"2{big}"]


def test_the_clock_starts_where_the_test_says() -> None:
    """Q24, E13: waits for a moment can be tested, whenever the test runs."""
    test = FlowTest(
        'name: f\nsteps:\n  a: {wait: {until: "2031-05-01T08:00:00Z"}}\n', start=datetime(2031, 5, 1, 7, tzinfo=UTC)
    )
    test.run().expect(state="COMPLETED", duration=timedelta(hours=1))
    with pytest.raises(ValueError, match="time zone"):
        FlowTest(SAGA, start=datetime(2031, 5, 1))  # noqa: DTZ001


def test_what_is_granted_bounds_a_run() -> None:
    """Q24, D5: limits of a run, in the words of test files."""
    test = FlowTest("name: f\nsteps:\n  a: {map: [1, 2, 3, 4], call: h}\n").fake("h", 1, takes="2s")
    test.run(limits={"concurrent_steps": 1}).expect(state="COMPLETED", duration="8s")
    test.run(limits={"steps": 3}).expect(state="FAILED", failure="BUDGET_EXHAUSTED", calls={"h": 3})
    test.run(limits={"concurrent_steps": 1, "wall_time": "5s"}).expect(
        state="FAILED", failure="DEADLINE_EXCEEDED", duration="5s"
    )
    with pytest.raises(FlowError, match="did you mean credits"):
        test.run(limits={"credit": 3})


def test_other_flows_run_below() -> None:
    """Q24, E12: a flow that another runs is faked, or runs itself, on the same clock and with the same fakes."""
    parent = (
        "name: p\nsteps:\n  a: {flow: child@1, with: {n: 3}}\n  b: {call: g, with: {x: '${{ steps.a.output.y }}'}}\n"
    )
    child = "name: child\ninput: {n: integer}\nsteps:\n  rest: {wait: 1h}\n  c: {call: h, needs: rest, with: {n: '${{ input.n }}'}}\noutput: {y: '${{ steps.c.output }}'}\n"
    FlowTest(parent).fake("flow:child@1", {"y": 7}, takes="2d").fake("g", lambda given: given["x"]).run().expect(
        output={"b": 7}, duration="2d"
    )
    test = (
        FlowTest(parent, flows={"child@1": child})
        .fake("h", lambda given: given["n"] * 2, takes="5s")
        .fake("g", lambda given: given["x"])
    )
    run = test.run().expect(state="COMPLETED", output={"b": 6}, duration="1h5s", calls={"h": 1})
    assert [(call.step, call.at) for call in run.calls("h")] == [("a>c", 3_600_000_000)]
    broken = FlowTest(parent, flows={"child@1": child}).fails("h", "NO", retryable=False).fake("g")
    broken.run().expect(state="FAILED", failure={"code": "NO", "step": "c"}, calls={"g": 0})
    waits = FlowTest(parent, flows={"child@1": "name: w\nsteps:\n  s: {signal: go}\n"}).fake("g")
    with pytest.raises(FakeError, match=r"the run of w for a is SUSPENDED .* fake it as flow:child@1"):
        waits.run()


def test_environment_and_labels() -> None:
    """Q24, E15: what the flow may read of its surroundings is given by the test."""
    text = "name: f\nenv: [TOKEN]\nsteps:\n  a: {call: echo, with: {t: '${{ env.TOKEN }}', l: '${{ run.labels }}'}}\n"
    FlowTest(text, env={"TOKEN": "x"}).run(labels={"a": "b"}).expect(output={"a": {"t": "x", "l": {"a": "b"}}})


def test_echo_and_sleep_need_no_fakes() -> None:
    """Q24: what the built-in ones do is plain, until a fake takes their place."""
    text = "name: f\nsteps:\n  a: {call: sleep, with: {seconds: 90}, timeout: 2m}\n  b: {call: echo, needs: a, with: {x: 1}}\n"
    FlowTest(text).run().expect(state="COMPLETED", steps={"b": {"output": {"x": 1}}}, duration="1m30s")
    FlowTest(text).fake("echo", 7).run().expect(output={"b": 7})


def test_what_is_missing_is_said() -> None:
    """Q24: a handler without a fake, and a fake without a handler, say what to write."""
    with pytest.raises(FakeError, match=r"step charge calls bank.charge, attempt 1, .*it has no fake"):
        FlowTest(SAGA).run({"amount": 1})
    with pytest.raises(FakeError, match=r"calls no handler bank.chrage .*did you mean bank.charge\?"):
        FlowTest(SAGA).fake("bank.chrage")
    with pytest.raises(FakeError, match="all its fakes are used up"):
        FlowTest(SAGA).fails("bank.charge", "UNAVAILABLE", times=1).run({"amount": 1})
    with pytest.raises(FakeError, match="not JSON"):
        FlowTest(SAGA).fake("bank.charge", object()).run({"amount": 1})
    with pytest.raises(FlowError, match="did you mean with"):
        FlowTest("name: f\nsteps: {a: {call: h, whit: {}}}\n")


def test_differences_are_listed_all() -> None:
    """Q24: everything that is not as expected is told at once, with places."""
    run = saga().run({"amount": 1})
    with pytest.raises(AssertionError) as caught:
        run.expect(
            state="FAILED",
            output={"parcel": "p2", "x": 1},
            steps={"ship": "SKIPPED", "shop": "COMPLETED"},
            duration="4s",
            emitted=["done"],
        )
    assert str(caught.value).splitlines() == [
        "saga did not go as expected:",
        "state: expected FAILED, found COMPLETED",
        'output.parcel: expected "p2", found "p1"',
        "output.x: expected 1, not there",
        "steps.ship: expected SKIPPED, found COMPLETED",
        "steps.shop: not there; there is: charge, ship, undo",
        "duration: expected 4s, found 5s",
        "emitted: expected done, found nothing",
    ]
    with pytest.raises(FlowError, match="did you mean state"):
        run.expect(stat="FAILED")


@pytest.mark.parametrize(
    ("wanted", "found", "count"),
    [
        (1, 1.0, 0),
        (True, 1, 1),
        (1, True, 1),
        ([1, 2], [1], 1),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, 1),
        (None, 0, 1),
        ("1", 1, 1),
    ],
)
def test_values_are_compared_as_json(wanted: Any, found: Any, count: int) -> None:
    """Q24: numbers are numbers, truth is not a number, lengths matter."""
    assert len(list(expecting.compare(wanted, found, "x"))) == count


class Money(BaseModel):
    amount: float


@handler("test_kit.charge")
async def charge(context: Context, money: Money) -> dict[str, Any]:
    """Charges; the line is busy at first."""
    context.log.info("charging %s", money.amount)
    context.spend(700)
    if context.attempt == 1:
        raise ConnectionError("busy")
    return {"id": f"{context.idempotency_key}-{money.amount}"}


@handler("test_kit.book")
def book(charge: str) -> int:
    """Says what it should not."""
    return "seven" if charge.endswith("9.0") else 7  # type: ignore[return-value]


def test_handlers_can_be_used_as_they_are() -> None:
    """Q24, F27: typed input, checked output, errors as failures, what was written and spent: as at an executor."""
    text = SAGA.replace("bank.charge", "test_kit.charge").replace("courier.book", "test_kit.book")
    test = FlowTest(
        text.replace('{parcel: "${{ default(steps.ship.output.parcel, null) }}"}', "${{ steps.ship.output }}")
    )
    test.use(charge, book, takes="1s").fake("bank.refund")
    run = test.run({"amount": 12})
    run.expect(state="COMPLETED", output=7, credits=1_400, duration="4s", steps={"charge": {"attempts": 2}})
    assert run.calls("test_kit.charge")[1].logs == ("info: charging 12.0",)
    test.run({"amount": 9}).expect(state="FAILED", failure="OUTPUT_INVALID")
    wrong = FlowTest("name: f\nsteps:\n  a: {call: test_kit.charge, with: {amount: much}}\n").use(charge).run()
    wrong.expect(
        state="FAILED", failure={"code": "INPUT_INVALID", "message": "input.amount"}, calls={"test_kit.charge": 1}
    )
    with pytest.raises(FakeError, match="is no handler"):
        FlowTest(SAGA).use(saga)
    with pytest.raises(FakeError, match=r"calls no handler test_kit[.]book"):
        FlowTest(SAGA).use(book)


@handler("test_kit.asks")
async def asks(context: Context) -> int:
    """Calls a tool on its way."""
    async with context.tool("search") as call:
        call.returned("42")
    return 42


def test_tools_may_be_called_in_rehearsals() -> None:
    """Q24, H7: a handler that calls tools is tested as it is."""
    test = FlowTest("name: f\nsteps:\n  a: {call: test_kit.asks}\n").use(asks)
    test.run().expect(state="COMPLETED", output={"a": 42})


def test_built_flows_can_be_tested() -> None:
    """Q24: a flow made in Python is tested as it is."""
    built = flow("built", input={"who": {"type": "string"}})
    built.call("greet", "say", text=built.input.who)
    FlowTest(built).fake("say", lambda given: given["text"]).run({"who": "Ada"}).expect(output={"greet": "Ada"})
    with pytest.raises(AssertionError, match="INPUT_INVALID"):
        FlowTest(built).run({"whom": "Ada"}).expect(state="COMPLETED")


def test_rehearsals_repeat_exactly() -> None:
    """Q24, E1: the same flow with the same fakes has the same journal."""
    one, other = (saga().run({"amount": 3}).rehearsal for _ in range(2))
    assert one.journal == other.journal
    assert len(one.journal) > 8


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0s"), (1_500_000, "1s500ms"), (90 * 60_000_000, "1h30m"), (-1_000, "-1ms"), (7, "7us")]
)
def test_spans_are_written_as_in_flows(micros: int, text: str) -> None:
    """Q24: what a message says can be copied into a flow or a test."""
    assert spoken.duration(micros) == text
