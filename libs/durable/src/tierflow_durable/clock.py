"""Time by the database (rule R17) and by the boot-time clock (rule R25)."""

from __future__ import annotations

import time

from tierflow_runtime.values import Micros


def boot_time() -> Micros:
    """Microseconds since the machine was started, time asleep included: what leases are counted on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class DatabaseClock:
    """The database's time, from the offset measured at the last heartbeat. Never goes back."""

    __slots__ = ("_last", "_offset")

    def __init__(self) -> None:
        self._offset: Micros = time.time_ns() // 1000 - boot_time()
        self._last: Micros = 0

    def observe(self, database_now: Micros, sent: Micros, received: Micros) -> None:
        """Takes a reading: the database said `database_now` between the boot-time moments `sent` and `received`."""
        self._offset = database_now - (sent + received) // 2

    def now(self) -> Micros:
        """The database's time now, in microseconds since the epoch; at least what it said before."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000 + self._offset
        if now < self._last:
            return self._last
        self._last = now
        return now
