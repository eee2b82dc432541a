"""A run as bytes and back. The flow is not part of it: the shell gives it by its hash."""

from __future__ import annotations

from collections import deque
from heapq import heapify
from typing import Any

import msgspec
from tierflow_runtime.ledger import Ledger, Owed
from tierflow_runtime.values import Allocation, BlobRef, Context, Failure, Micros, Options, Usage

from tierflow_orchestrator.core import budget, evolve_serverless, limits
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steer import Steer
from tierflow_orchestrator.core.step import Step

SCHEMA = 1


class Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is stored of a run; everything else in memory follows from it. Fields have the names that they have in `Run`."""

    id: str
    schema: int = SCHEMA
    """Of these fields: a build that knows only older ones must not read it, and reads the journal instead (K6)."""
    state: str = ""
    reason: str = ""
    outcome: str = ""
    context: Context = Context()
    generation: int = 1
    flow_hash: str = ""
    flow_name: str = ""
    flow_version: str = ""
    allocation: Allocation = Allocation()
    options: Options = Options()
    input: str | BlobRef | None = None
    output: str | BlobRef | None = None
    failure: Failure | None = None
    usage: Usage = Usage()
    created_at: Micros = 0
    started_at: Micros | None = None
    ended_at: Micros | None = None
    deadline: Micros | None = None
    steps: list[Step] = []
    live: list[str] = []
    attempts: int = 0
    open_steps: int = 0
    top_ended: int = 0
    failed_step: str = ""
    partial: bool = False
    degraded: bool = False
    cancel_asked: bool = False
    stopping: str = ""
    asked: list[str] = []
    unconfirmed: list[str] = []
    commands: dict[str, tuple[bool, str]] = {}
    signals: dict[str, list[str]] = {}
    sets: int = 0
    log: list[str] = []
    undo: list[str] = []
    undone: list[str] = []
    grown: dict[str, str] = {}
    owed: dict[str, Owed] = {}
    exported: str | BlobRef | None = None
    steer: Steer | None = None
    lookups: list[str] = []
    ready: dict[str, list[str]] = {}
    """By handler: READY steps, oldest first. Steps in BACKOFF are known by their times."""


_LISTS = ("live", "asked", "unconfirmed", "lookups")
_LEDGER = ("usage", "attempts", "owed")
_APART = ("id", "schema", "steps", "ready", *_LISTS, *_LEDGER)
_PLAIN = tuple(name for name in Snapshot.__struct_fields__ if name not in _APART)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def dump(run: Run) -> bytes:
    """The stored state of a run. Equal states give equal bytes."""
    ready = {handler: _ready_ids(run, handler, queue) for handler, queue in sorted(run.ready.items())}
    fields: dict[str, Any] = {name: getattr(run, name) for name in _PLAIN}
    fields |= {name: list(getattr(run, name)) for name in _LISTS}
    fields |= {"id": run.id, "steps": list(run.steps.values())}
    fields |= {"usage": run.usage, "attempts": run.attempts, "owed": run.ledger.owed}
    fields["ready"] = {handler: ids for handler, ids in ready.items() if ids}
    return _encoder.encode(Snapshot(**fields))


def _ready_ids(run: Run, handler: str, queue: deque[str]) -> list[str]:
    ranked = sorted(run.ranked.get(handler, ()), key=lambda entry: entry[1]) if run.ranked else ()
    return [
        step_id
        for step_id in dict.fromkeys((*(entry[2] for entry in ranked), *queue))
        if run.steps[step_id].state == "READY" and not run.steps[step_id].held
    ]


def load(data: bytes) -> Run:
    """A run from its stored state; the shell gives it its flow next. Raises `msgspec.DecodeError`."""
    snapshot = _decoder.decode(data)
    if snapshot.schema > SCHEMA:
        raise msgspec.DecodeError(f"schema {snapshot.schema}; this build knows {SCHEMA}")
    run = Run(snapshot.id)
    run.ledger = Ledger(snapshot.allocation, snapshot.usage, snapshot.attempts)
    run.ledger.owed = snapshot.owed
    for name in _PLAIN:
        setattr(run, name, getattr(snapshot, name))
    for name in _LISTS:
        setattr(run, name, dict.fromkeys(getattr(snapshot, name)))
    run.ready = {handler: deque(ids) for handler, ids in snapshot.ready.items()}
    for step in snapshot.steps:
        _restore(run, step)
    budget.restore(run)
    heapify(run.backoff)
    run.around = {run.steps[step_id].above for step_id in run.log} - {""}
    return run


def _restore(run: Run, step: Step) -> None:
    run.steps[step.id] = step
    run.counts_by_state[step.state] = run.counts_by_state.get(step.state, 0) + 1
    if step.state == "BACKOFF" and not step.asked and step.next_attempt_at is not None:
        if step.handler:
            run.backoff.append((step.next_attempt_at, step.id, step.epoch))
        else:
            run.set_timer(step, step.next_attempt_at)
    limits.restore(run, step)
    if step.is_waiting:
        run.wait(step)
        if step.approval is not None and step.approval.outcome:
            run.decided[step.id] = None
    if not step.ended:
        run.set_timer(step, step.deadline)
    _restore_values(run, step)


def _restore_values(run: Run, step: Step) -> None:
    """What is stored apart of a step's values."""
    if isinstance(step.output, BlobRef) and step.ended:
        run.note_large(step.of, step.output)
    evolve_serverless.restore(run, step)
