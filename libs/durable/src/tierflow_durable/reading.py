"""Reading: entities, their events, lists of them. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import msgspec
import orjson
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.database import Viewer
from tierflow_durable.entity import Entity
from tierflow_durable.host import Host
from tierflow_durable.ids import floor_of
from tierflow_durable.sqlfile import narrowed, statement

S = TypeVar("S")
T = TypeVar("T")


LARGEST = 2**63 - 1
"""The largest number that the database keeps."""


class JournalRow(msgspec.Struct, frozen=True, gc=False):
    """Events first_seq … seq of an entity; `data` is a serialised EventBatch with only its events set."""

    first_seq: int
    seq: int
    data: bytes


class Idle(msgspec.Struct, frozen=True):
    """Nothing happened since `seq`."""

    seq: int


class EntityRow(msgspec.Struct, frozen=True, kw_only=True):
    """The stored row of an entity. Moments in microseconds."""

    id: str
    tenant: str
    user_id: str
    state: str
    reason: str
    name: str
    version: str
    parent_id: str | None
    trace_id: str
    correlation_id: str
    labels: dict[str, str]
    outcome: str
    generation: int
    created_at: Micros
    ended_at: Micros | None
    seq: int
    owner: str | None
    wake_at: Micros | None


class ListFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to list, of one tenant; an unset field does not filter. `before_id` continues a page: only ids below it."""

    tenant: str
    user_id: str | None = None
    parent_id: str | None = None
    states: tuple[str, ...] = ()
    name: str | None = None
    labels: dict[str, str] = {}
    created_after: Micros | None = None
    created_before: Micros | None = None
    trace_id: str | None = None
    before_id: str | None = None
    limit: int = 100


class Page(msgspec.Struct, frozen=True):
    """One page, newest first; `next_id` continues it, None on the last."""

    rows: list[EntityRow]
    next_id: str | None


class Reader(Generic[S]):
    """Reads of one tier. From memory where the entity is owned here (rule R7), else from what is stored."""

    def __init__(self, host: Host[S, Any, Any]) -> None:
        self._host = host

    async def view(self, entity_id: str, look: Callable[[S], T]) -> T:
        """What `look` sees in the state, once that is committed. Raises FailureError NOT_FOUND, UNAVAILABLE past the lease, DATABASE_UNAVAILABLE."""
        host = self._host
        entity = host.entities.get(entity_id)
        if entity is not None and entity.birth is None and host.instance.alive:
            seen = look(entity.state)
            if entity.seq == entity.committed_seq or await self._commit_of(entity):
                return seen
            return await self.view(entity_id, look)
        if entity is not None and entity.birth is not None:
            await self._commit_of(entity)
            return await self.view(entity_id, look)
        loaded = await host.loader.load(entity_id)
        if loaded is None:
            raise self.not_found(entity_id)
        return look(loaded.state)

    async def _commit_of(self, entity: Entity[S]) -> bool:
        """Waits until everything decided so far is committed; False where the entity left memory without that."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host.when_committed(entity, lambda: None if future.done() else future.set_result(None))
        lost = entity.wait_released()
        await asyncio.wait({future, lost}, return_when=asyncio.FIRST_COMPLETED)
        return future.done()

    def not_found(self, entity_id: str) -> FailureError:
        """The error for an id that nothing has."""
        kind = self._host.machine.kind
        return FailureError(
            failure("NOT_FOUND", f"there is no {kind} {entity_id}", component="durable", operation="read")
        )

    async def row(self, entity_id: str) -> EntityRow | None:
        """The stored row, or None."""
        found = await self._host.database.fetchrow("row", id=entity_id)
        return None if found is None else _row(found)

    async def page(self, wanted: ListFilter) -> Page:
        """One page of rows. Raises FailureError while the database is away."""
        conditions, values = _conditions(wanted)
        query = statement("list", conditions=" AND ".join(conditions) or "true")
        viewer = Viewer(wanted.tenant, wanted.user_id or "")
        found = await self._host.database.fetch_seen(viewer, query, limit=wanted.limit + 1, **values)
        rows = [_row(each) for each in found]
        more = len(rows) > wanted.limit
        rows = rows[: wanted.limit]
        return Page(rows=rows, next_id=rows[-1].id if more else None)

    async def count_states(self) -> dict[str, int]:
        """How many entities that have not ended are in each state, over all instances."""
        return {row["state"]: row["n"] for row in await self._host.database.fetch_patiently("count_states")}

    async def events(self, entity_id: str, after_seq: int, limit: int = 1000) -> list[JournalRow]:
        """Journal rows of an entity that hold events after `after_seq`, in order."""
        after = min(after_seq, LARGEST)  # what clients may say goes further than any journal
        rows = await self._host.database.fetch_patiently("journal_of", id=entity_id, after=after, limit=limit)
        return [JournalRow(row["first_seq"], row["seq"], row["data"]) for row in rows]

    async def watch(
        self, entity_id: str, after_seq: int, *, idle_after: float = 5.0, poll: float = 0.25
    ) -> AsyncIterator[JournalRow | Idle]:
        """Journal rows as they are committed, from a place on; a notice when nothing happened for `idle_after` seconds. Ends after the terminal event.

        Woken at once by commits of this instance; those of others are found by looking every `poll` seconds. Raises FailureError NOT_FOUND.
        """
        if entity_id not in self._host.entities:
            await self._has_ended(entity_id)
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            news = self._news(entity_id)
            last = await self._last_seq(entity_id)
            rows = await self.events(entity_id, after_seq, 200)
            for row in rows:
                yield row
                after_seq = row.seq
            if rows:
                heard = loop.time()
                continue
            if last is not None and after_seq >= last:
                return
            if loop.time() - heard >= idle_after:
                heard = loop.time()
                yield Idle(after_seq)
            await asyncio.wait({news}, timeout=min(idle_after, 5.0) if entity_id in self._host.entities else poll)

    async def _last_seq(self, entity_id: str) -> int | None:
        """The last sequence number of an ended entity; None while it goes on."""
        end = await self._host.database.fetchrow("entity_end", id=entity_id)
        return None if end is None or end["ended_at"] is None else int(end["seq"])

    def _news(self, entity_id: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entity = self._host.entities.get(entity_id)
        if entity is not None:
            if entity.watchers is None:
                entity.watchers = []
            entity.watchers.append(future)
        return future

    async def wait_ended(self, entity_id: str, timeout: float | None) -> bool:
        """Whether the entity has ended, after waiting for that as long as `timeout` seconds (None: for ever). Raises FailureError NOT_FOUND."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        pause = 0.02
        while True:
            entity = self._host.entities.get(entity_id)
            left = math.inf if until is None else until - loop.time()
            if entity is None and await self._has_ended(entity_id):
                return True
            if left <= 0:
                return False
            if entity is not None:
                await asyncio.wait({entity.wait_released()}, timeout=None if until is None else left)
            else:
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 1.5, 0.5)

    async def _has_ended(self, entity_id: str) -> bool:
        row = await self._host.database.fetchrow("entity_end", id=entity_id)
        if row is None:
            raise self.not_found(entity_id)
        return row["ended_at"] is not None

    async def blob(self, sha256: str) -> bytes:
        """A stored value. Raises FailureError NOT_FOUND."""
        rows = await self._host.database.fetch_patiently("blob_chunks", sha256=bytes.fromhex(sha256))
        if not rows:
            raise FailureError(
                failure("NOT_FOUND", f"there is no stored value {sha256}", component="blobs", operation="get")
            )
        return b"".join(row["data"] for row in rows)


