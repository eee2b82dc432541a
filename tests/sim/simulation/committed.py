"""What the journals say, as it is written: indexes for the checks, and how events are shown."""

from __future__ import annotations

from typing import Any

from tierflow_runtime.wire import RUN_STATES, SWARM_STATES, failure_from_proto


class Committed:
    """What the journals say, indexed as it is written."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        """Sequence number by entity."""
        self.scheduled: dict[str, str] = {}
        """Attempts by id: their executor."""
        self.closed: set[str] = set()
        """Attempts that have ended, for their run."""
        self.stopped: set[str] = set()
        """Attempts that were cancelled and are said to be alive nowhere."""
        self.runs: set[str] = set()
        self.buried: set[str] = set()
        """Runs that were cancelled before they came."""
        self.run_ends: dict[tuple[str, int], int] = {}
        """State by run and generation."""
        self.generations: dict[str, int] = {}
        """Of runs and swarms: the present one, where it is not the first."""
        self.requested: dict[str, str] = {}
        """Runs that swarms asked for, with the swarm."""
        self.planned: set[str] = set()
        """Swarms with plans of several runs."""
        self.children: dict[str, str] = {}
        """Runs that are steps of others, with the attempt that they are."""
        self.finished: set[tuple[str, int]] = set()
        """Runs, by generation, whose end is in their swarm's journal."""
        self.swarms: set[str] = set()
        self.swarm_ends: dict[tuple[str, int], int] = {}
        """State by swarm and generation."""
        self.commands: set[tuple[str, str]] = set()
        """Entity and id of a command, a signal or a decision."""
        self.orders: dict[str, list[str]] = {}
        """By swarm: ids of the commands that applied to it, in order."""
        self.obeyed: dict[str, int] = {}
        """By run: the place of the last of these that it has heard of."""
        self.lost: list[tuple[float, str, str]] = []
        """Attempts given up by Tier 2: when, attempt, why."""
        self.owner: dict[str, str | None] = {}

    def generation(self, entity_id: str) -> int:
        """The present generation of a run or swarm."""
        return self.generations.get(entity_id, 1)

    def end_of(self, entity_id: str) -> int | None:
        """The state in which the present generation of a swarm or run ended, where it did."""
        key = (entity_id, self.generation(entity_id))
        return self.swarm_ends.get(key, self.run_ends.get(key))


def short(name: str) -> str:
    """The end of an id, which tells it from others."""
    head, slash, rest = name.partition("/")
    return (head[-5:] if len(head) == 36 else head) + slash + rest


def described(event: Any, kind: str) -> str:
    value = getattr(event, kind)
    text = kind
    if event.step_id:
        text += f" {event.step_id}"
    if event.attempt:
        text += f"#{event.attempt}"
    if kind in ("run_state_changed", "run_ended"):
        text += f" {RUN_STATES.name(value.to)}"
    elif kind in ("swarm_state_changed", "swarm_ended"):
        text += f" {SWARM_STATES.name(value.to)}"
    elif kind == "command_received":
        text += f" {value.command} {value.command_id}"
    elif kind in ("step_failed", "step_retrying", "handler_called"):
        text += f" {failure_from_proto(value.failure).code}"
    return text


def lease_is_good(process: Any) -> bool:
    """Whether a process's lease is good now, by its own clock."""
    world = process.world
    now = int((world.now * process.skew.rate + process.skew.boot) * 1e6)
    return bool(now < process.parts["durable"].instance._lease_until)


def schema_of(kind: str) -> str:
    """The schema of a kind of process."""
    return {"c": "coordinator", "o": "orchestrator"}[kind]
