"""What swarms share, brought to and from whoever may ask: clients of the public API, and attempts by way of their orchestrator.

Reads are of committed state, from any replica (R7); changes go to the swarm's owner as commands (R14). Nothing is kept here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_basics import check_text
from tierflow_runtime.contract_parts import check_allocation
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.errors import failure
from tierflow_runtime.shielding import finished
from tierflow_runtime.values import FailureError, Violation
from tierflow_runtime.wire import allocation_from_proto, timestamp

from tierflow_coordinator.core import commands, events
from tierflow_coordinator.core.board import Checkpoint, Entry
from tierflow_coordinator.core.sharing import shared
from tierflow_coordinator.core.swarm import Swarm, evolve, settings_of
from tierflow_coordinator.values import Reading, entry_message, policy_text, stored, text_of, told_twice
from tierflow_coordinator.wire_context import fill_settings

MOST_AT_ONCE: Final = 100
MOST_LISTED: Final = 1000
LONGEST_GOAL: Final = 20_000
LONGEST_REASON: Final = 2000
_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/:@]{0,199}")
_KEY_RULE: Final = "is no key: 1 to 200 of letters, digits and _ . - / : @, beginning with a letter, a digit or _"
Count = Callable[[str, int], None]


class Author(msgspec.Struct, frozen=True):
    """Who changes something: a user, and the attempt that does it on the user's behalf, where one does."""

    actor: str
    run_id: str = ""
    step_id: str = ""


