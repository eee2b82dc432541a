"""Hard limits that a caller sets for an execution."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tierflow_contracts.common.v1.execution_pb2 import ResourceAllocation

from tierflow.times import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Hard limits; None is not limited. Money is whole micro-credits, 1,000,000 to 1 USD, never a float."""

    credits: int | None = None
    wall_time: float | str | timedelta | None = None
    """Seconds, a text such as `90s` or `15m`, or a timedelta."""
    memory_bytes: int | None = None
    """Of one attempt."""
    concurrent_steps: int | None = None
    steps: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    depth: int | None = None

    def allocation(self) -> ResourceAllocation:
        """The limits as they are sent. Raises `InvalidRequest` for a negative or fractional limit."""
        from tierflow.errors import invalid

        allocation = ResourceAllocation()
        for name in ("credits", "memory_bytes", "concurrent_steps", "steps", "tool_calls", "tokens", "depth"):
            limit = getattr(self, name)
            if limit is None:
                continue
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
                raise invalid(f"allocation.{name}", f"must be a whole number, 0 or more, not {limit!r}")
            setattr(allocation, name, limit)
        if self.wall_time is not None:
            allocation.wall_time.CopyFrom(duration(self.wall_time, "allocation.wall_time"))
        return allocation
