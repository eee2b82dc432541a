"""Time and chance as the processes see them: each has clocks of its own, all have their randomness from the world's seed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import uuid
from typing import Any

from simulation.loop import World

EPOCH = 1_750_000_000.0
"""When the world begins, seconds since 1970, by the database's clock."""

REAL_CLOCK = time.perf_counter
_NAMES = ("time", "time_ns", "monotonic", "monotonic_ns", "clock_gettime_ns")
_REAL: dict[tuple[Any, str], Any] = {(time, name): getattr(time, name) for name in _NAMES}
_REAL[os, "urandom"] = os.urandom
_REAL[uuid, "uuid4"] = uuid.uuid4
_REAL[secrets, "token_hex"] = secrets.token_hex


class Skew:
    """How a process's clocks differ from the database's: wall clock and boot-time clock, seconds."""

    __slots__ = ("boot", "rate", "wall")

    def __init__(self, wall: float = 0.0, boot: float = 0.0, rate: float = 1.0) -> None:
        self.wall = wall
        self.boot = boot
        self.rate = rate


_NONE = Skew()


def install(world: World) -> None:
    """Replaces clocks and chance for the whole interpreter until `remove`."""
    running = asyncio._get_running_loop

    def skew() -> Skew:
        loop = running()
        process = None if loop is None else loop.process
        return _NONE if process is None else process.skew

    chance = random.Random(world.seed ^ 0x5EED)
    patches = {
        (time, "time"): lambda: EPOCH + world.now + skew().wall,
        (time, "time_ns"): lambda: int((EPOCH + world.now + skew().wall) * 1e9),
        (time, "monotonic"): lambda: world.now,
        (time, "monotonic_ns"): lambda: int(world.now * 1e9),
        (time, "clock_gettime_ns"): lambda _: int((world.now * skew().rate + skew().boot) * 1e9),
        (os, "urandom"): chance.randbytes,
        (uuid, "uuid4"): lambda: uuid.UUID(bytes=chance.randbytes(16), version=4),
        (secrets, "token_hex"): lambda size=32: chance.randbytes(size).hex(),
    }
    for (module, name), value in patches.items():
        setattr(module, name, value)
    random.seed(world.seed)


def remove() -> None:
    """Gives real time and chance back."""
    for (module, name), value in _REAL.items():
        setattr(module, name, value)
