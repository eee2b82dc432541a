"""Loops: one iteration of a block after the other. See docs/flows.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_orchestrator.core.commands import WakeUp
from tierflow_orchestrator.core.events import IterationBegan

from .fakes import SECOND
from .written import output, shell, sound, wake


def test_a_loop_goes_on_until_its_condition_holds() -> None:
    """E13: with a growing delay, kept by a durable timer; loop.last is what the iteration before yielded."""
    it = shell(
        """
  poll:
    loop: {until: steps.ask.output.done, delay: 2s, factor: 2, max_delay: 5s}
    steps:
      ask: {call: h, with: {at: "${{ loop.index }}", before: "${{ loop.last }}"}}
    output: {seen: "${{ steps.ask.output.n }}"}
  use: {call: h, with: {got: "${{ steps.poll.output }}"}}
"""
    )
    delays = []
    for index in range(4):
        given = json.loads(str(it.run.steps[f"poll[{index}]/ask"].input))
        assert given == {"at": index, "before": {"seen": index - 1} if index else None}
        it.complete(f"poll[{index}]/ask", json.dumps({"n": index, "done": index == 3}))
        if index < 3:
            assert (it.run.state, it.state("poll")) == ("SUSPENDED", "RUNNING")
            moment = it.run.next_wake()
            assert moment is not None
            delays.append((moment - it.now) // SECOND)
            sound(it)
            wake(it, 5)
    assert delays == [2, 4, 5]
    assert it.run.steps["use"].input == '{"got":{"seen":3}}'
    sound(it)


def test_a_loop_looks_before_each_iteration() -> None:
    """E13: while; none at all where it is false at once, and the output is null."""
    steps = '  count: {loop: {while: "default(loop.last.n, 0) < input.n"}, steps: {a: {call: h}}, output: {n: "${{ loop.index + 1 }}"}}'
    it = shell(steps, {"n": 2})
    it.complete("count[0]/a")
    it.complete("count[1]/a")
    assert output(it) == {"count": {"n": 2}}
    assert [event.index for event in it.events(IterationBegan)] == [0, 1]
    assert output(shell(steps, {"n": 0})) == {"count": None}
    sound(it)


@pytest.mark.parametrize(
    ("given", "items"), [("2", [0, 1]), ("[x, y]", ["x", "y"]), ("${{ input.names }}", ["p", "q"])]
)
def test_a_loop_takes_a_count_or_items_one_after_the_other(given: str, items: list[Any]) -> None:
    """E13: item and index are there."""
    quoted = f'"{given}"' if "$" in given else given
    it = shell(
        f"  each: {{loop: {{for: {quoted}}}, steps: {{a: {{call: h, with: {{it: '${{{{ item }}}}', at: '${{{{ index }}}}'}}}}}}}}",
        {"names": ["p", "q"]},
    )
    for index, item in enumerate(items):
        assert json.loads(str(it.run.steps[f"each[{index}]/a"].input)) == {"it": item, "at": index}
        assert f"each[{index + 1}]" not in it.run.steps
        it.complete(f"each[{index}]/a")
    assert it.run.state == "COMPLETED"
    sound(it)


def test_a_loop_is_bounded() -> None:
    """E13: beyond its bound it fails, with a code of its own; it never goes on for ever."""
    it = shell("  poll: {loop: {until: false, max: 2}, steps: {a: {call: h}}}")
    it.complete("poll[0]/a")
    it.complete("poll[1]/a")
    assert it.run.state == "FAILED"
    assert it.run.failure is not None
    assert it.run.failure.cause is not None
    assert it.run.failure.cause.code == "LOOP_EXHAUSTED"
    sound(it)


def test_a_loop_without_anybody_to_wait_for_lets_others_decide_in_between() -> None:
    """E13, T2: no decision has more than a hundred iterations."""
    it = shell("  spin: {loop: {for: 1000}, steps: {tell: {emit: x}}}")
    longest = [len(it.created.events)]
    while not it.run.ended:
        it.now += 1
        longest.append(len(it.decide(WakeUp()).events))
    assert it.run.state == "COMPLETED"
    assert max(longest) < 1_000
    sound(it)


def test_a_loop_that_takes_too_long_is_stopped_while_it_waits() -> None:
    """F5, E13: its timeout is for all iterations."""
    it = shell("  poll: {loop: {until: false, delay: 1h}, timeout: 10s, steps: {a: {call: h}}}")
    it.complete("poll[0]/a")
    wake(it, 10)
    assert it.run.failure is not None
    assert it.run.failure.cause is not None
    assert (it.run.state, it.run.failure.cause.code) == ("FAILED", "TIMEOUT")
    sound(it)
