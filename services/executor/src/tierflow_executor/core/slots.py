"""How the slots of an executor are shared among the orchestrators that are connected to it."""

from __future__ import annotations

from collections.abc import Sequence


def shares(usable: int, instances: Sequence[str]) -> dict[str, int]:
    """The slots that each instance may use at once: even shares, the remainder to the first ones, at least one each.

    Args:
        usable: Slots that can be granted now; 0 or less grants none to anybody.
        instances: Instances in the order in which they connected.
    """
    if usable <= 0 or not instances:
        return dict.fromkeys(instances, 0)
    each, rest = divmod(usable, len(instances))
    return {instance: max(1, each + (1 if place < rest else 0)) for place, instance in enumerate(instances)}
