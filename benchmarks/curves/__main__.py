"""Measures curves: `python -m benchmarks.curves [NAME ...]`, all without a name. SMOKE=1 tiny, FULL=1 to the end.

Each writes its points to `benchmarks/results/curve-NAME.jsonl`, if the machine was quiet at the begin, and a picture to `docs/pictures/curve-NAME.svg`.
`python -m benchmarks.curves draw [NAME ...]` only draws what is stored.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks import measuring
from benchmarks.curves import asleep, failover, length, load, memory, scale, startup, stored, tracing
from benchmarks.curves.plot import draw
from benchmarks.curves.stage import ROOT, Curve, Point, Size

CURVES: dict[str, Curve] = {
    "startup": startup.CURVE,
    "load": load.CURVE,
    "length": length.CURVE,
    "orchestrators": scale.CURVE,
    "tracing": tracing.CURVE,
    "failover": failover.CURVE,
    "memory": memory.CURVE,
    "asleep": asleep.CURVE,
    "stored": stored.CURVE,
}
PATIENCE = 300.0
"""Seconds to wait for a quiet machine."""
PICTURES = ROOT / "docs/pictures"


async def measured(name: str, size: Size, circumstances: Point) -> list[Point]:
    """All points of a curve, each with where and when it was measured."""
    points = []
    async for point in CURVES[name].measure(size):
        points.append({"curve": name, **point, **circumstances})
        print(json.dumps({key: value for key, value in point.items() if not isinstance(value, dict)}), flush=True)
    return points


def picture(name: str, points: Sequence[Point]) -> None:
    """Draws a curve."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"curve-{name}.svg").write_text(draw(CURVES[name].panels, points))


def stored_points(name: str) -> list[Point]:
    """The points of the last series that was kept; none where there is none."""
    path = measuring.RESULTS / f"curve-{name}.jsonl"
    if not path.exists():
        return []
    points: list[Point] = [json.loads(line) for line in path.read_text().splitlines()]
    return [point for point in points if point["at"] == points[-1]["at"]]


def measure(name: str, size: Size) -> None:
    """Measures a curve and keeps it; a tiny one is drawn, so that it is known to work, and forgotten."""
    began = time.monotonic()
    print(f"{name}:", flush=True)
    circumstances = measuring.circumstances(size.pick(0.0, PATIENCE))
    points = uvloop.run(measured(name, size, circumstances))
    print(f"{name} took {time.monotonic() - began:.0f} s", flush=True)
    if size.smoke:
        draw(CURVES[name].panels, points)
    elif measuring.keep(f"curve-{name}", points):
        picture(name, points)


def main() -> None:
    """See the module."""
    only_draw = sys.argv[1:2] == ["draw"]
    names = sys.argv[2 if only_draw else 1 :] or list(CURVES)
    if unknown := [name for name in names if name not in CURVES]:
        raise SystemExit(f"there is no curve {', '.join(unknown)}; there are {', '.join(CURVES)}")
    if only_draw:
        for name in names:
            if points := stored_points(name):
                picture(name, points)
        return
    size = Size(smoke=os.environ.get("SMOKE") == "1", full=os.environ.get("FULL") == "1")
    for name in names:
        measure(name, size)


if __name__ == "__main__":
    main()
