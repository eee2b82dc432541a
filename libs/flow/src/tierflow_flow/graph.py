"""Which steps wait for which: what a navigator makes of the steps. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tierflow_expressions.needs import Needs


def graph(steps: Sequence[str], needs: Mapping[str, frozenset[str]]) -> Needs:
    """Steps wait for what they need and nothing else."""
    order = {step: position for position, step in enumerate(steps)}
    return {step: tuple(sorted(needs[step], key=order.__getitem__)) for step in steps}


def sequence(steps: Sequence[str], needs: Mapping[str, frozenset[str]]) -> Needs:
    """Each step waits for the one before as well."""
    before = dict(zip(steps[1:], steps, strict=False))
    return graph(steps, {step: needs[step] | {before[step]} if step in before else needs[step] for step in steps})


NAVIGATORS: Mapping[str, Callable[[Sequence[str], Mapping[str, frozenset[str]]], Needs]] = {
    "graph": graph,
    "sequence": sequence,
}
"""By the name under the flow's key `navigator`."""
