"""The clock that what an executor holds is counted on: it rises whatever is done to the wall clock, and while the machine sleeps."""

from __future__ import annotations

import time
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def rising() -> int:
    """Microseconds since some moment. A wall clock that jumps ahead would drop every result that waits for its acknowledgement (rule R27)."""
    return time.clock_gettime_ns(_CLOCK) // 1000
