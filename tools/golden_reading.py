"""Reads all journals of a database, event by event, and says what occurs in them: kinds of events, states, snapshots.

`make golden` and tests/component/test_golden.py share it, so that what a set says of itself is found by the same reading that later versions do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tierflow_contracts.events.v1 import event_pb2
from tierflow_coordinator.core import states as swarms
from tierflow_coordinator.core.schedules import states as schedules
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.machine import SwarmMachine
from tierflow_coordinator.schedules.machine import ScheduleMachine
from tierflow_flow.parsing import from_canonical
from tierflow_orchestrator.core import states as runs
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.machine import RunMachine
from tierflow_runtime.subjects import CATALOGUE
from tierflow_testing.stored import definitions, stored

MACHINES: Final[Mapping[str, Any]] = {
    "coordinator": SwarmMachine(),
    "orchestrator": RunMachine(),
    "schedules": ScheduleMachine(),
}
"""By the schema that has the journal."""

NEVER_STORED: Final = frozenset({"progress_reported"})
"""Kinds that travel and are in no journal."""

NEVER_REACHED: Final = {"swarm": frozenset({"IDLE"})}
"""States that the contracts have and no decision leads to yet."""

STATES: Final[Mapping[str, frozenset[str]]] = {
    "swarm": frozenset(swarms.STATES),
    "run": frozenset(runs.RUN.states),
    "step": frozenset(runs.STEP.states),
    "schedule": frozenset(schedules.TRANSITIONS) - {schedules.NEW},
    "firing": frozenset(schedules.FIRING_TRANSITIONS) - {schedules.NEW},
}
"""All states of everything that has some, by whose they are."""


@dataclasses.dataclass(slots=True)
class Found:
    """What occurs in a database."""

    kinds: set[str] = dataclasses.field(default_factory=set)
    states: dict[str, set[str]] = dataclasses.field(default_factory=lambda: {whose: set() for whose in STATES})
    snapshots: set[str] = dataclasses.field(default_factory=set)
    """Schemas with a snapshot of an entity."""

    def note(self, kind: str, state: Any) -> None:
        """An event of that kind left an entity so."""
        self.kinds.add(kind)
        for whose, name in _states(state):
            self.states[whose].add(name)

    def facts(self) -> dict[str, Any]:
        """The same for a file in JSON."""
        states = {whose: sorted(found) for whose, found in self.states.items()}
        return {"kinds": sorted(self.kinds), "states": states, "snapshots": sorted(self.snapshots)}


def lacking(facts: Mapping[str, Any]) -> set[str]:
    """What this version knows and a set does not have: kinds by name, states as `run PAUSED`, snapshots as `snapshot of orchestrator`."""
    kinds = set(CATALOGUE) - NEVER_STORED - set(facts["kinds"])
    states = {
        f"{whose} {state}"
        for whose, known in STATES.items()
        for state in known - NEVER_REACHED.get(whose, frozenset()) - set(facts.get("states", {}).get(whose, ()))
    }
    snapshots = {f"snapshot of {schema}" for schema in set(MACHINES) - set(facts.get("snapshots", ()))}
    return kinds | states | snapshots


async def read(connection: Any) -> Found:
    """Reads everything.

    Raises:
        AssertionError: An event is another one once decoded and encoded again, or a journal does not give the state or the snapshot that was stored.
    """
    found = Found()
    flows = {name: from_canonical(text) for name, text in (await definitions(connection)).items()}
    for schema, machine in MACHINES.items():
        everything = await stored(connection, schema)
        assert everything.journals.keys() == everything.states.keys()
        if everything.snapshots:
            found.snapshots.add(schema)
        for entity_id, batch in everything.journals.items():
            state = _replayed(machine, entity_id, batch, flows, everything.snapshots.get(entity_id), found)
            assert state.state == everything.states[entity_id], entity_id
            assert isinstance(state, Schedule) or machine.dump(machine.load(machine.dump(state))) == machine.dump(state)
    return found


def _replayed(
    machine: Any,
    entity_id: str,
    batch: event_pb2.EventBatch,
    flows: Mapping[str, Any],
    snapshot: tuple[int, bytes] | None,
    found: Found,
) -> Any:
    """The state of an entity after all of its events."""
    state = machine.fresh(entity_id)
    for message, (seq, time, event) in zip(batch.events, machine.decode(batch.SerializeToString()), strict=True):
        kind = message.WhichOneof("payload") or ""
        again = event_pb2.Event.FromString(machine.encode(event, seq, time))
        assert again == message, f"{kind} is another one once decoded and encoded again"
        if kind == "run_created":
            state.flow = flows.get(message.run_created.flow.hash)
        machine.evolve(state, event, time)
        found.note(kind, state)
        if snapshot is not None and snapshot[0] == seq:
            assert machine.dump(machine.load(snapshot[1])) == machine.dump(state), f"the snapshot of {entity_id}"
    return state


def _states(state: Any) -> Iterable[tuple[str, str]]:
    """The states that an entity and its parts are in, each with whose it is."""
    if isinstance(state, Schedule):
        yield "schedule", state.state
        firings = [*state.open.values(), *state.recent]
        yield from (("firing", firing.state) for firing in firings)
    elif isinstance(state, Run):
        yield "run", state.state
        yield from (("step", step.state) for step in state.steps.values())
    else:
        yield "swarm", state.state
