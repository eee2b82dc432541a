"""W3C trace context: what a traceparent is, and making one. Ids only; nothing here needs OpenTelemetry."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_NO_SPAN: Final = "0" * 16


class Traceparent(NamedTuple):
    """The parts of a traceparent: ids in hex, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def valid_traceparent(text: str) -> bool:
    """Whether a text is a version 00 traceparent with ids that are not all zero."""
    return _TRACEPARENT.fullmatch(text) is not None


def parse_traceparent(text: str) -> Traceparent | None:
    """The parts of a traceparent; None where it is not a valid one."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return Traceparent(trace_id, span_id, bool(int(flags, 16) & 1))


def new_traceparent(*, ratio: float = 1.0, trace_id: str = "") -> str:
    """A traceparent of a new trace.

    Args:
        ratio: Share of traces that are recorded, 0 to 1; decided from the trace id alone, so that every process decides alike.
        trace_id: 32 hex digits; a random one where empty.
    """
    chosen = trace_id or f"{random.getrandbits(128) or 1:032x}"
    return f"00-{chosen}-{random.getrandbits(64) or 1:016x}-{'01' if sampled_by_ratio(chosen, ratio) else '00'}"


def sampled_by_ratio(trace_id: str, ratio: float) -> bool:
    """Whether a trace is recorded at a ratio, by the last 8 bytes of its id (as OpenTelemetry's ratio sampler decides)."""
    return ratio > 0.0 and int(trace_id[16:], 16) < round(ratio * 2**64)


def child_traceparent(parent: str, span_id: str = "") -> str:
    """The traceparent that work below `parent` hands on: the same trace and flag with a span id of its own; empty where the parent is not valid.

    Args:
        parent: Traceparent of the caller.
        span_id: 16 hex digits, such as from `span_id_of`; a random one where empty.
    """
    if not valid_traceparent(parent):
        return ""
    return f"{parent[:36]}{span_id or f'{random.getrandbits(64) or 1:016x}'}{parent[52:]}"


def span_id_of(entity_id: str, step_id: str = "", attempt: int = 0) -> str:
    """The span id of a swarm, run, step or attempt, 16 hex digits: always the same for the same one, so that it survives a restart."""
    text = f"{entity_id}/{step_id}/{attempt}".encode()
    digest = hashlib.blake2b(text, digest_size=8).hexdigest()
    return digest if digest != _NO_SPAN else "0" * 15 + "1"
