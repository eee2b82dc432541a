"""What is kept of a run only where somebody steers it: breakpoints, limits that were changed, receipts, answers. Plain runs have none of it."""

from __future__ import annotations

import msgspec
from tierflow_runtime.values import NO_USAGE, BlobRef, Micros, Reuse, Usage

EVERY_STEP = "*"
"""As a breakpoint: every step."""

REMEMBERED_ANSWERS = 256
"""Answers to signals that a run keeps; older ones are forgotten first."""


class Receipt(msgspec.Struct, omit_defaults=True, gc=False):
    """What is known of an attempt that was in flight when its run was told to stop: OPEN, CONFIRMED, UNCONFIRMED or ENDED."""

    step_id: str
    state: str = "OPEN"
    usage: Usage = NO_USAGE


class Stop(msgspec.Struct, omit_defaults=True):
    """The run was told to stop: when, why, by whom, what was booked until then, and what became of each attempt in flight."""

    asked_at: Micros
    before: Usage
    """Without a default: what equals one is left out of a snapshot only where it is the very same object."""
    reason: str = ""
    actor: str = ""
    attempts: dict[str, Receipt] = {}
    """By attempt id."""


class Kept(msgspec.Struct, omit_defaults=True, gc=False):
    """What a task of a document gave in an earlier generation, and for what."""

    input: str | BlobRef | None = None
    output: str | BlobRef | None = None
    directive: str = ""
    skipped: bool = False
    """Whether somebody skipped it."""


class Steer(msgspec.Struct, omit_defaults=True):
    """Changed only by `evolve`."""

    breakpoints: tuple[str, ...] = ()
    stepping: bool = False
    """What becomes READY is held, until the run is resumed."""
    held: list[str] = []
    """Steps that wait at breakpoints, in the order in which they came there."""
    version: int = 0
    """Of the limits and policies."""
    concurrency: int | None = None
    """In place of the flow's; 0 is not limited."""
    deadline: Micros | None = None
    """In place of all that bounds the run in time."""
    opened_at: Micros = 0
    """When the present generation was opened; 0 for the first."""
    floor: int = 0
    """The highest epoch of earlier generations: steps without an epoch of their own begin above it, so that no attempt id comes twice."""
    reuse: Reuse | None = None
    reused: dict[str, tuple[str | BlobRef | None, str]] = {}
    """Results of another run, by step, until the steps are known."""
    kept: dict[str, Kept] = {}
    """Of a document that is walked again: by step, the tasks that were done before."""
    stop: Stop | None = None
    signal_ids: dict[str, list[str]] = {}
    """By name: ids of the signals that no step has taken yet, as in `Run.signals`."""
    answers: dict[str, tuple[str, str | BlobRef]] = {}
    """By signal: the step that answered it, and what it said."""

    @property
    def gated(self) -> bool:
        """Whether steps are looked at before they start."""
        return self.stepping or bool(self.breakpoints)
