"""The invariants of the protocols (docs/invariants.md, V23 to V45), looked at while a world runs: at each commit, each message between tiers, each attempt."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.wire import RUN_STATES, SWARM_STATES, failure_from_proto

from simulation.committed import Committed, described, lease_is_good, schema_of, short
from simulation.runs import Runs
from simulation.telling import Telling

_CLOSING = (
    "step_completed",
    "step_retrying",
    "step_failed",
    "step_cancelled",
    "step_interrupted",
    "step_skipped",
    "late_result",
    "handler_called",
    "step_grown",
)


_SAID = {"command_received": "command_id", "signal_received": "signal_id", "approval_decided": "decision_id"}
"""Where events that say what somebody wanted have its id."""


class Violated(Exception):
    """An invariant does not hold."""


class Checks(Telling):
    """All checks of one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.journal = Committed()
        self.runs = Runs(world)
        self.attempts: dict[str, list[str]] = {}
        """By attempt id: the incarnations that performed it."""
        self.running: dict[str, Any] = {}
        """Attempts whose handler is at work, with their incarnation."""
        self.done: dict[str, bool] = {}
        """Attempts whose handler has returned (True) or raised."""

    def expect(self, holds: bool, invariant: str, text: str) -> None:
        if not holds:
            self.world.violated(invariant, text)

    # --- commits ---

    def commit(self, session: Any, plan: Any, transaction: Any) -> None:
        """A transaction commits; its writes are not yet applied."""
        tables = session.tables
        if plan.name.startswith("commit_"):
            self._group_commit(session, tables, transaction)
        elif plan.name in ("save_watermark", "drop_watermark"):
            self._watermark(tables, transaction)
        elif plan.name in ("adopt", "due", "claim"):
            for _, args in transaction.writes:
                self.journal.owner[args[0]] = args[1]["owner"]
                self.world.note(session.process, f"{plan.name} {short(args[0])}")
        elif plan.name in ("release", "quarantine", "put_off"):
            for _, args in transaction.writes:
                self.journal.owner[args[0]] = None
                self.world.note(session.process, f"{plan.name} {short(args[0])}")
        elif plan.name == "fence":
            self._fenced(session, tables, transaction)
        elif plan.name in ("register", "leave"):
            self.world.note(session.process, f"{plan.name}: {len(transaction.writes)} writes")

    def _fenced(self, session: Any, tables: Any, transaction: Any) -> None:
        """V24: a lease has run out, by its holder's clock too, before a peer fences it."""
        for change, _ in transaction.writes:
            for one in self.world.stateful(tables.schema):
                row = tables.fence.get(one.parts["durable"].instance_id)
                if row is not None and row.update == change:
                    self.world.note(session.process, f"fences {one.key}")
                    self.expect(
                        not lease_is_good(one), "V24", f"{session.process} fences {one.key}, whose lease is good"
                    )

    def _group_commit(self, session: Any, tables: Any, transaction: Any) -> None:
        owners = self.journal.owner
        after: dict[str, str | None] = {}
        fresh: set[str] = set()
        rows = []
        for change, args in transaction.writes:
            name = change.__name__
            if name == "change_entity":
                entity_id, values = args
                if entity_id not in tables.entity:
                    fresh.add(entity_id)
                elif "state" in values:
                    rows.append((entity_id, None))
                if "owner" in values:
                    after[entity_id] = values["owner"]
            elif name == "add_journal":
                rows.append((args[0]["entity_id"], args[0]))
        said = []
        for entity_id, row in rows:
            me = transaction.me
            fence = tables.fence.get(me)
            self.expect(
                fence is not None and not fence["fenced"],
                "V23",
                f"{session.process} commits {short(entity_id)} although it is fenced",
            )
            owner = me if entity_id in fresh else owners.get(entity_id)
            self.expect(owner == me, "V24", f"{session.process} commits {short(entity_id)}, which is owned by {owner}")
            if row is not None:
                said.append(self._row(row))
                if tables.schema == "orchestrator":
                    self.runs.row(entity_id, row["data"])
        for entity_id in fresh:
            owners.setdefault(entity_id, transaction.me)
        owners.update(after)
        for entity_id, _ in rows:
            self._one_holder(tables.schema, entity_id)
        if said:
            self.world.note(session.process, "commits " + "; ".join(said))

    def _row(self, row: Any) -> str:
        """A journal row: gapless, and what it says is remembered."""
        journal = self.journal
        entity_id = row["entity_id"]
        events = event_pb2.EventBatch.FromString(row["data"]).events
        last = journal.last.get(entity_id, 0)
        numbers = [event.seq for event in events]
        expected = list(range(last + 1, last + 1 + len(events)))
        sound = numbers == expected and row["first_seq"] == numbers[0] and row["seq"] == numbers[-1]
        self.expect(
            sound,
            "V25",
            f"{short(entity_id)} has events to {last}, then a row {row['first_seq']}-{row['seq']} with {numbers}",
        )
        journal.last[entity_id] = row["seq"]
        kinds = []
        for event in events:
            kind = event.WhichOneof("payload")
            kinds.append(described(event, kind))
            self._event(entity_id, event, kind)
        return f"{short(entity_id)} {numbers[0]}: {', '.join(kinds)}"

    def _event(self, entity_id: str, event: Any, kind: str) -> None:
        journal = self.journal
        value = getattr(event, kind)
        if kind == "step_scheduled":
            self.expect(value.attempt_id not in journal.scheduled, "V6", f"{value.attempt_id} is scheduled twice")
            journal.scheduled[value.attempt_id] = value.executor_id
            if value.child_run_id:
                known = journal.children.setdefault(value.child_run_id, value.attempt_id)
                self.expect(
                    known == value.attempt_id, "V50", f"{short(value.child_run_id)} is {known} and {value.attempt_id}"
                )
        elif kind in _CLOSING:
            self._closing(event, kind, value)
        elif kind in _SAID:
            journal.commands.add((entity_id, getattr(value, _SAID[kind])))
            if kind == "command_received":
                self._in_order(entity_id, value.command_id)
        elif kind.startswith("run_"):
            self._of_run(entity_id, kind, value)
        elif kind.startswith("swarm_"):
            self._of_swarm(entity_id, kind, value)

    def _in_order(self, entity_id: str, command_id: str) -> None:
        """V51: what a swarm was told later is not undone by what it was told before."""
        journal = self.journal
        if entity_id in journal.swarms:
            journal.orders.setdefault(entity_id, []).append(command_id)
            return
        orders = journal.orders.get(journal.requested.get(entity_id, ""), [])
        if command_id in orders:
            place, before = orders.index(command_id), journal.obeyed.get(entity_id, -1)
            self.expect(place > before, "V51", f"{command_id} comes to run {short(entity_id)} after {orders[before]}")
            journal.obeyed[entity_id] = place

    def _of_run(self, entity_id: str, kind: str, value: Any) -> None:
        journal = self.journal
        if kind == "run_created":
            journal.runs.add(entity_id)
            if not value.flow.hash:
                journal.buried.add(entity_id)
            known = entity_id in journal.requested or entity_id in journal.children
            self.expect(known or not value.flow.hash, "V50", f"nobody asked for run {short(entity_id)}")
        elif kind == "run_state_changed" and value.generation:
            journal.generations[entity_id] = value.generation
        elif kind == "run_ended":
            key = (entity_id, journal.generation(entity_id))
            self.expect(key not in journal.run_ends, "V1", f"run {short(entity_id)} ends twice")
            journal.run_ends[key] = value.to
        elif kind == "run_requested":
            others = [run for run, swarm in journal.requested.items() if swarm == entity_id and run != value.run_id]
            early = [short(run) for run in others if (run, journal.generation(run)) not in journal.finished]
            self.expect(not (value.planned and early), "U10", f"{value.planned} is asked for, and {early} run")
            journal.requested[value.run_id] = entity_id
            if value.generation > 1:
                journal.generations[value.run_id if value.planned else entity_id] = value.generation
        elif kind == "run_taken":
            early = value.run_id in journal.buried
            self.expect(not early, "V45", f"run {short(value.run_id)} is taken, and was cancelled before it came")
            stored = value.run_id in journal.runs
            self.expect(stored, "V41", f"run {short(value.run_id)} is taken, and is not stored")
        elif kind == "run_finished":
            key = (value.run_id, value.generation or 1)
            self.expect(journal.run_ends.get(key) == value.state, "V41", f"run {key} has not ended as its swarm says")
            journal.finished.add(key)

    def _of_swarm(self, entity_id: str, kind: str, value: Any) -> None:
        journal = self.journal
        if kind == "swarm_created":
            journal.swarms.add(entity_id)
            if value.plan:
                journal.planned.add(entity_id)
        elif kind == "swarm_state_changed":
            if entity_id in journal.planned and SWARM_STATES.name(getattr(value, "from")) == "FAILED":
                journal.generations[entity_id] = journal.generation(entity_id) + 1
        elif kind == "swarm_ended":
            key = (entity_id, journal.generation(entity_id))
            self.expect(key not in journal.swarm_ends, "V28", f"swarm {short(entity_id)} ends twice")
            journal.swarm_ends[key] = value.to

    def _closing(self, event: Any, kind: str, value: Any) -> None:
        if not value.attempt_id:
            return
        self.journal.closed.add(value.attempt_id)
        if kind in ("step_completed", "step_grown"):
            done = self.done.get(value.attempt_id, False) or self._child_of(value.attempt_id) == "COMPLETED"
            self.expect(done, "V42", f"{value.attempt_id} is completed, which its handler did not do")
        if kind in ("step_retrying", "step_failed", "handler_called"):
            failure = failure_from_proto(value.failure)
            if failure.code == "MAX_RETRIES_EXCEEDED" and failure.cause is not None:
                failure = failure.cause
            if failure.code in ("HANDLER_FAILED", "HANDLER_REJECTED"):
                failed = self.done.get(value.attempt_id) is False
                self.expect(failed, "V42", f"{value.attempt_id} is failed, which its handler did not do")
            if failure.code == "EXECUTOR_LOST" and failure.tier == 2 and failure.operation != "interrupt":
                self.journal.lost.append((self.world.now, value.attempt_id, failure.message))
                self.world.no_loss(value.attempt_id, failure.message)
        elif kind == "step_cancelled" and value.confirmed:
            self.journal.stopped.add(value.attempt_id)
            one = self.running.get(value.attempt_id)
            self.expect(one is None or not one.alive, "V43", f"{value.attempt_id} is said to be stopped, and runs")

    def _child_of(self, attempt_id: str) -> str:
        """How the run that an attempt is has ended; empty where it has not, or is none."""
        journal = self.journal
        child = next((run for run, attempt in journal.children.items() if attempt == attempt_id), "")
        state = journal.run_ends.get((child, journal.generation(child)))
        return "" if state is None else RUN_STATES.name(state)

    def _one_holder(self, schema: str, entity_id: str) -> None:
        fence = self.world.database.engine.tables(schema).fence
        holders = [
            one.key
            for one in self.world.stateful(schema)
            if (entity := _entity_of(one, entity_id)) is not None and entity.birth is None and not entity.closing and lease_is_good(one)
            and not fence[one.parts["durable"].instance_id]["fenced"]
        ]  # fmt: skip
        self.expect(len(holders) <= 1, "V24", f"{short(entity_id)} is held by {holders}, all with a good lease")

    def _watermark(self, tables: Any, transaction: Any) -> None:
        """V36: nothing before the watermark is unpublished."""
        if not self.world.scenario.nats:
            return
        stored = self.world.broker.ever
        for change, args in transaction.writes:
            dropped = change.__name__ == "pop"
            for id_, row in tables.watermark.items():
                if (dropped and id_ != args[0]) or (not dropped and row.update != change):
                    continue
                position = float("inf") if dropped else args[0]["position"]
                for line in tables.by_instance.get(id_, ()):
                    if line["position"] <= position:
                        missing = [
                            seq
                            for seq in range(line["first_seq"], line["seq"] + 1)
                            if (line["entity_id"], seq) not in stored
                        ]
                        self.expect(
                            not missing,
                            "V36",
                            f"the watermark of {short(id_)} passes {short(line['entity_id'])} {missing}, which are not published",
                        )

    # --- attempts ---

    def performed(self, incarnation: Any, attempt_id: str) -> None:
        """A handler is called."""
        before = self.attempts.setdefault(attempt_id, [])
        self.world.note(incarnation.name, f"performs {short(attempt_id)}")
        self.expect(not before, "V31", f"{incarnation.key} performs {attempt_id}, which {before} performed")
        before.append(incarnation.key)
        self.expect(
            attempt_id not in self.journal.stopped,
            "V43",
            f"{incarnation.key} performs {attempt_id}, which is said to be stopped",
        )
        self.running[attempt_id] = incarnation
        engine = incarnation.parts["engine"]
        self.expect(
            engine.runner.busy <= engine.settings.slots,
            "V35",
            f"{incarnation.key} performs {engine.runner.busy} attempts at once",
        )
        wanted = self.journal.scheduled.get(attempt_id, "")
        self.expect(
            wanted == f"{incarnation.name}/{engine.executor_id}",
            "V31",
            f"{incarnation.key} performs {attempt_id}, which is of {wanted}",
        )

    def ended_attempt(self, attempt_id: str, *, done: bool) -> None:
        """A handler has returned, or raised."""
        one = self.running.get(attempt_id)
        if one is None or not one.alive or self.world.over:
            return  # What died is freed.
        del self.running[attempt_id]
        self.done[attempt_id] = done

    def boarded(self, link: Any, attempt_id: str) -> None:
        """A slot is taken for an attempt."""
        self.expect(
            link.used <= link.slots, "V35", f"{attempt_id} takes slot {link.used} of {link.slots} at {link.key}"
        )

    # --- processes ---

    def ended_fenced(self, process: Any, why: str) -> None:
        """A process says that it was fenced."""
        durable = process.parts.get("durable")
        if durable is None:
            return
        engine = self.world.database.engine
        row = engine.tables(schema_of(process.kind)).fence.get(durable.instance_id)
        schedules = process.parts.get("schedules")  # a coordinator holds them by a lease of their own
        other = engine.tables("schedules").fence.get(schedules.instance_id) if schedules is not None else None
        self.expect(
            row is None or row["fenced"] or (other is not None and other["fenced"]),
            "V29",
            f"{process.name} ends itself ({why}), although nobody has fenced it",
        )


def _entity_of(process: Any, entity_id: str) -> Any:
    durable = process.parts.get("durable")
    return None if durable is None or not process.alive else durable.host.entities.get(entity_id)