class Contexts:
    """Contexts and blackboards of all swarms, whoever owns them. `count` hears of calls and of values that had to be fetched, by kind."""

    def __init__(self, durable: Durable, count: Count = lambda kind, n: None) -> None:
        self._durable = durable
        self._count = count

    # --- the context ---

    async def context(self, swarm_id: str) -> bb.SwarmContext:
        """What is agreed on. Raises FailureError NOT_FOUND."""
        self._count("get", 1)
        message: bb.SwarmContext = await self._durable.reader.view(swarm_id, context_message)
        return message

    async def update(self, swarm_id: str, wanted: bb.ContextUpdate, author: Author) -> bb.SwarmContext:
        """Changes what is agreed on; the context after it. Raises FailureError."""
        self._count("update", 1)
        refuse_if(_wrong_with_update(wanted), "context", "UpdateContext")
        changes = wanted.changes
        await self._tell(
            swarm_id,
            commands.UpdateContext(
                command_id=wanted.command_id or uuid7(),
                actor=author.actor,
                run_id=author.run_id,
                step_id=author.step_id,
                expected=wanted.expected_version,
                goal=changes.goal if changes.HasField("goal") else None,
                limits=allocation_from_proto(changes.limits) if changes.HasField("limits") else None,
                policy=policy_text(changes.policy),
                adaptive=changes.adaptive if changes.HasField("adaptive") else None,
                reason=wanted.reason,
            ),
        )
        message: bb.SwarmContext = await self._durable.reader.view(swarm_id, context_message)
        return message

    # --- the blackboard ---

    async def read(self, swarm_id: str, wanted: bb.BlackboardRead) -> bb.BlackboardEntries:
        """Keys with their values; large ones are fetched now. Raises FailureError."""
        self._count("read", 1)
        found: list[Violation] = []
        if not 1 <= len(wanted.keys) <= MOST_AT_ONCE:
            found.append(
                Violation(field="keys", description=f"names {len(wanted.keys)}; 1 to {MOST_AT_ONCE} are allowed")
            )
        for place, key in enumerate(wanted.keys[:MOST_AT_ONCE]):
            _check_key(f"keys[{place}]", key, found)
        refuse_if(found, "context", "ReadBlackboard")
        keys = sorted(set(wanted.keys))

        def look(swarm: Swarm) -> tuple[int, list[tuple[str, Entry]]]:
            board = shared(swarm)
            return board.revision, [(key, board.entries[key]) for key in keys if key in board.entries]

        revision, entries = await self._durable.reader.view(swarm_id, look)
        answer = bb.BlackboardEntries(revision=revision)
        reading = Reading(self._durable, compressed=wanted.accept_compressed, readable=wanted.readable)
        for key, entry in entries:
            message = answer.entries.add()
            message.CopyFrom(entry_message(key, entry))
            await reading.fill(message, entry.value, entry.encoding)
        if reading.fetched:
            self._count("fetch", reading.fetched)
        return answer

    async def listed(self, swarm_id: str, wanted: bb.BlackboardList) -> bb.BlackboardEntries:
        """Keys without values. Raises FailureError."""
        self._count("list", 1)
        found: list[Violation] = []
        if not 0 <= wanted.page_size <= MOST_LISTED:
            found.append(
                Violation(field="page_size", description=f"is {wanted.page_size}; 1 to {MOST_LISTED} are allowed")
            )
        check_text("prefix", wanted.prefix, found)
        check_text("after_key", wanted.after_key, found)
        refuse_if(found, "context", "ListBlackboard")
        size = wanted.page_size or 100

        def look(swarm: Swarm) -> bb.BlackboardEntries:
            board = shared(swarm)
            keys = sorted(key for key in board.entries if key.startswith(wanted.prefix) and key > wanted.after_key)
            listed = [entry_message(key, board.entries[key]) for key in keys[:size]]
            return bb.BlackboardEntries(entries=listed, revision=board.revision, more=len(keys) > size)

        answer: bb.BlackboardEntries = await self._durable.reader.view(swarm_id, look)
        return answer

    async def write(self, swarm_id: str, wanted: bb.BlackboardWrite, author: Author) -> bb.BlackboardWritten:
        """Writes keys, all of them or none. Raises FailureError."""
        self._count("write", 1)
        texts = _checked_texts(wanted)
        changes = []
        for change, text in zip(wanted.changes, texts, strict=True):
            expected = change.expected_version if change.HasField("expected_version") else None
            if text is None:
                changes.append(commands.KeyChange(key=change.key, expected=expected))
            else:
                changes.append(await stored(self._durable, change.key, text, expected))
        reply = await self._tell(
            swarm_id,
            commands.WriteKeys(
                command_id=wanted.command_id or uuid7(),
                actor=author.actor,
                run_id=author.run_id,
                step_id=author.step_id,
                changes=tuple(changes),
            ),
        )
        return bb.BlackboardWritten(revision=reply.revision, applied=reply.applied)

    async def history(
        self, swarm_id: str, key: str, *, limit: int, before: int, values: bool
    ) -> tuple[list[bb.BlackboardEntry], bool]:
        """What a key was, the newest first, and whether there is more; from the journal. Raises FailureError."""
        self._count("history", 1)
        found: list[Violation] = []
        _check_key("key", key, found)
        if not 0 <= limit <= MOST_AT_ONCE:
            found.append(Violation(field="limit", description=f"is {limit}; 1 to {MOST_AT_ONCE} are allowed"))
        refuse_if(found, "context", "ListBlackboardHistory")
        writes = [each for each in await self._writes(swarm_id, key) if not before or each[0].version < before]
        size = limit or 20
        reading = Reading(self._durable, compressed=False, readable=True)
        answer = []
        for message, entry in writes[: -size - 1 : -1]:
            if entry is not None and values:
                await reading.fill(message, entry.value, entry.encoding)
            answer.append(message)
        return answer, len(writes) > size

    async def _writes(self, swarm_id: str, key: str) -> list[tuple[bb.BlackboardEntry, Entry | None]]:
        swarm, machine = Swarm(swarm_id=swarm_id), self._durable.host.machine
        writes: list[tuple[bb.BlackboardEntry, Entry | None]] = []
        last: Entry | None = None
        after = 0
        while rows := await self._durable.reader.events(swarm_id, after):
            for row in rows:
                for seq, time, event in machine.decode(row.data):
                    evolve(swarm, event, time)
                    entry = shared(swarm).entries.get(key)
                    if isinstance(event, events.BlackboardChanged | events.ContextRestored) and entry is not last:
                        last = entry
                        gone = bb.BlackboardEntry(
                            key=key,
                            version=event.revision,
                            deleted=True,
                            actor=event.actor,
                            written_at=timestamp(time),
                        )
                        writes.append((gone if entry is None else entry_message(key, entry), entry))
                    after = seq
        return writes

    # --- going back ---

    async def checkpoint(self, swarm_id: str, name: str, command_id: str, author: Author) -> bb.ContextCheckpoint:
        """Names what is shared now. Raises FailureError."""
        self._count("checkpoint", 1)
        _check_name(name)
        await self._tell(
            swarm_id,
            commands.CheckpointContext(command_id=command_id or uuid7(), actor=author.actor, name=name),
        )
        return await self._checkpoint(swarm_id, name)

    async def keep(self, swarm: Swarm, name: str, author: Author) -> None:
        """Names what a swarm shares now, unless that name is taken. Raises FailureError."""
        if shared(swarm).checkpoint(name) is None:
            await self._tell(
                swarm.swarm_id,
                commands.CheckpointContext(command_id=f"checkpoint {name}", actor=author.actor, name=name),
            )

    async def restore(
        self, swarm_id: str, command: commands.RestoreContext
    ) -> tuple[bb.ContextCheckpoint, commands.Reply]:
        """Goes back to what has a name. Raises FailureError."""
        self._count("restore", 1)
        _check_name(command.name)
        reply = await self._tell(swarm_id, command)
        return await self._checkpoint(swarm_id, command.name), reply

    async def _checkpoint(self, swarm_id: str, name: str) -> bb.ContextCheckpoint:
        def look(swarm: Swarm) -> bb.ContextCheckpoint | None:
            found = shared(swarm).checkpoint(name)
            return None if found is None else checkpoint_message(found)

        message: bb.ContextCheckpoint | None = await self._durable.reader.view(swarm_id, look)
        if message is None:
            raise FailureError(failure("NOT_FOUND", f"name: the checkpoint {name} has been dropped since."))
        return message

    async def _tell(self, swarm_id: str, command: commands.Shared) -> commands.Reply:
        reply: commands.Reply = await finished(self._durable.router.command(swarm_id, command, command.command_id))
        return reply