def _row(found: Any) -> EntityRow:
    return EntityRow(
        id=str(found["id"]), tenant=found["tenant"], user_id=found["user_id"], state=found["state"], reason=found["reason"], name=found["name"],
        version=found["version"], parent_id=None if found["parent_id"] is None else str(found["parent_id"]), trace_id=found["trace_id"],
        correlation_id=found["correlation_id"], labels=orjson.loads(found["labels"]), outcome=found["outcome"], generation=found["generation"],
        created_at=found["created_at"], ended_at=found["ended_at"], seq=found["seq"],
        owner=None if found["owner"] is None else str(found["owner"]), wake_at=found["wake_at"],
    )  # fmt: skip


_SIMPLE = {
    "tenant": "tenant = :tenant",
    "user_id": "user_id = :user_id",
    "parent_id": "parent_id = :parent_id",
    "name": "name = :name",
    "trace_id": "trace_id = :trace_id AND trace_id <> ''",
    "before_id": "id < :before_id",
}

ABOUT: Micros = 3_600_000_000
"""By so much an id's moment and the moment of creation may differ."""

UNSUCCESSFUL = {"FAILED", "CANCELLED", "STOPPED", "TERMINATED"}
"""States whose outcome is FAILURE or CANCELLED, always."""
ENDED = {"COMPLETED", *UNSUCCESSFUL}


def _conditions(wanted: ListFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = narrowed(wanted, _SIMPLE)
    if wanted.states:
        conditions.append("state = ANY(:states::text[])")
        values["states"] = list(wanted.states)
        # These follow from the states; they say it as the partial indexes do.
        if not ENDED & set(wanted.states):
            conditions.append("ended_at IS NULL")
        elif set(wanted.states) <= UNSUCCESSFUL:
            conditions.append("outcome IN ('FAILURE', 'CANCELLED')")
    if wanted.labels:
        conditions.append("labels @> :labels::jsonb AND labels <> '{}'")
        values["labels"] = orjson.dumps(wanted.labels).decode()
    # An id tells when it was made, about: that is how the rows are found.
    if wanted.created_after is not None:
        conditions.append("created_at >= :created_after AND id >= :least")
        values["created_after"] = wanted.created_after
        values["least"] = floor_of(max(0, wanted.created_after - ABOUT))
    if wanted.created_before is not None:
        conditions.append("created_at < :created_before AND id < :most")
        values["created_before"] = wanted.created_before
        values["most"] = floor_of(max(0, wanted.created_before + ABOUT))
    return conditions, values
