"""Holds the entities that this instance owns, decides for them, and answers when what was decided is committed.

The order of duties, for one command: decide and apply in memory; let the shell settle in the same slice; commit with whatever else was decided meanwhile; then, and
only then, answer the caller, carry out the effects, publish the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.batch import Write, rows_of
from tierflow_durable.births import Births
from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database
from tierflow_durable.entity import Birth, Created, Entity, Pending
from tierflow_durable.instance import Instance
from tierflow_durable.machine import Header, Hooks, Machine, RequestKey
from tierflow_durable.mending import Mending
from tierflow_durable.owning import Loader, Owning
from tierflow_durable.packing import event_part, source_bytes, subjects_prefix
from tierflow_durable.relay import Relay
from tierflow_durable.timers import Timers
from tierflow_durable.writer import Writer

log = get_log(__name__)

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")
T = TypeVar("T")

PARK_AFTER: Micros = 5_000_000
"""An entity that waits for a moment nearer than this stays in memory."""

SNAPSHOT_AFTER = 64 * 1024
"""Journal bytes below which no snapshot is worth it."""


class Host(Generic[S, C, E]):
    """The entities of one tier in one process."""

    def __init__(
        self, *, machine: Machine[S, C, E], hooks: Hooks[S, C, E], database: Database, clock: DatabaseClock, instance: Instance,
        writer_of: Callable[..., Writer], relay: Relay,
    ) -> None:  # fmt: skip
        self.machine = machine
        self.hooks = hooks
        self.database = database
        self.clock = clock
        self.instance = instance
        self.relay = relay
        self.entities: dict[str, Entity[S]] = {}
        self.writer = writer_of(take=self._take, committed=self._committed, refused=self._refused)
        self.writer.owned = self.entities.__len__
        self.loader = Loader(self)
        self.owning = Owning(self)
        self.mending = Mending(self)
        self.births = Births(self)
        self.timers = Timers(self)
        self._background: set[asyncio.Task[Any]] = set()
        self.draining = False

    # --- deciding ---

    def apply(self, entity: Entity[S], command: C) -> Any:
        """Decides a command for an entity that is owned here, and queues the commit. Returns the reply, which holds once it is committed.

        Raises FailureError when the machine refuses, or STALE while the entity is being let go (use `tell` or `command` where that can be).
        """
        if entity.closing:
            raise FailureError(
                failure(
                    "STALE", f"{self.machine.kind} {entity.id} is being let go", component="durable", operation="apply"
                )
            )
        now = max(self.clock.now(), entity.last_time)
        try:
            decision = self.machine.decide(entity.state, command, now)
        except FailureError:
            raise
        except Exception as error:
            # A defect in one entity's machine must not reach the others (F27, F28).
            raise self.mending.broken(entity, command, error) from error
        if decision.events:
            self._record(entity, decision, now)
        if not entity.busy:
            entity.busy = True
            try:
                self.hooks.settle(entity)
            finally:
                entity.busy = False
        return decision.reply

    def _record(self, entity: Entity[S], decision: Any, now: Micros) -> None:
        pending = entity.pending
        if pending is None:
            pending = entity.pending = Pending(entity.seq + 1)
        encode, classify = self.machine.encode, self.machine.classify
        seq = entity.seq
        for event in decision.events:
            seq += 1
            part = event_part(encode(event, seq, now))
            pending.parts.append(part)
            pending.classes.append(classify(event))
            pending.size += len(part)
        pending.events += decision.events
        if decision.blobs:
            pending.blobs.update(decision.blobs)
        entity.seq = seq
        entity.last_time = now
        self.writer.touch(entity)

    def touch(self, entity: Entity[S]) -> None:
        """Lets the writer look at an entity of which nothing was decided: it may be ready to be let go, or need a timer."""
        self.writer.touch(entity)

    def when_committed(self, entity: Entity[S], callback: Callable[[], None]) -> None:
        """Calls back once everything decided so far is committed; never, where the entity is lost."""
        if entity.seq == entity.committed_seq:
            asyncio.get_running_loop().call_soon(callback)
            return
        if entity.pending is None:
            entity.pending = Pending(entity.seq + 1)
        entity.pending.callbacks.append(callback)
        self.writer.touch(entity)

    def tell(self, entity_id: str, command: C, callback: Callable[[Any], None] | None = None) -> bool:
        """Applies a command if the entity is owned here, and calls back with the reply after the commit. False where it is not owned here."""
        entity = self.entities.get(entity_id)
        if entity is None or entity.closing:
            return False
        reply = self.apply(entity, command)
        if callback is not None:
            self.when_committed(entity, lambda: callback(reply))
        return True

    # --- creating ---

    def create_now(
        self, entity_id: str, command: C, request: RequestKey | None, on_done: Callable[[Created | FailureError], None]
    ) -> None:
        """Makes an entity; `on_done` hears after the commit whether this call made it, or why it was refused. The loser of a race attaches to the winner."""
        self.births.create(entity_id, command, Birth(request, on_done, None))

    async def create(self, entity_id: str, command: C, request: RequestKey | None = None) -> Created:
        """`create_now` as a coroutine. Raises FailureError."""
        return await self.answered(lambda done: self.create_now(entity_id, command, request, done))

    async def answered(self, start: Callable[[Callable[[T | FailureError], None]], None]) -> T:
        """Starts something that answers by callback, and returns the answer. Raises the FailureError that is the answer."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: T | FailureError) -> None:
            if not future.done():
                if isinstance(result, FailureError):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        start(done)
        return await future

    def register(self, entity: Entity[S]) -> None:
        """Takes an entity into memory."""
        entity.source = self.machine.source(entity.state)
        entity.source_bytes = source_bytes(self.machine.kind, entity.source)
        entity.prefix = subjects_prefix(entity.source)
        self.entities[entity.id] = entity

    async def provide_missing(self, state: S, command: C | None) -> None:
        """Loads the large values that the machine must look into. Raises FailureError."""
        for name in self.hooks.missing(state, command):
            sha256 = bytes.fromhex(name)
            await self.database.fetch_patiently(
                "touch_blob", sha256=sha256
            )  # it is taken up: retention must not delete it
            rows = await self.database.fetch_patiently("blob_chunks", sha256=sha256)
            if not rows:
                raise FailureError(
                    failure("NOT_FOUND", f"the stored value {name} does not exist", component="blobs", operation="get")
                )
            self.hooks.provide(state, name, b"".join(row["data"] for row in rows))

    # --- committing ---

    def _take(self, entity: Entity[S]) -> Write | None:
        """What an entity brings to the batch that is being made."""
        pending, entity.pending = entity.pending, None
        if self.entities.get(entity.id) is not entity:
            # It was let go by the batch before. Who asked meanwhile to hear of that commit hears now; there is nothing left to write.
            if entity.seq == entity.committed_seq:
                _call_back(pending)
            return None
        header = self.machine.header(entity.state)
        write = Write(entity, pending, header)
        if pending is not None:
            write.rows = rows_of(pending)
        write.release = self._lets_go(entity, header)
        write.update = self._touches_row(entity, write)
        if not (write.rows or write.update or write.create):
            self.timers.set(entity, header)
            _call_back(pending)
            return None
        if write.release:
            entity.closing = True
        self._take_snapshot(entity, write)
        return write

    def _touches_row(self, entity: Entity[S], write: Write) -> bool:
        if entity.birth is not None:
            return False
        return write.release or (entity.adopted and bool(write.rows)) or differs(write.header, entity.header)

    def _lets_go(self, entity: Entity[S], header: Header) -> bool:
        if header.ended_at is not None:
            return not entity.held  # A command on its way may open it again (rule R31).
        if not header.parked or entity.held:
            return False
        return self.draining or header.wake_at is None or header.wake_at - self.clock.now() > PARK_AFTER

    def _take_snapshot(self, entity: Entity[S], write: Write) -> None:
        entity.journal_bytes += write.pending.size if write.pending else 0
        if (
            entity.journal_bytes > max(SNAPSHOT_AFTER, 2 * entity.snapshot_bytes)
            and write.header.ended_at is None
            and not write.create
        ):
            write.snapshot = self.machine.dump(entity.state)
            entity.snapshot_bytes = len(write.snapshot)
            entity.journal_bytes = 0

    def _committed(self, writes: list[Write], created: frozenset[str] | None) -> None:
        """The batch is stored: answer, act, publish."""
        for write in writes:
            if write.create and created is not None and write.entity.id not in created:
                self.births.lost(write.entity)
            else:
                self._stored(write)

    def _stored(self, write: Write) -> None:
        entity = write.entity
        birth, entity.birth = entity.birth, None
        if write.rows:
            entity.committed_seq = write.rows[-1].seq
            entity.adopted = False
            self._relay(write)
        if write.update or write.create:
            entity.header = write.header
        # What has to be done goes out before the news that it will be: somebody works on it meanwhile.
        if write.pending is not None and write.pending.events:
            self._act(entity, write.pending.events)
        if birth is not None:
            birth.on_done(Created(entity.id, created=True, reply=birth.reply))
        _call_back(write.pending)
        if entity.watchers:
            entity.notify()
        if write.release:
            self.forget(entity, "ended" if write.header.ended_at is not None else "parked")
        else:
            self.timers.set(entity, write.header)

    def _relay(self, write: Write) -> None:
        for row in write.rows:
            last = write.release and row is write.rows[-1]
            self.relay.enqueue(row.position, row.first_seq, row.parts, row.classes, write.entity, last=last)

    def _act(self, entity: Entity[S], events: Sequence[E]) -> None:
        try:
            self.hooks.committed(entity, events)
        except Exception as error:  # noqa: BLE001 - what one entity demands must not end the writer of all (F27)
            self.mending.broken(entity, events[-1], error)

    def forget(self, entity: Entity[S], reason: str) -> None:
        """Takes an entity out of memory, and tells the shell."""
        if self.entities.get(entity.id) is entity:
            del self.entities[entity.id]
        entity.closing = True
        entity.notify()
        if entity.released is not None and not entity.released.done():
            entity.released.set_result(None)
        self.hooks.closed(entity, reason)

    def _refused(self, write: Write, error: BaseException) -> None:
        """The database refuses a row of this entity for good (rule R5): the entity is set aside, its caller hears why."""
        entity = write.entity
        birth = entity.birth
        self.forget(entity, "refused")
        refusal = FailureError(
            failure(
                "INTERNAL",
                "what was decided cannot be stored",
                component="durable",
                operation="commit",
                detail=f"{type(error).__name__}: {error}",
            )
        )
        if birth is not None:
            birth.on_done(refusal)
        else:
            self.spawn(self.owning.quarantine(entity.id, str(error)))

    # --- background ---

    def spawn(self, coroutine: Any) -> None:
        """Runs something short in the background; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._spawned_done)

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background call failed", error=error)

    async def hand_over(self) -> None:
        """Lets every entity go, so that a peer takes it at once (rule R12)."""
        self.draining = True
        self.owning.stopped = True
        # First nothing is decided any more, then what was decided is committed: under load the writer would else never come to rest.
        for entity in self.entities.values():
            entity.closing = True
        await self.writer.flushed()
        ids = [entity_id for entity_id, entity in self.entities.items() if entity.birth is None]
        for start in range(0, len(ids), 1000):
            await self.database.fetch(
                "release", me=self.instance.id, now=self.clock.now(), ids=ids[start : start + 1000]
            )
        for entity in list(self.entities.values()):
            self.forget(entity, "released")

    async def close(self) -> None:
        """Cancels what runs in the background."""
        left = list(self._background)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=3)


def _call_back(pending: Pending | None) -> None:
    if pending is not None:
        for callback in pending.callbacks:
            callback()


def differs(new: Header, old: Header | None) -> bool:
    """Whether the row must be written: anything but the wake time, which only counts once nobody owns the entity."""
    return old is None or (
        new.state != old.state
        or new.reason != old.reason
        or new.outcome != old.outcome
        or new.ended_at != old.ended_at
        or new.generation != old.generation
        or new.unacknowledged != old.unacknowledged
    )
