"""Named places in the history of an entity (K6, K12).

A checkpoint holds no state: it is a name, a place in the journal, and the hash of the history up to there. What the entity was then is built again from the
journal, and proven by that hash; so a checkpoint costs one small row however large the state is, and what lies between two of them is stored once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from tierflow_contracts.common.v1 import checkpoint_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.chain import next_link
from tierflow_durable.entity import Entity

if TYPE_CHECKING:
    from tierflow_durable.host import Host

PAGE: Final = 500
MOST: Final = 100
"""Checkpoints of one entity; the oldest give way."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A named place: the first `seq` events, with the hash of the last of their rows."""

    entity_id: str
    name: str
    seq: int
    head: bytes
    """32 bytes; empty for histories of before there was a chain."""
    actor: str
    reason: str
    created_at: Micros


class Checkpoints:
    """Names places, finds them, and builds what was there. Any instance may; nothing here is decided by the entity's owner."""

    def __init__(self, host: Host[Any, Any, Any], *, most: int = MOST) -> None:
        self._host = host
        self.most = most

    async def mark(self, entity_id: str, name: str, *, actor: str, reason: str = "") -> tuple[Checkpoint, bool]:
        """Names the place up to which the entity is committed now. A name that it has already stays where it is.

        Returns:
            The checkpoint, and whether this call made it.

        Raises:
            FailureError: NOT_FOUND, DATABASE_UNAVAILABLE.
        """
        database = self._host.database
        now = self._host.clock.now()
        made = await database.fetchrow("mark_checkpoint", id=entity_id, name=name, actor=actor, reason=reason, now=now)
        if made is not None:
            await database.fetch_patiently("bound_checkpoints", id=entity_id, most=self.most)
            return _read(made), True
        return await self.find(entity_id, name), False

    async def list(self, entity_id: str) -> list[Checkpoint]:
        """The checkpoints of an entity, newest first."""
        rows = await self._host.database.fetch_patiently("checkpoints_of", id=entity_id, limit=self.most)
        return [_read(row) for row in rows]

    async def find(self, entity_id: str, name: str) -> Checkpoint:
        """One checkpoint. Raises FailureError NOT_FOUND."""
        row = await self._host.database.fetchrow("checkpoint_of", id=entity_id, name=name)
        if row is None:
            kind = self._host.machine.kind
            raise _failed("NOT_FOUND", f"There is no checkpoint {name[:100]!r} of {kind} {entity_id}.")
        return _read(row)

    async def state_of(self, checkpoint: Checkpoint) -> Any:
        """What the entity was at a checkpoint, proven by its hash.

        Raises:
            FailureError: NOT_FOUND, HISTORY_DAMAGED where the history up to there is not as it was written.
        """
        return await self.state_at(checkpoint.entity_id, checkpoint.seq, checkpoint.head)

    async def state_at(self, entity_id: str, seq: int, head: bytes = b"") -> Any:
        """What an entity was after its first `seq` events, built from its journal alone; each row is proven on the way.

        Args:
            entity_id: The entity.
            seq: At most the number of its committed events; of a row that holds several events, the last.
            head: The hash that the row of event `seq` must have; empty asks for none.

        Raises:
            FailureError: NOT_FOUND, HISTORY_DAMAGED.
        """
        entity: Entity[Any] = Entity(entity_id, self._host.machine.fresh(entity_id))
        while entity.seq < seq:
            rows = await self._host.database.fetch_patiently("journal_of", id=entity_id, after=entity.seq, limit=PAGE)
            if not rows:
                raise _failed("NOT_FOUND", f"The history of {entity_id} ends at event {entity.seq}, before {seq}.")
            for row in rows:
                if row["seq"] > seq:
                    break
                await self._apply(entity, row)
            else:
                continue
            break
        if entity.seq != seq or (head and entity.chain != head):
            raise _damaged(entity_id, seq)
        await self._host.provide_missing(entity.state, None)
        return entity.state

    async def _apply(self, entity: Entity[Any], row: Any) -> None:
        stored = row["chain"]
        if row["first_seq"] != entity.seq + 1 or (
            stored is not None and next_link(entity.chain, row["data"]) != bytes(stored)
        ):
            raise _damaged(entity.id, entity.seq + 1)
        if stored is not None:
            entity.chain = bytes(stored)
        for seq, time, event in self._host.machine.decode(row["data"]):
            if seq == 1:
                await self._host.loader.prepare(entity, event)
            self._host.machine.evolve(entity.state, event, time)
            entity.seq, entity.last_time = seq, time


def _read(row: Any) -> Checkpoint:
    return Checkpoint(
        entity_id=str(row["entity_id"]),
        name=row["name"],
        seq=row["seq"],
        head=bytes(row["chain"] or b""),
        actor=row["actor"],
        reason=row["reason"],
        created_at=row["created_at"],
    )


def _damaged(entity_id: str, seq: int) -> FailureError:
    return _failed(
        "HISTORY_DAMAGED", f"The history of {entity_id} is not as it was written at event {seq}; see VerifySwarm."
    )


def _failed(code: str, message: str) -> FailureError:
    return FailureError(failure(code, message, component="durable", operation="checkpoint"))


def checkpoint_message(found: Checkpoint) -> checkpoint_pb2.Checkpoint:
    """A checkpoint as a message."""
    message = checkpoint_pb2.Checkpoint(
        name=found.name,
        entity_id=found.entity_id,
        seq=found.seq,
        hash=found.head.hex(),
        actor=found.actor,
        reason=found.reason,
    )
    message.created_at.FromMicroseconds(found.created_at)
    return message
