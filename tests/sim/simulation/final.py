"""The verdict at the end: whether everything has ended, nothing is left, and all that is stored agrees."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.events.v1 import event_pb2
from tierflow_coordinator.core import states as swarm_states
from tierflow_runtime.wire import RUN_STATES, SWARM_STATES

from simulation.committed import short


class Final:
    """Looks at a world that has come to rest."""

    def __init__(self, world: Any) -> None:
        self.world = world

    # --- V38: everything comes to its end ---

    def is_quiet(self) -> bool:
        return not self.world.clients.open and next(self._unrest(), None) is None

    def unfinished(self) -> None:
        """The time is over."""
        left = []
        if self.world.clients.open:
            left.append(f"{self.world.clients.open} clients wait")
        for place, text in enumerate(self._unrest()):
            if place < 6:
                left.append(text)
        self.world.violated("V38", f"after {self.world.now:.0f} s: " + "; ".join(left))

    def _unrest(self) -> Any:
        """What still has to happen."""
        world = self.world
        for process in world.processes.values():
            if process.current is None or not process.current.alive or not process.current.serving:
                yield f"{process.name} is not up"
        for schema in ("coordinator", "orchestrator"):
            tables = world.database.engine.tables(schema)
            for row in tables.entity.values():
                if row["ended_at"] is None:
                    yield f"{schema} {short(row['id'])} is {row['state']} {row['reason']} (owner {row['owner'] and short(row['owner'])}, wakes {row['wake_at']})"
                elif row["id"] in tables.unacknowledged:
                    yield f"{schema} {short(row['id'])} is not acknowledged"
            for id_ in tables.watermark:
                if world.scenario.nats and (id_ not in tables.fence or tables.fence[id_]["fenced"]):
                    yield f"what {short(id_)} left is not relayed"
        if world.scenario.nats and len(world.broker.stored) < sum(world.checks.journal.last.values()):
            yield "events are not published"
        yield from self._in_memory()
        yield from self._left()

    def _in_memory(self) -> Any:
        for one in self.world.living():
            durable, engine = one.parts.get("durable"), one.parts.get("engine")
            if durable is not None:
                if durable.host.entities:
                    yield f"{one.key} holds {[short(id_) for id_ in durable.host.entities]}"
                if self.world.scenario.nats and durable.relay.lag > 0:
                    yield f"{one.key} has {durable.relay.lag} positions to relay"
            dispatcher, sessions = one.parts.get("dispatcher"), one.parts.get("sessions")
            if dispatcher is not None:
                if dispatcher.flights:
                    yield f"{one.key} has flights {[short(id_) for id_ in dispatcher.flights]}"
                for link in dispatcher.links():
                    if link.used:
                        yield f"{one.key} has {link.used} slots taken at {link.key}"
            if sessions is not None and sessions.unacknowledged:
                yield f"{one.key} keeps {sessions.unacknowledged} results"
            if one.kind == "e" and engine is not None:
                # Of an attempt that is closed, nobody may be left to acknowledge the result: it is kept for its time (rule R27).
                closed = self.world.checks.journal.closed
                kept = [each.attempt_id for each in engine.attempts.holding if each.attempt_id not in closed]
                if engine.runner.busy or kept:
                    yield f"{one.key} runs {engine.runner.busy}, keeps results of {[short(id_) for id_ in kept]}"

    # --- the verdict ---

    def verdict(self) -> None:
        self._requests()
        self._runs()
        self._swarms()
        if self.world.scenario.nats:
            self._published()

    def _expect(self, holds: bool, invariant: str, text: str) -> None:
        self.world.checks.expect(holds, invariant, text)

    def _requests(self) -> None:
        """V27: a request id is one swarm."""
        tables = self.world.database.engine.tables("coordinator")
        made: dict[str, list[str]] = {}
        for id_, rows in tables.journal.items():
            created = event_pb2.EventBatch.FromString(rows[0]["data"]).events[0].swarm_created
            made.setdefault(created.context.request_id, []).append(short(id_))
        for request_id, ids in made.items():
            self._expect(len(ids) == 1, "V27", f"{request_id} made swarms {ids}")

    def _runs(self) -> None:
        """V11: each run has ended; V12: what is stored of the entity is what the journal says; V50: what runs are steps of has heard of their end."""
        tables = self.world.database.engine.tables("orchestrator")
        runs, journal = self.world.checks.runs, self.world.checks.journal
        for run_id in tables.journal:
            state, row = runs.states[run_id], tables.entity[run_id]
            self._expect(runs.has_ended(run_id), "V11", f"run {short(run_id)} has not ended: it is {state.state}")
            self._expect(
                row["state"] == state.state and row["outcome"] == state.outcome,
                "V12",
                f"run {short(run_id)} is {state.state} by its journal and {row['state']} by its row",
            )
            known = run_id in journal.requested or run_id in journal.children
            self._expect(known, "V41", f"nobody asked for run {short(run_id)}")
        for run_id, attempt_id in journal.children.items():
            self._expect(
                attempt_id in journal.closed, "V50", f"{attempt_id} has not ended, though run {short(run_id)} has"
            )

    def _swarms(self) -> None:
        """V41: a swarm ends as its run did; V28: it ends once."""
        world = self.world
        journal = world.checks.journal
        tables = world.database.engine.tables("coordinator")
        for swarm_id in tables.journal:
            end = journal.end_of(swarm_id)
            self._expect(end is not None, "V28", f"swarm {short(swarm_id)} has no end")
            state = SWARM_STATES.name(end)
            row = tables.entity[swarm_id]
            self._expect(
                row["state"] == state,
                "V12",
                f"swarm {short(swarm_id)} is {state} by its journal and {row['state']} by its row",
            )
            self._ends_of_runs(swarm_id, state)
        for number, swarm_id in world.clients.accepted.items():
            told = world.clients.results.get(number)
            self._expect(
                told == SWARM_STATES.name(journal.end_of(swarm_id)), "V26", f"swarm {number} was said to be {told}"
            )

    def _ends_of_runs(self, swarm_id: str, state: str) -> None:
        """The swarm knows how its runs did. It ends as its run did; with a plan of several it ends so where one was cancelled."""
        journal = self.world.checks.journal
        planned = swarm_id in journal.planned
        for run_id in [run for run, swarm in journal.requested.items() if swarm == swarm_id]:
            key = (run_id, journal.generation(run_id if planned else swarm_id))
            run_end = journal.run_ends.get(key)
            told = RUN_STATES.name(run_end) if run_end is not None and key in journal.finished else ""
            if told and not (planned and told != "CANCELLED"):
                wanted = swarm_states.RUN_ENDS[told]
                self._expect(state == wanted, "V41", f"swarm {short(swarm_id)} is {state}, its run {told}")
            if run_id in journal.runs - journal.buried and state != "TERMINATED":
                self._expect(
                    key in journal.finished,
                    "V41",
                    f"swarm {short(swarm_id)} ended {state} and does not know how its run {short(run_id)} did",
                )

    def _published(self) -> None:
        """V37: what was published is what is in the journals, no more and no less."""
        stored = dict(self.world.broker.stored)
        for schema in ("coordinator", "orchestrator"):
            for entity_id, rows in self.world.database.engine.tables(schema).journal.items():
                for row in rows:
                    for event in event_pb2.EventBatch.FromString(row["data"]).events:
                        coded = stored.pop((entity_id, event.seq), None)
                        self._expect(coded is not None, "V37", f"{short(entity_id)} {event.seq} was not published")
                        self._expect(
                            coded == event.SerializeToString(deterministic=True),
                            "V37",
                            f"{short(entity_id)} {event.seq} was published as something else",
                        )
        self._expect(not stored, "V37", f"{len(stored)} events were published that no journal has")

    def _left(self) -> Any:
        """V39: nothing of what has ended is kept in memory."""
        for one in self.world.living():
            for name, size in self._kept(one):
                if size:
                    yield f"{one.key} keeps {size} {name} of what has ended"

    def _kept(self, one: Any) -> list[tuple[str, int]]:
        dispatcher, sessions, engine = (one.parts.get(name) for name in ("dispatcher", "sessions", "engine"))
        found = []
        if dispatcher is not None:
            found = [
                ("runs with attempts", len(dispatcher._by_run)), ("waiting runs", sum(len(queue) for queue in dispatcher.slots._waiting.values())),
                ("heartbeats", len(dispatcher.heartbeats)), ("interests", len(sessions._interested)), ("commands", len(sessions._commands)),
            ]  # fmt: skip
        elif one.kind == "c" and engine is not None:
            found = [
                ("wanted runs", len(engine.runs)), ("homeless runs", len(engine.runs._homeless)), ("terminated swarms", len(engine._terminated)),
                ("results being routed", len(engine._routing)),
            ]  # fmt: skip
        elif one.kind == "e" and engine is not None:
            found = [("results", len(engine.attempts.holding))]
        return found
