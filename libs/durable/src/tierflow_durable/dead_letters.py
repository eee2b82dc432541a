"""What failed beyond automatic help, kept until somebody has dealt with it (K4).

A letter is written after the commit that it is about, and follows from it: the ended entity's row says that there must be one, so that a letter which a crash
has swallowed is written by the next look. It holds a reason and where things are, not the things: the input is in the entity, the events are in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from tierflow_contracts.common.v1 import failure_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Failure, FailureError, Micros
from tierflow_runtime.wire import failure_from_proto, failure_to_proto

from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database, Viewer
from tierflow_durable.ids import uuid7
from tierflow_durable.packing import Message
from tierflow_durable.sqlfile import Statement, narrowed, statement

log = get_log(__name__)

DEAD_LETTER: Final = "DEAD_LETTER"
"""The reason of an ended entity's row that says: this one is to be looked at."""
RUN: Final = "RUN"
COMPENSATION: Final = "COMPENSATION"
EVENTS: Final = "EVENTS"
OPEN: Final = "OPEN"
RETRIED: Final = "RETRIED"
DISCARDED: Final = "DISCARDED"

COUNT_EVERY: Final = 30.0
LOOK_EVERY: Final = 3600.0
"""Seconds between looks for letters that were never written; the first is at the start."""
AT_ONCE: Final = 500
LONG: Final = 6
"""Letters that nobody deals with are kept so many times as long as ended entities."""
_FIRST: Final = "00000000-0000-0000-0000-000000000000"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that failed. Moments in microseconds."""

    id: str
    kind: str
    tenant: str
    user_id: str
    entity_id: str
    """The run (or swarm) that failed, or whose events they are."""
    generation: int
    swarm_id: str
    name: str
    """The flow's."""
    version: str
    trace_id: str
    failure: Failure
    first_seq: int = 0
    """Of EVENTS: the first and the last."""
    last_seq: int = 0
    state: str = OPEN
    actor: str = ""
    reason: str = ""
    retried_as: str = ""
    """The swarm that was made of it."""
    created_at: Micros = 0
    resolved_at: Micros | None = None


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to list; of one tenant, always. An unset field does not filter."""

    tenant: str
    user_id: str | None = None
    swarm_id: str | None = None
    name: str | None = None
    states: tuple[str, ...] = ()
    before_id: str | None = None
    id: str | None = None
    limit: int = 100


class DeadLetters:
    """The letters of one tier."""

    def __init__(self, database: Database, clock: DatabaseClock, *, keep: Micros) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep
        self.open: Mapping[str, int] = {}
        """Letters that nobody has dealt with, by kind, as of the last count."""
        self.noted = 0
        """Letters that this instance has written."""

    async def note(self, letter: Letter) -> None:
        """Writes a letter; one that is there already stays as it is. Waits for a database that is away."""
        coded = failure_to_proto(letter.failure).SerializeToString()
        values = {name: getattr(letter, name) for name in _WRITTEN}
        await self._database.fetch_patiently(
            _query("note"), **values, failure=coded, swarm_id=letter.swarm_id or None, created_at=self._clock.now()
        )
        self.noted += 1
        log.error("a dead letter is written", kind=letter.kind, entity_id=letter.entity_id, code=letter.failure.code)

    async def note_events(self, message: Message, refusal: Failure) -> None:
        """Writes a letter about events that JetStream will never take."""
        batch = event_pb2.EventBatch.FromString(message.payload)
        entity_id, first_seq, last_seq = batch.source.entity_id, batch.events[0].seq, batch.events[-1].seq
        row = await self._database.fetchrow(_query("source"), id=entity_id)
        if row is None:
            return
        await self.note(
            Letter(
                id=uuid7(self._clock.now()),
                kind=EVENTS,
                tenant=row["tenant"],
                user_id=row["user_id"],
                entity_id=entity_id,
                generation=row["generation"],
                swarm_id=str(row["parent_id"] or entity_id),
                name=row["name"],
                version=row["version"],
                trace_id=row["trace_id"],
                failure=refusal,
                first_seq=first_seq,
                last_seq=last_seq,
            )
        )

    async def page(self, wanted: LetterFilter) -> list[Letter]:
        """Letters, newest first."""
        conditions, values = _conditions(wanted)
        query = _query("page", conditions=" AND ".join(conditions))
        viewer = Viewer(wanted.tenant, wanted.user_id or "")
        return [_read(row) for row in await self._database.fetch_seen(viewer, query, limit=wanted.limit, **values)]

    async def find(self, letter_id: str, tenant: str) -> Letter:
        """One letter of a tenant. Raises FailureError NOT_FOUND."""
        found = await self.page(LetterFilter(tenant=tenant, id=letter_id, limit=1))
        if not found:
            raise _failed("NOT_FOUND", f"There is no dead letter {letter_id}.")
        return found[0]

    async def resolve(
        self, letter_id: str, tenant: str, state: str, *, actor: str, reason: str, retried_as: str = ""
    ) -> Letter:
        """Says what became of a letter: RETRIED or DISCARDED, by whom and why. To say the same again changes nothing.

        Raises:
            FailureError: NOT_FOUND; STATE_CONFLICT where something else was said before.
        """
        await self._database.fetch_patiently(
            _query("resolve"), id=letter_id, tenant=tenant, state=state, actor=actor, reason=reason,
            retried_as=retried_as or None, now=self._clock.now(),
        )  # fmt: skip
        letter = await self.find(letter_id, tenant)
        if letter.state != state or letter.retried_as != retried_as:
            text = f"Dead letter {letter_id} is {letter.state} already, by {letter.actor}."
            raise _failed("STATE_CONFLICT", text)
        return letter

    async def resolve_of(self, entity_id: str, generation: int, *, actor: str, reason: str) -> None:
        """An entity goes on in a generation: what was open of those before is RETRIED. It may have failed again already."""
        await self._database.fetch_patiently(
            _query("resolve_of"), entity_id=entity_id, generation=generation, actor=actor, reason=reason,
            now=self._clock.now(),
        )  # fmt: skip

    async def rows_of(self, letter: Letter) -> list[Any]:
        """The journal rows of the events of a letter, with the columns of their entity."""
        return await self._database.fetch_patiently(
            _query("rows_of"), id=letter.entity_id, first_seq=letter.first_seq, last_seq=letter.last_seq
        )

    async def run(self, note: Callable[[str], Awaitable[None]]) -> None:
        """Counts, looks for entities that need a letter and have none (`note` writes one), and forgets what is old; until cancelled."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            try:
                if loop.time() >= look_at:
                    await self.look(note)
                    look_at = loop.time() + LOOK_EVERY
                self.open = {row["kind"]: row["n"] for row in await self._database.fetch(_query("count_open"))}
            except FailureError as error:
                log.info("dead letters wait for the database", code=error.failure.code)
            await asyncio.sleep(COUNT_EVERY)

    async def look(self, note: Callable[[str], Awaitable[None]]) -> None:
        """One look for what a crash has swallowed, and for what is old."""
        after: str | None = _FIRST
        while after is not None:
            rows = await self._database.fetch(_query("unnoted"), after=after, limit=AT_ONCE)
            for row in rows:
                await note(str(row["id"]))
            after = str(rows[-1]["id"]) if len(rows) == AT_ONCE else None
        before = self._clock.now() - self._keep
        while (
            row := await self._database.fetchrow(
                _query("forget"), before=before, long_before=before - (LONG - 1) * self._keep, limit=AT_ONCE
            )
        ) is not None and row["n"]:
            pass


