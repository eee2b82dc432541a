"""What the workloads call beside `echo`."""

from __future__ import annotations

from tierflow import Rejected, handler


@handler("bench.nine_of_ten", inline=True)
def nine_of_ten(i: int) -> dict[str, int]:
    """Echoes; refuses every tenth."""
    if i % 10 == 0:
        raise Rejected("a tenth")
    return {"i": i}
