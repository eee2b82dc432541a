"""The blackboard as users see it, over a way that is a dictionary: values, versions, pages, and writing again while others are faster."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from tierflow.blackboard import Blackboard
from tierflow.errors import Conflict, InvalidRequest, error_of, made
from tierflow_contracts.common.v1 import blackboard_pb2 as bb


class Dictionary:
    """One blackboard. Leaves out what is beyond `room` values in an answer; `first` is called before each write."""

    def __init__(self, room: int = 3) -> None:
        self.texts: dict[str, tuple[str, int]] = {}
        self.revision = 1
        self.room = room
        self.reads = 0
        self.first: Any = lambda: None

    async def read(self, wanted: bb.BlackboardRead) -> bb.BlackboardEntries:
        """Keys with values."""
        self.reads += 1
        answer = bb.BlackboardEntries()
        for key in sorted(set(wanted.keys) & self.texts.keys()):
            text, version = self.texts[key]
            entry = answer.entries.add(key=key, version=version, size=len(text))
            if len(answer.entries) > self.room:
                entry.left_out = True
            elif len(text) > 100:
                entry.compressed = zlib.compress(text.encode())
            else:
                entry.value.json = text
        return answer

    async def listed(self, wanted: bb.BlackboardList) -> bb.BlackboardEntries:
        """Keys without values, two to a page."""
        keys = sorted(key for key in self.texts if key.startswith(wanted.prefix) and key > wanted.after_key)
        entries = [bb.BlackboardEntry(key=key, version=self.texts[key][1]) for key in keys[:2]]
        return bb.BlackboardEntries(entries=entries, more=len(keys) > 2)

    async def write(self, wanted: bb.BlackboardWrite) -> bb.BlackboardWritten:
        """Writes keys."""
        first, self.first = self.first, lambda: None
        first()
        for change in wanted.changes:
            version = self.texts.get(change.key, ("", 0))[1]
            if change.HasField("expected_version") and change.expected_version != version:
                raise error_of(made("VERSION_CONFLICT", f"{change.key} has version {version}"))
        self.revision += 1
        for change in wanted.changes:
            text = zlib.decompress(change.compressed).decode() if change.compressed else change.value.json
            self.texts[change.key] = (text, self.revision)
        return bb.BlackboardWritten(revision=self.revision, applied=True)

    async def context(self) -> bb.SwarmContext:
        """An empty one."""
        return bb.SwarmContext(version=1)

    async def update(self, wanted: bb.ContextUpdate) -> bb.SwarmContext:
        """The changes, as a context."""
        return bb.SwarmContext(version=wanted.expected_version + 1, policy=wanted.changes.policy)


async def test_values_are_what_was_written() -> None:
    """I10, I11: short and long, any JSON value; versions go into the next write; keys come page by page, without values."""
    way = Dictionary()
    board = Blackboard(way)
    values: dict[str, Any] = {"a": None, "b": [1, 2.5, "ü"], "c": {"deep": {"er": True}}, "d": "x" * 5000, "e": 10**25}
    version = await board.write(values)
    items = await board.items("e", "a", "b", "c", "d", "nothing")
    assert {key: item.value for key, item in items.items()} == values
    assert list(items) == ["e", "a", "b", "c", "d"]
    assert {item.version for item in items.values()} == {version}
    assert way.reads == 2  # what was left out is asked for again
    assert [item.key async for item in board.keys("")] == ["a", "b", "c", "d", "e"]
    assert await board.get("nothing", "instead") == "instead"
    with pytest.raises(Conflict):
        await board.set("a", 1, expected_version=0)
    for wrong in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(InvalidRequest, match="no JSON value"):
            await board.set("a", wrong)


async def test_a_change_is_made_again_while_others_are_faster() -> None:
    """I11: what is written is made of the newest value; whoever is always too late hears of it."""
    way = Dictionary()
    board = Blackboard(way)
    seen: list[Any] = []

    def add(items: Any) -> Any:
        seen.append(items)
        return [*(items or []), "mine"]

    way.first = lambda: way.texts.update(a=(json.dumps(["theirs"]), 9))
    assert await board.change("a", add) == ["theirs", "mine"]
    assert seen == [None, ["theirs"]]

    def again() -> None:
        way.texts["a"] = ("[]", way.texts["a"][1] + 1)
        way.first = again

    way.first = again
    with pytest.raises(Conflict):
        await board.change("a", add, tries=3)


async def test_a_context_is_updated_from_a_version() -> None:
    """I7: the version that was read goes along; the answer is the context after it."""
    after = await Blackboard(Dictionary()).update_context(4, policy={"tone": "dry"})
    assert (after.version, after.policy) == (5, {"tone": "dry"})
    assert await Blackboard(Dictionary()).item("a") is None