_WRITTEN: Final = (
    "id", "kind", "tenant", "user_id", "entity_id", "generation", "name", "version", "trace_id", "first_seq", "last_seq",
)  # fmt: skip
_SIMPLE: Final = {
    "tenant": "tenant = :tenant",
    "user_id": "user_id = :user_id",
    "swarm_id": "swarm_id = :swarm_id",
    "name": "name = :name",
    "before_id": "id < :before_id",
    "id": "id = :id",
}


def _conditions(wanted: LetterFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = narrowed(wanted, _SIMPLE)
    if wanted.states:
        conditions.append("state = ANY(:states::text[])")
        values["states"] = list(wanted.states)
        if wanted.states == (OPEN,):
            conditions.append("state = 'OPEN'")
    return conditions, values


def _query(name: str, **parts: str) -> Statement:
    return statement(name, filename="dead_letters.sql", **parts)


def _read(row: Any) -> Letter:
    return Letter(
        id=str(row["id"]), kind=row["kind"], tenant=row["tenant"], user_id=row["user_id"], entity_id=str(row["entity_id"]),
        generation=row["generation"], swarm_id=str(row["swarm_id"] or ""), name=row["name"], version=row["version"], trace_id=row["trace_id"],
        failure=failure_from_proto(failure_pb2.Failure.FromString(row["failure"])), first_seq=row["first_seq"], last_seq=row["last_seq"],
        state=row["state"], actor=row["actor"], reason=row["reason"], retried_as=str(row["retried_as"] or ""), created_at=row["created_at"],
        resolved_at=row["resolved_at"],
    )  # fmt: skip


def _failed(code: str, message: str) -> FailureError:
    return FailureError(failure(code, message, component="durable", operation="dead_letter"))