def context_message(swarm: Swarm) -> bb.SwarmContext:
    """What is agreed on for a swarm."""
    board = shared(swarm)
    message = bb.SwarmContext(
        version=board.version,
        revision=board.revision,
        keys=len(board.entries),
        bytes=board.bytes,
        checkpoints=[checkpoint_message(each) for each in board.checkpoints],
    )
    fill_settings(message, settings_of(swarm))
    message.labels.update(swarm.context.labels)
    return message


def checkpoint_message(checkpoint: Checkpoint) -> bb.ContextCheckpoint:
    """A checkpoint, without what it keeps."""
    return bb.ContextCheckpoint(
        name=checkpoint.name,
        revision=checkpoint.revision,
        hash=checkpoint.hash,
        created_at=timestamp(checkpoint.time),
    )


def _check_key(path: str, key: str, found: list[Violation]) -> None:
    if _KEY.fullmatch(key) is None:
        found.append(Violation(field=path, description=f"{key[:60]!r} {_KEY_RULE}"))


def _check_name(name: str) -> None:
    found: list[Violation] = []
    check_text("name", name, found, required=True)
    refuse_if(found, "context", "checkpoint")


def _checked_texts(wanted: bb.BlackboardWrite) -> list[bytes | None]:
    """The JSON texts of a write, None for a key that is removed. Raises FailureError, with all that is wrong."""
    found: list[Violation] = []
    check_text("command_id", wanted.command_id, found)
    if not 1 <= len(wanted.changes) <= MOST_AT_ONCE:
        what = f"has {len(wanted.changes)}; 1 to {MOST_AT_ONCE} are allowed"
        found.append(Violation(field="changes", description=what))
    twice = told_twice(wanted.changes[:MOST_AT_ONCE])
    texts: list[bytes | None] = []
    for place, change in enumerate(wanted.changes[:MOST_AT_ONCE]):
        path = f"changes[{place}]"
        _check_key(f"{path}.key", change.key, found)
        if change.key in twice:
            found.append(Violation(field=f"{path}.key", description=f"{change.key} is there more than once"))
        if change.delete and (change.HasField("value") or change.compressed):
            found.append(Violation(field=f"{path}.delete", description="comes with a value; one of them is wrong"))
        texts.append(None if change.delete else text_of(path, change, found))
    refuse_if(found, "context", "WriteBlackboard")
    return texts


def _wrong_with_update(wanted: bb.ContextUpdate) -> list[Violation]:
    found: list[Violation] = []
    changes = wanted.changes
    if not wanted.expected_version:
        what = "required: the version of the context that the changes were made from, as GetContext shows it"
        found.append(Violation(field="expected_version", description=what))
    check_text("reason", wanted.reason, found, longest=LONGEST_REASON)
    check_text("command_id", wanted.command_id, found)
    check_text("changes.goal", changes.goal, found, longest=LONGEST_GOAL)
    check_payload("changes.policy", changes.policy, found, must_be_object=True)
    if changes.policy.WhichOneof("kind") == "ref":
        found.append(Violation(field="changes.policy.ref", description="a policy is sent as it is, not by reference"))
    parts: list[Violation] = []
    check_allocation(changes.limits, parts)
    for part in parts:
        field = part.field.replace("allocation.", "changes.limits.", 1)
        found.append(Violation(field=field, description=part.description))
    return found
