"""What the sustained load and the benchmark's bounds make of what was measured: pure, and the other way round as well."""

import asyncio
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from tierflow import ExecutionFailed
from tierflow.errors import ResourceExhausted, TierflowError, made
from tierflow_contracts.common.v1.failure_pb2 import Failure

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks import performance
from benchmarks.sustained import report
from benchmarks.sustained.mix import FLOWS, KINDS, Kind, WrongEndError, sequence
from benchmarks.sustained.offering import Counts, Offer
from benchmarks.sustained.verdict import Outcome, Sample, holds, judge, slope
from benchmarks.thresholds.figures import Figure
from benchmarks.workloads import SCENARIOS

MIB = {"coordinator-0": 60.0, "orchestrator-0": 80.0, "executor-0": 50.0, "postgres": 200.0}


def sample(number: int, **more: Any) -> Sample:
    """What is seen at five-second steps of a system that is well."""
    wobble = (number * 7 % 5) / 10
    seen: dict[str, Any] = {
        "at": 5.0 * (number + 1), "offered": 200, "ended": 200, "under_way": 10, "p50_ms": 20.0 + wobble, "p99_ms": 80.0 + wobble,
        "memory": {name: size + wobble for name, size in MIB.items()}, "cpu": dict.fromkeys(MIB, 10.0), "files": dict.fromkeys(MIB, 30), "tables_mib": {"coordinator": 1.0 * number},
        "sessions": 14, "lag": 40,
    }  # fmt: skip
    return Sample(**{**seen, **more})


def well(count: int = 120, **outcome: Any) -> tuple[list[Sample], Outcome]:
    """Ten minutes of a system that is well."""
    done = {"offered": 24_000, "ended": 24_000, "in_time": 23_980, "rate": 40.0, "due_under_way": 80, **outcome}
    return [sample(number) for number in range(count)], Outcome(**done)


def wrong(samples: list[Sample], outcome: Outcome) -> list[str]:
    return [finding.what for finding in judge(samples, outcome) if finding.judged and not finding.holds]


def grown(name: str, each: float) -> list[Sample]:
    """A process of which the memory grows by so many MiB a sample."""
    return [sample(n, memory={**MIB, name: MIB[name] + n * each}) for n in range(120)]


def test_a_system_that_is_well() -> None:
    """O9: nothing is found where nothing is wrong."""
    assert wrong(*well()) == []
    assert holds(judge(*well()))


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        ({"ended": 23_999}, "everything that was offered ended"),
        ({"in_time": 20_000}, "it kept up with what was offered"),
        ({"ended": 23_999, "untyped": ["one step 7: OSError()"]}, "every error is typed"),
        ({"ended": 23_999, "wrong": ["chain 8: 1 instead of 2"]}, "every end is the right one"),
        ({"ended": 23_000, "in_time": 22_980, "refused": {"QUEUE_FULL": 1_000}}, "at most 1% is refused"),
        ({"visibility": 0.9999}, "both events of every tool call are confirmed"),
        ({"audit": ["not ended (K1): x"]}, "the auditor finds nothing"),
    ],
)
def test_what_became_of_the_work(outcome: dict[str, Any], what: str) -> None:
    """O9, H7, P13: work that is lost, late, wrong or refused, errors without a code and the auditor's findings are each found, by name."""
    samples, done = well(**outcome)
    assert wrong(samples, done) == [what]


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (grown("orchestrator-0", 0.6), "memory of orchestrator-0 does not grow"),
        ([sample(n, p50_ms=20.0 + n * 0.4) for n in range(120)], "median latency does not grow"),
        ([sample(n, p99_ms=80.0 + n * 8) for n in range(120)], "99th percentile of latency does not grow"),
        ([sample(n, lag=200 * n) for n in range(120)], "events are published as they come"),
        ([sample(n, files={**dict.fromkeys(MIB, 30), "coordinator-0": 30 + n}) for n in range(120)], "open files and connections of coordinator-0 do not grow"),
        ([sample(n, p50_ms=20.0 if n < 60 else None) for n in range(120)], "median latency does not grow"),
    ],
)  # fmt: skip
def test_what_grows(samples: list[Sample], what: str) -> None:
    """O9: a leak, latency that rises, events that stay behind and connections that are not closed are each found, by name."""
    assert wrong(samples, well()[1]) == [what]


def test_what_does_not_count_as_growth() -> None:
    """O9: caches that fill at first, spikes, and stores that hold more are no leak."""
    warming = [sample(n, memory={**MIB, "orchestrator-0": 80.0 + min(n, 40)}) for n in range(120)]
    spikes = [sample(n, memory={**MIB, "executor-0": 50.0 + (400 if n % 10 == 0 else 0)}) for n in range(120)]
    for samples in (warming, spikes, grown("postgres", 3.0)):
        assert wrong(samples, well()[1]) == []


@pytest.mark.parametrize("count", [0, 3, 12])
def test_a_short_load_judges_no_growth(count: int) -> None:
    """O9: what a load is too short for is shown and not judged; what became of the work always is."""
    samples = grown("orchestrator-0", 10.0)[:count]
    assert wrong(samples, well()[1]) == []
    assert wrong(samples, well(ended=1)[1]) == ["everything that was offered ended"]


def test_slopes() -> None:
    """O9: the slope of most points, whatever a few do; none where there is nothing to see."""
    assert slope([]) == slope([(1, 1)]) == slope([(1, 1), (1, 5)]) == 0.0
    assert slope([(x, 3 * x + (1000 if x == 4 else 0)) for x in range(20)]) == 3.0


