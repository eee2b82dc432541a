"""Draws points as SVG: panels side by side, two in a row, with lines or bars. Small on purpose."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.curves.stage import Panel, Point

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8e5ea2", "#e08e00", "#555555")


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a value stands between the two ends of an axis, and where the axis is marked."""

    low: float
    high: float
    log: bool
    marks: Sequence[float]

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def has(self, value: float) -> bool:
        """Whether the value has a place."""
        return value > 0 or not self.log


def axis(values: Sequence[float], *, log: bool) -> Axis:
    """An axis on which all values have a place; from zero unless it is logarithmic. Zeros have no place on a logarithmic one."""
    positive = [value for value in values if value > 0]
    if log and positive:
        low = 10.0 ** math.floor(math.log10(min(positive)))
        high = max(low * 10.0, 10.0 ** math.ceil(math.log10(max(positive)) - 1e-9))
        decades = round(math.log10(high / low))
        return Axis(low, high, log=True, marks=[low * 10.0**n for n in range(decades + 1)])
    step = _step(max([*positive, 1e-9]))
    count = math.ceil(max([*positive, 1e-9]) / step)
    return Axis(0.0, step * count, log=False, marks=[step * n for n in range(count + 1)])


def draw(panels: Sequence[Panel], points: Sequence[Point]) -> str:
    """The picture as text."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    parts = []
    for number, panel in enumerate(panels):
        x, y = number % columns * WIDTH, number // columns * HEIGHT
        body = _bars(panel, points) if panel.bars else _lines(panel, points)
        parts.append(f'<g transform="translate({x},{y})">{_text(LEFT, 22, panel.title, size=14)}{body}</g>')
    under = points[-1] if points else {}
    note = " · ".join(str(under[key]) for key in ("machine", "commit", "at") if key in under)
    width, height = columns * WIDTH, rows * HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(parts)}{_text(LEFT, height - 8, note, size=10)}</svg>\n'
    )


def _lines(panel: Panel, points: Sequence[Point]) -> str:
    lines = _by_series(panel, points)
    across = axis([x for line in lines.values() for x, _ in line], log=panel.log_x)
    up = axis([y for line in lines.values() for _, y in line], log=panel.log_y)
    parts = [_grid(across, up), _text(_x(0.5), HEIGHT - 12, panel.x.replace("_", " "), anchor="middle")]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        shown = [(_x(across.share(x)), _y(up.share(y))) for x, y in line if across.has(x) and up.has(y)]
        parts.append(_line(shown, colour))
        parts.append(_text(LEFT + 8, TOP + 14 + 14 * number, name, colour=colour))
    return "".join(parts)


def _by_series(panel: Panel, points: Sequence[Point]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        name = str(point[panel.series]) if panel.series else ""
        lines.setdefault(name, []).append((float(point[panel.x]), float(point[panel.y])))
    return lines


def _bars(panel: Panel, points: Sequence[Point]) -> str:
    """A bar for the largest value of each name: several points of a name are repetitions, and the worst one counts."""
    values: dict[str, float] = {}
    for point in points:
        name = str(point[panel.x])
        values[name] = max(values.get(name, 0.0), float(point[panel.y]))
    across = max([*values.values(), 1e-9])
    left, room = 210, WIDTH - 210 - 70
    thick = (HEIGHT - TOP - 10) / max(1, len(values))
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = TOP + thick * number
        parts.append(_text(left - 6, y + thick / 2 + 4, name, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{y + 2:.1f}" width="{value / across * room:.1f}" height="{thick - 4:.1f}" fill="{COLOURS[0]}"/>'
        )
        parts.append(_text(left + value / across * room + 5, y + thick / 2 + 4, _number(value)))
    return "".join(parts)


def _grid(across: Axis, up: Axis) -> str:
    parts = []
    for mark in up.marks:
        y = _y(up.share(mark))
        parts.append(f'<line x1="{_x(0)}" y1="{y:.1f}" x2="{_x(1)}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, y + 4, _number(mark), anchor="end"))
    for mark in across.marks:
        x = _x(across.share(mark))
        parts.append(f'<line x1="{x:.1f}" y1="{_y(0)}" x2="{x:.1f}" y2="{_y(0) + 4}" stroke="#888888"/>')
        parts.append(_text(x, _y(0) + 18, _number(mark), anchor="middle"))
    return "".join(parts)


def _line(places: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _text(x: float, y: float, text: Any, *, anchor: str = "start", size: int = 11, colour: str = "#333333") -> str:
    said = html.escape(str(text))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{said}</text>'


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _step(largest: float) -> float:
    """A round distance between marks, of which four to eight are enough."""
    rough = largest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 10_000 else f"{value:.4g}"
