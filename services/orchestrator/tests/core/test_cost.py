"""What deciding costs: the same for each step, however many there are. Counted in calls, so that a busy machine does not matter."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tierflow_flow import parse
from tierflow_flow.definition import Flow
from tierflow_orchestrator.core.commands import Cancel, ReportResult

from .fakes import Shell, call, flow, map_

Act = Callable[[], object]


def calls(act: Act) -> int:
    """Function calls made, of Python and of C."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def drive(its: Flow, **more: object) -> Shell:
    shell = Shell(its, **more)
    position = 0
    while position < len(shell.dispatched):
        effect = shell.dispatched[position]
        shell.tell(ReportResult(attempt_id=effect.attempt_id, state="COMPLETED", output="1", started_at=shell.now))
        position += 1
    assert shell.run.state == "COMPLETED"
    return shell


def test_wide() -> None:
    """E3, Q8, V13: a map of 4,000 costs per item what one of 400 costs; a scan anywhere would make it ten times as much."""
    for most in (None, 16):
        cost = {n: calls(lambda n=n, most=most: drive(flow(map_("m", n, concurrency=most)))) / n for n in (400, 4000)}
        assert cost[4000] < 1.1 * cost[400], cost


def test_long() -> None:
    """E4: a chain of 1,000 costs per step what one of 100 costs."""

    def chain(n: int) -> Flow:
        return flow(*[call(f"s{i}", *([f"s{i - 1}"] if i else [])) for i in range(n)])

    cost = {n: calls(lambda n=n: drive(chain(n))) / n for n in (100, 1000)}
    assert cost[1000] < 1.1 * cost[100], cost


def test_joined() -> None:
    """E3: a step that needs 1,000 others counts them in, one by one."""

    def fan(n: int) -> Flow:
        return flow(*[call(f"s{i}") for i in range(n)], call("j", *[f"s{i}" for i in range(n)]))

    cost = {n: calls(lambda n=n: drive(fan(n))) / n for n in (100, 1000)}
    assert cost[1000] < 1.1 * cost[100], cost


def test_failing() -> None:
    """E6: so do failures under CONTINUE, and a cancel of everything."""

    def failing(n: int) -> None:
        shell = Shell(flow(map_("m", n, concurrency=8), failure_policy="CONTINUE"))
        while not shell.run.ended:
            shell.fail(next(iter(shell.run.live)))

    def cancelled(n: int) -> None:
        shell = Shell(flow(map_("m", n)))
        shell.tell(Cancel(command_id="c"))
        while not shell.run.ended:
            shell.cancelled(next(iter(shell.run.live)))

    for act in (failing, cancelled):
        cost = {n: calls(lambda n=n, act=act: act(n)) / n for n in (300, 3000)}
        assert cost[3000] < 1.1 * cost[300], (act.__name__, cost)


def test_with_the_real_language() -> None:
    """E3: the expressions of items do not look at the other items."""
    text = "name: w\nsteps:\n  m: {map: '${{ range(%d) }}', call: h, with: {v: '${{ item }}', i: '${{ index }}'}}\n"
    cost = {n: calls(lambda n=n: drive(parse(text % n, "yaml"))) / n for n in (300, 3000)}
    assert cost[3000] < 1.2 * cost[300], cost
