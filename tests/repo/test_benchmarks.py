"""What the benchmarks compute; what they measure is run by hand."""

import asyncio
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks import measuring
from benchmarks.curves.plot import axis, draw
from benchmarks.curves.stage import Panel, levels, median
from benchmarks.peers.bench import order
from benchmarks.peers.driver import closed_loop
from benchmarks.peers.report import COLUMNS, summary, table
from benchmarks.thresholds.figures import Figure
from benchmarks.thresholds.figures import table as figures_table


async def test_the_loop_performs_every_run_once() -> None:
    """O8: as many runs as asked for, never more at once, and whatever fails is counted."""
    numbers: list[int] = []
    under_way = most = 0

    async def once(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        numbers.append(number)
        if number == 7:
            raise LookupError("seven")

    took = await closed_loop(once, 20, 4, 10.0)
    assert sorted(numbers) == list(range(20))
    assert most == 4
    assert len(took["latencies"]) == 19
    assert took["errors"] == ["LookupError('seven')"]


async def test_the_loop_ends_in_time() -> None:
    """O8: a product that hangs is told, not waited for."""

    async def never(_: int) -> None:
        await asyncio.Event().wait()

    took = await closed_loop(never, 3, 2, 0.05)
    assert took["latencies"] == []
    assert took["errors"] == ["3 of 3 had not ended after 0.05 s"]


def test_medians_and_ratios() -> None:
    """O8: a product counts by the median of its best variant; more than 1 is better, whichever way the figure goes."""

    def line(product: str, variant: str, rate: float, p99: float) -> dict[str, object]:
        return {"product": product, "variant": variant, "w1": {"runs_per_s": rate, "p99_ms": p99}}

    lines = [line("tierflow", "a", rate, 10) for rate in (100, 300, 200)]
    lines += [line("one", "slow", 40, 50), line("one", "fast", 50, 60), line("two", "a", 80, 20)]
    found = summary(lines)
    rate, p99 = COLUMNS[0], COLUMNS[2]
    assert found["tierflow"][rate] == 200
    assert (found["one"][rate], found["one"][p99]) == (50, 50)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(found).splitlines()]
    assert rows[0] == ["", "tierflow", "one", "two", "times better than the best peer"]
    assert rows[2] == ["W1 runs/s", "200", "50", "80", "2.50"]
    assert rows[3] == ["W1 p99 ms", "10", "50", "20", "2.00"]


def test_a_busy_machine_keeps_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O8: figures that were measured beside other work are not written down."""
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    assert not measuring.keep("some", [{"load_before": 1.6}])
    assert list(tmp_path.iterdir()) == []
    assert measuring.keep("some", [{"load_before": 0.3}])
    assert (tmp_path / "some.jsonl").read_text() == '{"load_before": 0.3}\n'


def test_what_is_not_there_is_refused() -> None:
    """O8: a misspelt peer or workload is no empty measurement."""
    with pytest.raises(SystemExit, match="there is no restat, there are"):
        order({"PEERS": "restat"})
    with pytest.raises(SystemExit, match="there is no w4"):
        order({"OPS": "w1 w4"})
    assert [product.name for product in order({"PEERS": "dbos"}).products] == ["tierflow", "dbos"]


@pytest.mark.parametrize("log", [False, True])
def test_axes_hold_their_values(log: bool) -> None:
    """O8: every value has its place between the ends."""
    for values in ([3.0], [10.0, 100_000.0], [0.04, 7.0, 1234.0], [0.0, 5.0]):
        found = axis(values, log=log)
        assert all(0 <= found.share(value) <= 1 for value in values if found.has(value))
        assert (found.marks[0], found.marks[-1]) == pytest.approx((found.low, found.high))


def test_pictures_show_every_point() -> None:
    """O8: lines have a dot for each point, bars show the worst repetition."""
    points = [{"x": x, "y": x * 2, "s": s, "name": "<n>"} for s in "ab" for x in (1, 2, 3)]
    root = ElementTree.fromstring(draw([Panel("x", "y", "t", "s"), Panel("name", "y", "u", bars=True)], points))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 6
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"t", "u", "a", "b", "<n>", "6"} <= set(texts)


def test_levels_and_medians() -> None:
    """O8: what is added between levels; the middle of every figure."""
    assert levels([0, 10, 100]) == [(0, 0), (10, 10), (100, 90)]
    assert median([{"a": 1, "b": "x"}, {"a": 9, "b": "x"}, {"a": 2, "b": "x"}]) == {"a": 2, "b": "x"}


def test_a_broken_promise_is_told() -> None:
    """P15: a figure is held against its bound, from above or from below."""
    slow, fast = Figure("P2", "stored", 51, 50, "ms"), Figure("P2", "stored", 50, 50, "ms")
    few = Figure("P17", "scaled", 7.9, 8, "times", least=True)
    assert [each.kept for each in (slow, fast, few)] == [False, True, False]
    assert figures_table([slow]).splitlines()[-1] == "| P2 | stored | ≤ 50 ms | 51 ms | **no** |"


def test_the_latest_measurement_keeps_every_promise() -> None:
    """E14, F30, H9, P1, P2, P3, P4, P5, P6, P7, P8, P9, P11, P15, P16, P17: what `make thresholds` recorded last, row by row."""
    lines = [json.loads(line) for line in (measuring.RESULTS / "thresholds.jsonl").read_text().splitlines()]
    latest = [line for line in lines if line["at"] == lines[-1]["at"]]
    measured = {row for line in latest for row in line["rows"].split(", ")}
    assert {"E14", "F30", "H9", "P11", "P15", "P16", "P17", *(f"P{number}" for number in range(1, 10))} == measured
    assert [line["what"] for line in latest if not line["kept"]] == []
