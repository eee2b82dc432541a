"""What a swarm shares, for those who use it: its blackboard by key and version, and its context. The same for clients and for handlers."""

from __future__ import annotations

import inspect
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from tierflow_contracts.common.v1.blackboard_pb2 import (
    BlackboardChange,
    BlackboardEntries,
    BlackboardEntry,
    BlackboardList,
    BlackboardRead,
    BlackboardWrite,
    BlackboardWritten,
    ContextChanges,
    ContextUpdate,
    SwarmContext,
)
from tierflow_contracts.common.v1.payload_pb2 import Payload

from tierflow.errors import Conflict, invalid
from tierflow.ids import new_id

WORTH_COMPRESSING = 2048
MOST_AT_ONCE = 100


class Way(Protocol):
    """How calls reach the swarm's context."""

    async def read(self, wanted: BlackboardRead) -> BlackboardEntries:
        """Keys with values."""

    async def listed(self, wanted: BlackboardList) -> BlackboardEntries:
        """Keys without values."""

    async def write(self, wanted: BlackboardWrite) -> BlackboardWritten:
        """Writes keys."""

    async def context(self) -> SwarmContext:
        """The context."""

    async def update(self, wanted: ContextUpdate) -> SwarmContext:
        """Changes the context."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key of a blackboard: its value (None where only keys were asked for), and who wrote it when. `version` goes into the next write."""

    key: str
    version: int
    value: Any
    size: int
    actor: str
    run_id: str
    step_id: str
    written_at: datetime
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """The context of a swarm. `version` goes into the next update; `revision` rises with every change, of the blackboard too."""

    version: int
    revision: int
    goal: str
    policy: Mapping[str, Any]
    adaptive: bool
    labels: Mapping[str, str]
    keys: int
    bytes: int
    checkpoints: Mapping[str, str]
    """Hashes by name, oldest first."""


class Blackboard:
    """The blackboard of one swarm. Values are fetched when they are asked for, and not before.

    Every call raises `NotFound`, `PermissionDenied`, `InvalidRequest` (with the fields) or `Unavailable`; writes `Conflict` where a version is not the expected one.
    """

    __slots__ = ("_way",)

    def __init__(self, way: Way) -> None:
        self._way = way

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` where it is not there."""
        item = await self.item(key)
        return default if item is None else item.value

    async def item(self, key: str) -> Item | None:
        """A key with its value and version; None where it is not there."""
        return (await self.items(key)).get(key)

    async def items(self, *keys: str) -> dict[str, Item]:
        """Those of the keys that are there, as of few moments: as many as fit into one answer come from one."""
        found: dict[str, Item] = {}
        wanted = list(dict.fromkeys(keys))
        while wanted:
            part, wanted = wanted[:MOST_AT_ONCE], wanted[MOST_AT_ONCE:]
            answer = await self._way.read(BlackboardRead(keys=part, accept_compressed=True))
            for entry in answer.entries:
                if entry.left_out:
                    wanted.append(entry.key)
                else:
                    found[entry.key] = item_of(entry)
        return {key: found[key] for key in keys if key in found}

    async def keys(self, prefix: str = "") -> AsyncIterator[Item]:
        """The keys that begin with `prefix`, in their order, without values."""
        after = ""
        while True:
            page = await self._way.listed(BlackboardList(prefix=prefix, page_size=1000, after_key=after))
            for entry in page.entries:
                yield item_of(entry)
            if not page.more:
                return
            after = page.entries[-1].key

    async def set(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Writes a key and returns its version. `expected_version`: the one it must have, 0 where it must not be there. Raises `Conflict`."""
        return await self.write({key: value}, expected={} if expected_version is None else {key: expected_version})

    async def delete(self, key: str, *, expected_version: int | None = None) -> None:
        """Removes a key; it need not be there."""
        change = BlackboardChange(key=key, delete=True, expected_version=expected_version)
        await self._way.write(BlackboardWrite(changes=[change], command_id=new_id()))

    async def write(
        self, values: Mapping[str, Any], *, expected: Mapping[str, int] | None = None, command_id: str = ""
    ) -> int:
        """Writes several keys, all of them or none, and returns their version. The same `command_id` again is the same write.

        Raises `Conflict` where a key has not the version that is expected of it.
        """
        changes = [_change(key, value, (expected or {}).get(key)) for key, value in values.items()]
        wanted = BlackboardWrite(changes=changes, command_id=command_id or new_id())
        return (await self._way.write(wanted)).revision

    async def change(self, key: str, make: Callable[[Any], Any | Awaitable[Any]], *, tries: int = 20) -> Any:
        """Writes what `make` makes of the present value (None where there is none), again while others are faster; returns what was written."""
        while True:
            item = await self.item(key)
            made = make(None if item is None else item.value)
            value = await made if inspect.isawaitable(made) else made
            tries -= 1
            try:
                await self.set(key, value, expected_version=0 if item is None else item.version)
            except Conflict as error:
                if error.code != "VERSION_CONFLICT" or tries <= 0:
                    raise
            else:
                return value

    async def context(self) -> Shared:
        """The swarm's context."""
        return shared_of(await self._way.context())

    async def update_context(
        self,
        expected_version: int,
        *,
        goal: str | None = None,
        policy: Mapping[str, Any] | None = None,
        adaptive: bool | None = None,
        reason: str = "",
    ) -> Shared:
        """Changes the context that had `expected_version`; `policy` is merged into what there is, None in it removes. Raises `Conflict`.

        From within a handler only goal and policy can be changed, and only while the swarm is adaptive; else `PermissionDenied`.
        """
        changes = ContextChanges(goal=goal, adaptive=adaptive)
        if policy is not None:
            changes.policy.json = json.dumps(policy)
        wanted = ContextUpdate(expected_version=expected_version, changes=changes, reason=reason, command_id=new_id())
        return shared_of(await self._way.update(wanted))


def item_of(entry: BlackboardEntry) -> Item:
    """An entry as a value."""
    return Item(
        key=entry.key,
        version=entry.version,
        value=_value_of(entry),
        size=entry.size,
        actor=entry.actor,
        run_id=entry.run_id,
        step_id=entry.step_id,
        written_at=entry.written_at.ToDatetime(tzinfo=UTC),
        deleted=entry.deleted,
    )


def shared_of(context: SwarmContext) -> Shared:
    """A context as a value."""
    return Shared(
        version=context.version,
        revision=context.revision,
        goal=context.goal,
        policy=json.loads(context.policy.json or "{}"),
        adaptive=context.adaptive,
        labels=dict(context.labels),
        keys=context.keys,
        bytes=context.bytes,
        checkpoints={each.name: each.hash for each in context.checkpoints},
    )


def _value_of(entry: BlackboardEntry) -> Any:
    if entry.compressed:
        return json.loads(zlib.decompress(entry.compressed))
    if entry.value.WhichOneof("kind") == "value":
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(entry.value.value)
    return json.loads(entry.value.json) if entry.HasField("value") else None


def _change(key: str, value: Any, expected: int | None) -> BlackboardChange:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        content = text.encode()
    except (TypeError, ValueError) as error:
        raise invalid(f"values[{key}]", f"is no JSON value: {error}") from None
    if len(content) >= WORTH_COMPRESSING:
        return BlackboardChange(key=key, compressed=zlib.compress(content, 3), expected_version=expected)
    return BlackboardChange(key=key, value=Payload(json=text), expected_version=expected)
