"""What the first version wrote is read by every later one: a journal, a snapshot and a flow from before there were further kinds of steps."""

import pathlib

from tierflow_flow.parsing import from_canonical, parse
from tierflow_orchestrator import wire
from tierflow_orchestrator.core import Run, decide, dump, load
from tierflow_orchestrator.core.commands import AssignSlot, ReportResult, Resume

from .core.fakes import fold

GOLDEN = pathlib.Path(__file__).parent / "golden"
SECOND = 1_000_000


def completed(run: Run, now: int) -> str:
    """The run's output, once executors that work have done the rest."""
    decide(run, Resume(command_id="r"), now)
    for _ in range(10):
        for handler in list(run.ready_handlers()):
            step_id = run.next_ready(handler)
            assert step_id is not None
            decide(run, AssignSlot(step_id=step_id, executor_id="e"), now)
            attempt_id = run.steps[step_id].attempt_id
            decide(run, ReportResult(attempt_id=attempt_id, state="COMPLETED", output="7"), now)
    assert run.state == "COMPLETED"
    return str(run.output)


def test_a_flow_keeps_its_definition_and_hash() -> None:
    """E2: the canonical form of what there was does not change by what is added."""
    canonical = (GOLDEN / "flow.json").read_text()
    assert parse((GOLDEN / "flow.yaml").read_text()).canonical == canonical
    assert from_canonical(canonical).canonical == canonical


def test_a_journal_of_the_first_version_is_a_run() -> None:
    """K7: its events are read, and its run goes on where it was."""
    flow = from_canonical((GOLDEN / "flow.json").read_text())
    stored = list(wire.decode_events((GOLDEN / "journal.bin").read_bytes()))
    assert [seq for seq, _, _ in stored] == list(range(1, len(stored) + 1))
    run = fold(flow, [(event, time) for _, time, event in stored])
    assert run.state == "PAUSED"
    assert (run.steps["a"].output, run.steps["m[0]"].output) == ("[1,2]", "10")
    assert completed(run, stored[-1][1] + SECOND) == '{"end":7}'


def test_a_snapshot_of_the_first_version_is_the_same_run() -> None:
    """K7, V12: it is read, and is what the journal gives."""
    flow = from_canonical((GOLDEN / "flow.json").read_text())
    run = load((GOLDEN / "snapshot.bin").read_bytes())
    run.flow = flow
    stored = list(wire.decode_events((GOLDEN / "journal.bin").read_bytes()))
    assert dump(run) == dump(fold(flow, [(event, time) for _, time, event in stored]))
    assert completed(run, stored[-1][1] + SECOND) == '{"end":7}'
