"""The one writer of an instance: group commit (rules R1 to R5).

While a statement is in flight, everything decided meanwhile gathers for the next one. Nothing is acknowledged, dispatched or published before the statement that
holds it has committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Micros

from tierflow_durable.batch import BY_ID, Batch, Write, blob_rows
from tierflow_durable.chain import next_link
from tierflow_durable.clock import DatabaseClock, boot_time
from tierflow_durable.database import DISCONNECTED, Database, is_bad_row, is_weather
from tierflow_durable.entity import Entity
from tierflow_durable.sqlfile import statement

log = get_log(__name__)

FEWEST_ENTITIES, MOST_ENTITIES = 16, 64
"""A commit takes at most half of the entities in memory, within these two. With all of them in one the tiers take turns instead of working side by side (measured:
an eighth to a sixth more steps a second with 32 runs in flight, half as many runs again with 256); with fewer to a commit each costs more.
"""
MOST_BYTES = 8 * 1024 * 1024

ACKNOWLEDGE_AFTER = 0.1
"""Seconds for which acknowledgements gather, unless they are as many as a commit has entities: nobody waits for them, and a commit of their own would be in the
way of the next entity's."""

CHECKED_FOR: Micros = 86_400_000_000
"""The last acknowledged commit is looked for as long; later it may have been dropped with its partition (rule R34)."""


def _nobody() -> None:
    """Hears nothing."""


class Fenced(Exception):
    """This instance may not write any more: its process must exit (rule R12)."""


