"""What is left of an allocation once its usage is known. Exact integers; what was not limited stays so."""

from __future__ import annotations

from tierflow_runtime.values import NO_ALLOCATION, Allocation, Usage


def returned(granted: Allocation, used: Usage) -> Allocation:
    """What a swarm gives back at its end. Capacities (memory, concurrency, depth) are given back whole; nothing is ever negative."""
    if granted is NO_ALLOCATION or granted == NO_ALLOCATION:
        return granted
    return Allocation(
        credits=_left(granted.credits, used.credits),
        wall_time=_left(granted.wall_time, used.wall_time),
        memory_bytes=granted.memory_bytes,
        concurrent_steps=granted.concurrent_steps,
        steps=_left(granted.steps, used.steps),
        tool_calls=_left(granted.tool_calls, used.tool_calls),
        tokens=_left(granted.tokens, used.input_tokens + used.output_tokens),
        depth=granted.depth,
    )


def _left(granted: int | None, used: int) -> int | None:
    return None if granted is None else max(0, granted - used)