def test_the_mix_is_in_its_shares() -> None:
    """O9: each kind comes as often as its share says, spread evenly; each flow is one that can be registered."""
    whole = sum(kind.share for kind in KINDS)
    assert Counter(islice(sequence(), whole)) == {kind: kind.share for kind in KINDS}
    assert len({kind.name for kind in islice(sequence(), 20)}) >= 10
    assert len({flow["name"] for flow in FLOWS}) == len(FLOWS)


def _doing(error: Exception | None) -> Kind:
    async def perform(_client: Any, _number: int) -> None:
        if error is not None:
            raise error

    return Kind(type(error).__name__, 1, perform)


async def test_how_work_ends_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """O9, F22: what ends well, what is refused with a code, what ends wrongly and what nobody has typed are kept apart, and all is waited for."""
    failed: Any = None
    errors = [
        None, ResourceExhausted(made("QUEUE_FULL", "full")), WrongEndError("1 instead of 2"), ExecutionFailed(made("STEP_FAILED", "it broke"), "it broke", result=failed),
        TierflowError(Failure(message="nothing is known")), OSError("broken pipe"),
    ]  # fmt: skip
    kinds = iter([_doing(error) for error in errors])
    monkeypatch.setattr("benchmarks.sustained.offering.sequence", lambda: kinds)
    client: Any = None
    offer = Offer(client, 1000.0)
    await asyncio.wait_for(offer.run(len(errors) / 1000.0), 30)
    outcome = offer.outcome
    assert (outcome.offered, outcome.ended, outcome.refused) == (6, 1, {"QUEUE_FULL": 1})
    assert [line.partition(" ")[0] for line in outcome.wrong] == ["WrongEndError", "ExecutionFailed"]
    assert [line.partition(" ")[0] for line in outcome.untyped] == ["TierflowError", "OSError"]
    assert offer.since_last()[:2] == (6, 1)
    assert offer.since_last() == (0, 0, [])


def test_the_report(tmp_path: pathlib.Path) -> None:
    """O9: verdict first, then what was looked at, the kinds, the processes, and pictures of everything over time; the same as JSON."""
    samples, outcome = well(ended=23_999, wrong=["chain 8: a | b\nc"])
    findings = judge(samples, outcome)
    where = {"commit": "abc", "machine": "m", "load_before": 0.1, "at": "now"}
    path = report.write(tmp_path / "new", where, outcome, samples, {"one step": Counts(2, [0.01, 0.02])}, findings)
    text = path.read_text()
    assert "**It does not hold.**" in text
    assert "| every end is the right one | **no** | chain 8: a \\| b c |" in text
    assert "| one step | 2 | 15 | 20 |" in text
    facts = json.loads((tmp_path / "new/report.json").read_text())
    assert (facts["holds"], facts["outcome"]["offered"], len(facts["samples"])) == (False, 24_000, 120)
    for name in report.PICTURES:
        assert f"![{name}]({name}.svg)" in text
        picture = ElementTree.fromstring((tmp_path / f"new/{name}.svg").read_text())
        assert picture.tag.endswith("svg")
        assert picture.findall(".//{*}polyline")
    again = report.write(tmp_path, where, *well()[::-1], {}, judge(*well()))
    assert "**Everything holds.**" in again.read_text()
    none = report.write(tmp_path, where, outcome, [], {}, judge([], outcome))
    assert "![" not in none.read_text()


def test_bounds_of_the_benchmark() -> None:
    """O8: every committed bound is of a figure that a workload gives; of several rounds the best counts; on a slower machine bounds are as much wider, on a faster one they stay."""
    committed = json.loads(performance.BOUNDS.read_text())
    assert {each["scenario"] for each in committed["bounds"]} == {"w1", "w2", "w3", "w3big"} <= set(SCENARIOS)
    assert performance.calibration() > 0
    assert {(one.runs <= 20, one.steps <= 22) for one in map(performance.tiny, SCENARIOS.values())} == {(True, True)}
    assert performance.slower(9.2, 4.6) == 2.0
    assert performance.slower(1.0, 4.6) == 1.0
    bounds = [
        {"scenario": "w1", "figure": "runs_per_s", "what": "rate", "bound": 1000, "unit": "runs/s", "least": True},
        {"scenario": "w1", "figure": "cpu", "what": "cpu", "bound": 500, "unit": "us"},
    ]
    rounds = {"w1": [{"runs_per_s": 400, "cpu": 900}, {"runs_per_s": 600, "cpu": 1100}]}
    same, slower = (performance.held(bounds, rounds, times) for times in (1.0, 2.0))
    assert [(each.measured, each.bound, each.kept) for each in same] == [(600, 1000, False), (900, 500, False)]
    assert [(each.measured, each.bound, each.kept) for each in slower] == [(600, 500, True), (900, 1000, True)]


def test_a_bound_that_is_not_kept_is_named(tmp_path: pathlib.Path) -> None:
    """O8: whoever reads the last line of the job knows which bound was not kept, and by how much; the report says the same."""
    figures = [
        Figure("O8", "W1: one-step runs", 900, 1200, "runs/s", least=True),
        Figure("P2", "a swarm is stored", 12.5, 50, "ms"),
    ]
    said = ["NOT KEPT: O8, W1: one-step runs: at least 1200 runs/s is promised, 900 was measured"]
    assert performance.broken(figures) == said
    text = performance.write(tmp_path / "new", {"machine": "m"}, figures)
    assert "NOT KEPT: 1" in text
    assert "| O8 | W1: one-step runs | ≥ 1200 runs/s | 900 runs/s | **no** |" in text
    facts = json.loads((tmp_path / "new/performance.json").read_text())
    assert [each["kept"] for each in facts["figures"]] == [False, True]
    assert "Every bound is kept." in performance.write(tmp_path, {}, figures[1:])