def most_entities(owned: int) -> int:
    """How many entities a commit takes, of so many that are in memory."""
    return min(MOST_ENTITIES, max(FEWEST_ENTITIES, owned // 2))


def _check(verdict: Any, batch: Batch, *, repeated: bool) -> None:
    """Raises Fenced where the statement wrote nothing, or less than it should have."""
    if verdict["held"] == 0:
        raise Fenced("the fence row of this instance is gone or closed")
    # From who is not fenced nobody takes anything: what a repeated batch misses, its first copy has let go.
    if verdict["updated"] != batch.updated and not repeated:
        raise Fenced(f"{batch.updated - verdict['updated']} entities of this instance have another owner")


class Writer:
    """Commits what entities have pending, one batch at a time, on a session of its own (rule R2)."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        instance_id: str,
        *,
        first_position: int,
        transaction_timeout: float,
        take: Callable[[Entity[Any]], Write | None],
        committed: Callable[[list[Write], frozenset[str] | None], None],
        refused: Callable[[Write, BaseException], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._me = instance_id
        self._position = first_position
        self._timeout = transaction_timeout
        self._take = take
        self._committed = committed
        self._refused = refused
        self._dirty: list[Entity[Any]] = []
        self._acknowledgements: dict[str, int] = {}
        self._acknowledge_at: asyncio.TimerHandle | None = None
        self._acknowledge_now = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: asyncpg.Connection[Any] | None = None
        self._prepared: dict[str, Any] = {}
        self._last_row: tuple[str, int] | None = None
        self._last_at: Micros = 0
        self._this_session: dict[str, Any] = {}
        self._lost_sessions: list[dict[str, Any]] = []
        """Sessions that broke during a commit, until they are known to have ended."""
        self.owned: Callable[[], int] = lambda: 0
        """How many entities are in memory; its host says."""
        self.gathered: Callable[[], None] = _nobody
        """Hears that fewer wait now: a commit has taken some of them."""
        self.backend_pid = 0
        self.healthy = False
        self.batches = 0
        self.rows = 0

    def touch(self, entity: Entity[Any]) -> None:
        """Puts an entity with something pending into the next batch."""
        if not entity.dirty:
            entity.dirty = True
            if not self._dirty:
                self._idle.clear()
                self._wake.set()
            self._dirty.append(entity)

    def acknowledge(self, entity_id: str, generation: int) -> None:
        """Stores that the tier above has the result of an ended entity (rule R28). May be repeated."""
        if not self._acknowledgements:
            self._idle.clear()
        self._acknowledgements[entity_id] = max(generation, self._acknowledgements.get(entity_id, 0))
        if self._acknowledge_at is None:
            loop = asyncio.get_running_loop()
            self._acknowledge_at = loop.call_later(ACKNOWLEDGE_AFTER, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledge_at = None
        self._acknowledge_now = True
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Entities that wait for a commit."""
        return len(self._dirty)

    async def flushed(self) -> None:
        """Returns when nothing waits to be committed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commits for ever. Raises Fenced."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty or self._acknowledge_now:
                batch = self._gather()
                if batch is not None:
                    await self._commit(batch)
            if not self._acknowledgements:
                self._idle.set()

    def _gather(self) -> Batch | None:
        writes: list[Write] = []
        size = 0
        taken = 0
        most = most_entities(self.owned())
        for entity in self._dirty:
            taken += 1
            entity.dirty = False
            write = self._take(entity)
            if write is None:
                continue
            writes.append(write)
            size += write.pending.size if write.pending else 0
            if len(writes) >= most or size >= MOST_BYTES:
                break
        del self._dirty[:taken]
        self.gathered()
        acknowledgements = self._due_acknowledgements()
        if not writes and not acknowledgements:
            return None
        # In the order of the batch (rule R3): the relay takes rows in this order, and its watermark says "everything up to here" (rule R19).
        writes.sort(key=BY_ID)
        for write in writes:
            entity = write.entity
            for row in write.rows:
                self._position += 1
                row.position = self._position
                entity.chain = row.chain = next_link(entity.chain, row.data)
        return Batch(writes, acknowledgements, self._me, self._clock.now())

    def _due_acknowledgements(self) -> list[tuple[str, int]]:
        if not self._acknowledge_now and len(self._acknowledgements) < MOST_ENTITIES:
            return []
        self._acknowledge_now = False
        due = list(self._acknowledgements.items())
        self._acknowledgements.clear()
        return due

    async def _commit(self, batch: Batch) -> None:
        """Commits a batch, however long the weather lasts (rule R4), or bisects it where a row is to blame (rule R5)."""
        unknown = False
        delay = 0.02
        while True:
            trouble: Exception | None = None
            verdict: Any = None
            try:
                connection = await self._session()
                if unknown and (found := await self._outcome(connection, batch)) is not None:
                    self._done(batch, found)
                    return
                verdict = await (await self._prepare(connection, batch)).fetchrow(*batch.arguments)
            except Exception as error:  # classified; anything that is neither weather nor a bad row is raised
                if not is_bad_row(error) and not is_weather(error):
                    raise
                trouble = error
            if trouble is None:
                _check(verdict, batch, repeated=unknown)
                created = verdict["created"]
                self._done(batch, None if created is None else frozenset(map(str, created)))
                return
            if is_bad_row(trouble):
                await self._bisect(batch, trouble)
                return
            unknown = True
            await self._lose(trouble)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 1.0)

    def _done(self, batch: Batch, created: frozenset[str] | None) -> None:
        self.healthy = True
        self.batches += 1
        now = boot_time()
        for write in batch.writes:
            if write.rows and (not write.create or created is None or write.entity.id in created):
                self._last_row, self._last_at = (write.entity.id, write.rows[-1].seq), now
                self.rows += len(write.rows)
        self._committed(batch.writes, created)

    async def _bisect(self, batch: Batch, error: BaseException) -> None:
        now = self._clock.now()
        acknowledgements = batch.acknowledgements
        if acknowledgements and batch.writes:
            # Apart: an acknowledgement that cannot be stored must not be held against entities (F27).
            await self._commit(Batch(batch.writes, [], self._me, now))
            await self._commit(Batch([], acknowledgements, self._me, now))
            return
        if acknowledgements:
            await self._bisect_acknowledgements(acknowledgements, error)
            return
        if len(batch.writes) <= 1:
            log.error(
                "a row cannot be stored",
                entity_id=batch.writes[0].entity.id if batch.writes else "",
                reason=str(error),
            )
            for write in batch.writes:
                self._refused(write, error)
            return
        middle = len(batch.writes) // 2
        await self._commit(Batch(batch.writes[:middle], [], self._me, now))
        await self._commit(Batch(batch.writes[middle:], [], self._me, now))

    async def _bisect_acknowledgements(self, some: list[tuple[str, int]], error: BaseException) -> None:
        if len(some) == 1:
            log.warning("an acknowledgement names no entity", entity_id=some[0][0][:60], reason=str(error))
            return
        middle = len(some) // 2
        await self._commit(Batch([], some[:middle], self._me, self._clock.now()))
        await self._commit(Batch([], some[middle:], self._me, self._clock.now()))

    async def _outcome(self, connection: asyncpg.Connection[Any], batch: Batch) -> frozenset[str] | None:
        """Whether a batch whose reply was lost had committed (rule R4): the new entities it made, or None where it had not.

        The sessions that it was sent on may still be at it, waiting for a lock: they are ended first, else two of them would want to write the same rows.
        """
        while self._lost_sessions:
            if not await _fetch(connection, "end_session", **self._lost_sessions[-1]):
                self._lost_sessions.pop()
        rows = [(write.entity.id, row.seq) for write in batch.writes for row in write.rows]
        if not rows:
            return None
        ids, seqs = [entity_id for entity_id, _ in rows], [seq for _, seq in rows]
        found = await _fetch(connection, "journal_written", me=self._me, ids=ids, seqs=seqs)
        return frozenset(str(row["entity_id"]) for row in found) if found else None

    async def _prepare(self, connection: asyncpg.Connection[Any], batch: Batch) -> Any:
        prepared = self._prepared.get(batch.statement.name)
        if prepared is None:
            prepared = self._prepared[batch.statement.name] = await connection.prepare(batch.statement.text)
        return prepared

    async def _session(self) -> asyncpg.Connection[Any]:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._prepared.clear()
        connection = await self._database.session(writer=True, transaction_timeout=self._timeout)
        await self.check_last(connection)
        self._this_session = dict((await _fetch(connection, "this_session"))[0])
        self.backend_pid = connection.get_server_pid()
        self._connection = connection
        return connection

    async def check_last(self, connection: asyncpg.Connection[Any]) -> None:
        """Raises Fenced where what was acknowledged last is not in the database: it was restored, or a replica took over that lacks it (rule R18)."""
        if self._last_row is None or boot_time() - self._last_at > CHECKED_FOR:
            return
        entity_id, seq = self._last_row
        if not await _fetch(connection, "journal_written", me=self._me, ids=[entity_id], seqs=[seq]):
            raise Fenced("the database has lost a commit that this instance has acknowledged")

    async def _lose(self, error: BaseException) -> None:
        kind = self._database.troubles.note(error)
        if self.healthy:
            log.warning("the database is away; commits wait", kind=kind, reason=f"{type(error).__name__}: {error}")
        self.healthy = False
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if connection is not None:
            self._lost_sessions.append(self._this_session)
            connection.terminate()

    async def put_blob(self, sha256: str, content: bytes) -> bool:
        """Stores a value apart from any entity; returns False where it was there. Raises FailureError while the database is away."""
        rows = blob_rows(sha256, content)
        row = await self._database.fetchrow("touch_blob", sha256=bytes.fromhex(sha256))
        if row is not None and row["exists"]:
            return False
        await self._database.fetch_patiently(
            "put_blob",
            me=self._me,
            b_sha256=[part[0] for part in rows],
            b_chunk=[part[1] for part in rows],
            b_chunks=[part[2] for part in rows],
            b_data=[part[3] for part in rows],
        )
        return True

    async def open(self) -> None:
        """Connects. Raises what asyncpg raises: at its start a service does not wait for the weather."""
        await self._session()
        self.healthy = True

    async def close(self) -> None:
        """Closes the session."""
        if self._acknowledge_at is not None:
            self._acknowledge_at.cancel()
        if self._connection is not None:
            try:
                await self._connection.close(timeout=2)
            except DISCONNECTED:
                self._connection.terminate()
            self._connection = None


async def _fetch(connection: asyncpg.Connection[Any], query_name: str, /, **values: Any) -> list[Any]:
    query = statement(query_name)
    rows: list[Any] = await connection.fetch(query.text, *query.arguments(**values))
    return rows
