"""An entity in the memory of its owner, and what of it waits to be committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.chain import first_link
from tierflow_durable.machine import Header, RequestKey, Source

S = TypeVar("S")


class Created:
    """The answer to a create: which entity it is, and whether this call made it."""

    __slots__ = ("created", "entity_id", "reply")

    def __init__(self, entity_id: str, *, created: bool, reply: Any = None) -> None:
        self.entity_id = entity_id
        self.created = created
        self.reply = reply


class Pending:
    """What one entity adds to the next group commit."""

    __slots__ = ("blobs", "callbacks", "classes", "events", "first_seq", "parts", "size")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.events: list[Any] = []
        self.parts: list[bytes] = []
        """Each event as a field of an EventBatch: tag, length, message."""
        self.classes: list[str] = []
        self.size = 0
        self.callbacks: list[Callable[[], None]] = []
        self.blobs: dict[str, bytes] = {}


class Birth:
    """How a new entity came about: its request id, and who waits to hear."""

    __slots__ = ("on_done", "reply", "request")

    def __init__(
        self, request: RequestKey | None, on_done: Callable[[Created | FailureError], None], reply: Any
    ) -> None:
        self.request = request
        self.on_done = on_done
        self.reply = reply


class Entity(Generic[S]):
    """An entity that this instance owns. The state runs ahead of what is committed; `seq` counts what was decided, `committed_seq` what is stored."""

    __slots__ = (
        "adopted",
        "birth",
        "busy",
        "chain",
        "closing",
        "committed_seq",
        "data",
        "dirty",
        "header",
        "held",
        "id",
        "journal_bytes",
        "last_time",
        "pending",
        "prefix",
        "released",
        "seq",
        "snapshot_bytes",
        "source",
        "source_bytes",
        "state",
        "timer",
        "watchers",
    )  # fmt: skip

    def __init__(self, entity_id: str, state: S) -> None:
        self.id = entity_id
        self.state = state
        self.chain = first_link(entity_id)
        """The hash of the last row that was taken for a commit (S12)."""
        self.seq = 0
        self.committed_seq = 0
        self.data: Any = None
        """The hooks' own slot."""
        self.pending: Pending | None = None
        self.dirty = False
        """Whether it is in the writer's list."""
        self.held = 0
        """Commands on their way to it, for which it was woken: it is not parked before they were decided."""
        self.busy = False
        """Whether a decision is under way: commands applied meanwhile belong to the same slice."""
        self.birth: Birth | None = None
        """Set until its create is committed."""
        self.header: Header | None = None
        """The row as it was written last."""
        self.adopted = False
        """Its adoptions counter is to be reset by the next commit (rule R13)."""
        self.closing = False
        """It is being let go in the commit under way: commands wait for `released`."""
        self.released: asyncio.Future[None] | None = None
        self.last_time: Micros = 0
        self.timer: Micros | None = None
        """The moment in the host's heap at which it is woken."""
        self.source: Source | None = None
        self.source_bytes = b""
        self.prefix = ""
        """Of its events' subjects."""
        self.journal_bytes = 0
        self.snapshot_bytes = 0
        self.watchers: list[asyncio.Future[None]] | None = None

    def wait_released(self) -> asyncio.Future[None]:
        """Resolved when the entity has left this instance's memory."""
        if self.released is None:
            self.released = asyncio.get_running_loop().create_future()
        return self.released

    def notify(self) -> None:
        """Wakes those who watch for commits."""
        if self.watchers:
            waiting, self.watchers = self.watchers, None
            for future in waiting:
                if not future.done():
                    future.set_result(None)
