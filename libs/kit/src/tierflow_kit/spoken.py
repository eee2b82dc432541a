"""Durations and values as messages write them."""

from __future__ import annotations

import json
from typing import Any

_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1))


def duration(micros: int) -> str:
    """As flows write it: `1h30m`, `2s500ms`, `0s`."""
    rest, text = abs(micros), ""
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return ("-" if micros < 0 else "") + (text or "0s")


def value(found: Any, most: int = 120) -> str:
    """A JSON value on one line, shortened."""
    text = json.dumps(found, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 3] + "..."
