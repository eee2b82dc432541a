"""What a decision consists of. Values only: modules of structs are not compiled (docs/adr/0021), so they are apart from what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from tierflow_runtime.values import Failure

from tierflow_orchestrator.core.events import RunEvent


class Difference(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How another version of a flow differs: hashes and versions before and after, ids of steps."""

    from_hash: str
    to_hash: str
    from_version: str
    to_version: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a command: whether it changed the run, the state after it, and why it was not applied where that is an error or stale."""

    applied: bool
    state: str
    failure: Failure | None = None
    version: int = 0
    """Of the run's limits and policies after it, where the command was about those."""
    generation: int = 0
    difference: Difference | None = None
    """How the flow of a migration differs."""


class Decision(msgspec.Struct, frozen=True):
    """What a command led to: events in order (already applied), the answer, and large values to be stored with them, by SHA-256."""

    events: Sequence[RunEvent]
    reply: Reply
    blobs: Mapping[str, bytes]
