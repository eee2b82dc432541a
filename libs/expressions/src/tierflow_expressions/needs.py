"""Which named things wait for which: the search for cycles, and the branches of switches. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

Needs = Mapping[str, tuple[str, ...]]
"""For each thing (a step of a flow, a run of a plan), in the text's order, the things that it waits for, in the same order."""


def dependants(needs: Needs) -> dict[str, tuple[str, ...]]:
    """For each step the steps that wait for it."""
    result: dict[str, list[str]] = {step: [] for step in needs}
    for step, needed in needs.items():
        for other in needed:
            result[other].append(step)
    return {step: tuple(others) for step, others in result.items()}


def cycles(needs: Needs) -> list[tuple[str, ...]]:
    """One cycle for each knot of steps that wait for one another, each as `(a, b, a)`: b waits for a, a waits for b. It begins with its first step."""
    ready = in_order(needs)
    found: list[tuple[str, ...]] = []
    done = set(ready)
    for start in needs:
        if start not in done:
            cycle = _cycle_from(start, needs, done)
            if cycle:
                found.append(cycle)
    return found


def _cycle_from(start: str, needs: Needs, done: set[str]) -> tuple[str, ...]:
    """Follow needs backwards from a step until one comes again, or until something that was seen before."""
    path: dict[str, None] = {}
    step: str | None = start
    while step is not None and step not in path and step not in done:
        path[step] = None
        step = next((other for other in needs[step] if other in path or other not in done), None)
    trail = list(path)
    done.update(trail)
    if step is None or step not in path:
        return ()
    knot = trail[trail.index(step) :]
    knot.reverse()
    order = {step: position for position, step in enumerate(needs)}
    first = knot.index(min(knot, key=order.__getitem__))
    return (*knot[first:], *knot[:first], knot[first])


def branches_of_switches(needs: Needs, chosen: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """A bit for each switch, and for each step that a switch may choose, or that comes after such a step, the bits of these switches.

    Args:
        needs: Of all steps, without cycles.
        chosen: By step: the switch that decides about it.
    """
    if not chosen:
        return {}, {}
    bits = {switch: 1 << position for position, switch in enumerate(dict.fromkeys(chosen.values()))}
    lanes: dict[str, int] = {}
    for step in in_order(needs):
        lane = bits[chosen[step]] if step in chosen else 0
        for other in needs[step]:
            lane |= lanes.get(other, 0)
        if lane:
            lanes[step] = lane
    return bits, lanes


def in_order(needs: Needs) -> list[str]:
    """The steps, each after those that it needs."""
    waiting = {step: len(needed) for step, needed in needs.items()}
    following = dependants(needs)
    ready = [step for step, count in waiting.items() if count == 0]
    for step in ready:
        for other in following[step]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    return ready
