"""Ids that clients choose."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A UUIDv7: 48 bits of milliseconds, then chance; ids sort roughly by age."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
