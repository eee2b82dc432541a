"""The tables of runs and steps."""

import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_orchestrator.core import IllegalTransition, Run, decide, dump, evolve, load
from tierflow_orchestrator.core.commands import AssignSlot
from tierflow_orchestrator.core.events import RunStateChanged, StepCompleted
from tierflow_orchestrator.core.moves import move
from tierflow_orchestrator.core.states import RUN, STEP, Machine

from .fakes import Shell, call, flow
from .test_storm import Storm


@pytest.mark.parametrize("machine", [RUN, STEP], ids=lambda machine: machine.name)
def test_every_pair_of_states(machine: Machine) -> None:
    """B5, C2, O14, Lesson 2, Lesson 21: what is in the table is allowed; everything else raises, naming both states."""
    for from_ in machine.states:
        for to in machine.states:
            if to in machine.table[from_]:
                assert machine.allows(from_, to)
                machine.check("x", from_, to)
                continue
            assert not machine.allows(from_, to)
            with pytest.raises(IllegalTransition) as caught:
                machine.check("x", from_, to)
            assert (caught.value.from_, caught.value.to) == (from_, to)
            assert from_ in str(caught.value)
            assert to in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "enum", "prefix"),
    [(RUN, state_pb2.RunState, "RUN_STATE_"), (STEP, state_pb2.StepState, "STEP_STATE_")],
    ids=["run", "step"],
)
def test_states_are_those_of_the_contract(machine: Machine, enum: object, prefix: str) -> None:
    """C2, V2: the table and the contract know the same states."""
    names = {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # type: ignore[attr-defined]  # noqa: SIM118
    assert names == {*machine.states, *machine.reserved}
    assert {to for moves in machine.table.values() for to in moves} | {machine.initial} == set(machine.states)


@pytest.mark.parametrize("machine", [RUN, STEP], ids=lambda machine: machine.name)
def test_every_state_leads_to_an_end(machine: Machine) -> None:
    """V2, Lesson 17: from every state a final one can be reached."""
    good = set(machine.final)
    while more := {s for s in machine.states if s not in good and good & set(machine.table[s])}:
        good |= more
    assert good == set(machine.states)


def test_a_new_state_is_one_more_row() -> None:
    """C10: what is generic about a machine holds of a copy of the table with a state more, without anything else being told of it."""
    table = {name: dict(moves) for name, moves in STEP.table.items()}
    table["REVIEWED"] = {"SCHEDULED": "approved", "SKIPPED": "rejected"}
    table["READY"]["REVIEWED"] = "somebody looks at it first"
    machine = Machine("step", "PENDING", table, after=STEP.after)
    assert set(machine.states) == {*STEP.states, "REVIEWED"}
    assert (machine.final, machine.over) == (STEP.final, STEP.over)
    test_every_pair_of_states(machine)
    test_every_state_leads_to_an_end(machine)


def test_the_engine_takes_a_new_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """C10, V1, V12: with the row in the table a step can be in the new state: moves, counts, snapshots and whole random lives go on, and no other code was told."""
    monkeypatch.setitem(STEP.table, "REVIEWED", {"READY": "approved", "SKIPPED": "rejected"})  # type: ignore[arg-type]
    monkeypatch.setitem(STEP.table["READY"], "REVIEWED", "somebody looks at it first")  # type: ignore[arg-type]
    shell = Shell(flow(call("a"), call("b", "a")), auto=False)
    run, step = shell.run, shell.run.steps["a"]
    move(run, step, "REVIEWED")
    assert {state: count for state, count in run.counts_by_state.items() if count} == {"REVIEWED": 1, "PENDING": 1}
    with pytest.raises(IllegalTransition, match="REVIEWED to COMPLETED"):
        move(run, step, "COMPLETED")
    stored = dump(run)
    again = load(stored)
    again.flow = shell.flow
    assert (again.steps["a"].state, again.counts_by_state, dump(again)) == ("REVIEWED", run.counts_by_state, stored)
    move(run, step, "READY")
    decide(run, AssignSlot(step_id="a", executor_id="e"), shell.now)
    shell.complete("a")
    assert shell.state("b") == "READY"
    for seed in range(20):
        storm = Storm(seed)
        storm.settle()
        for _ in range(40):
            storm.weather()
        assert "REVIEWED" in storm.run.counts_by_state


def test_a_history_that_cannot_have_been() -> None:
    """C2, V2: events that the table does not allow are refused when a run is loaded."""
    shell = Shell(flow(call("a")))
    shell.complete("a")
    with pytest.raises(IllegalTransition, match="COMPLETED to RUNNING"):
        evolve(shell.run, RunStateChanged(from_="COMPLETED", to="RUNNING"), shell.now)
    with pytest.raises(IllegalTransition, match="step 'a' cannot go from COMPLETED to COMPLETED"):
        evolve(shell.run, StepCompleted(step_id="a"), shell.now)
    with pytest.raises(IllegalTransition, match="from nothing to RUNNING"):
        evolve(Run.fresh("r"), RunStateChanged(from_="", to="RUNNING"), shell.now)
