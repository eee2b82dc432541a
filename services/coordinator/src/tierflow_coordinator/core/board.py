"""What a swarm shares: its context (goal, labels, limits, policy) and its blackboard, as one state with one revision; and how it goes back to a checkpoint.

A swarm that shares nothing has none of this. Large values are not here: an entry then names the bytes that the coordinator keeps.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from tierflow_runtime.values import Allocation, Micros, Payload

MOST_CHECKPOINTS: Final = 20
MOST_COMMANDS: Final = 256
"""So many command ids are remembered; a repetition that comes later than so many other changes is a new change."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key's value, and where it came from. `value` is JSON text, or names stored bytes that are coded as `encoding` says."""

    version: int
    value: Payload
    encoding: str = ""
    size: int
    sha256: str
    actor: str = ""
    run_id: str = ""
    step_id: str = ""
    time: Micros = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is agreed on for a swarm: the swarm's own fields and its board's policy, as one value."""

    goal: str = ""
    limits: Allocation = Allocation()
    policy: str = "{}"
    """A JSON object."""
    adaptive: bool = False
    """Agents may change policy and goal."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """A state to go back to, stored as what was different then from what came after: `before` has what each key that was written since was, None where it was not there."""

    name: str
    revision: int
    hash: str
    time: Micros
    settings: Settings
    before: dict[str, Entry | None] = {}


class Board(msgspec.Struct, kw_only=True):
    """What a swarm shares beyond its own fields: versions, policy, blackboard, checkpoints."""

    version: int = 1
    """Of goal, labels, limits, policy and flags together; counts their changes."""
    revision: int = 1
    """Counts the changes of everything."""
    policy: str = "{}"
    """A JSON object."""
    entries: dict[str, Entry] = {}
    bytes: int = 0
    """Of all values, as JSON texts."""
    checkpoints: list[Checkpoint] = []
    """Oldest first, no two of one name."""
    known: dict[str, int] = {}
    """Ids of commands that changed something, with the revision that each made, oldest first."""

    def put(self, key: str, entry: Entry | None) -> None:
        """Sets or removes a key; the latest checkpoint keeps what it was."""
        old = self.entries.get(key)
        if self.checkpoints:
            self.checkpoints[-1].before.setdefault(key, old)
        if old is not None:
            self.bytes -= old.size
        if entry is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = entry
            self.bytes += entry.size

    def note(self, command_id: str, revision: int) -> None:
        """A command has made a revision."""
        self.revision = revision
        if len(self.known) >= MOST_COMMANDS:
            del self.known[next(iter(self.known))]
        self.known[command_id] = revision

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """The present state is the latest checkpoint; one of the same name is gone, and beyond the most that are kept the oldest."""
        self.drop(checkpoint.name)
        if len(self.checkpoints) >= MOST_CHECKPOINTS:
            del self.checkpoints[0]
        self.checkpoints.append(checkpoint)

    def drop(self, name: str) -> None:
        """Forgets a checkpoint. The one before it is to know what it knew."""
        for place, checkpoint in enumerate(self.checkpoints):
            if checkpoint.name == name:
                del self.checkpoints[place]
                if place:
                    before = self.checkpoints[place - 1].before
                    for key, entry in checkpoint.before.items():
                        before.setdefault(key, entry)
                return

    def checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint of a name."""
        return next((each for each in self.checkpoints if each.name == name), None)

    def before(self, checkpoint: Checkpoint) -> dict[str, Entry | None]:
        """What the keys that were written since a checkpoint were then."""
        found: dict[str, Entry | None] = {}
        for each in reversed(self.checkpoints):
            found.update(each.before)  # an older checkpoint knows the older value
            if each is checkpoint:
                break
        return found

    def restore(self, checkpoint: Checkpoint, revision: int) -> None:
        """The keys are as they were, as a new revision. What is the same as now keeps its version."""
        for key, entry in self.different(checkpoint).items():
            self.put(key, None if entry is None else msgspec.structs.replace(entry, version=revision))

    def different(self, checkpoint: Checkpoint) -> dict[str, Entry | None]:
        """The keys that are not as they were at a checkpoint, with what they were."""
        before = self.before(checkpoint)
        return {key: entry for key, entry in before.items() if not same(entry, self.entries.get(key))}

    def hash(self, settings: Settings) -> str:
        """SHA-256 of what there is: settings, keys and values, without versions, authors and times."""
        limits = msgspec.structs.astuple(settings.limits)
        said = [settings.goal, limits, settings.policy, settings.adaptive]
        digest = hashlib.sha256(msgspec.json.encode(said))
        for key in sorted(self.entries):
            digest.update(msgspec.json.encode([key, self.entries[key].sha256]))
        return digest.hexdigest()


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether two entries have the same value."""
    if one is None or other is None:
        return one is other
    return one.sha256 == other.sha256
