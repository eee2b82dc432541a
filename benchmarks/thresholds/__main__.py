"""Measures every figure that has a promised bound, prints the table, and keeps it: `make thresholds`.

Ends with 1 where a promise is not kept. `SMOKE=1` shows that it works, on tiny numbers, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks import measuring
from benchmarks.curves.stage import Size, client_of, system
from benchmarks.thresholds import latencies, sizes, speedups
from benchmarks.thresholds.figures import Figure, table

HANDLERS = ["benchmarks.curves.handlers", "benchmarks.thresholds.handlers"]


async def figures(size: Size) -> list[Figure]:
    """All of them."""
    found = [*sizes.messages(), sizes.snapshot()]
    async with system(handlers=HANDLERS) as stack, client_of(stack) as client:
        found += [
            await latencies.submissions(client, size),
            await latencies.checks(client, size),
            await latencies.watches(client, size),
        ]
        for rate in size.pick((200,), (1_000, 5_000)):
            found += await latencies.events(stack, client, size, rate)
        found += await speedups.all_of(stack, client, size)
    async with system(audited=False) as stack:
        found += await sizes.starts(stack)
    found += [await sizes.idle(size), await speedups.executors(size)]
    return found


def main() -> int:
    """See the module."""
    size = Size(smoke=bool(os.environ.get("SMOKE")))
    where = measuring.circumstances(0 if size.smoke else 120)
    found = asyncio.run(figures(size))
    print(table(found))
    if not size.smoke:
        lines = [
            {
                **where,
                "rows": each.rows,
                "what": each.what,
                "measured": each.measured,
                "bound": each.bound,
                "unit": each.unit,
                "kept": each.kept,
            }
            for each in found
        ]
        measuring.keep("thresholds", lines)
    broken = [each for each in found if not each.kept]
    return 1 if broken and not size.smoke else 0


if __name__ == "__main__":
    sys.exit(main())
