"""What compiling and filling in costs: printed (`pytest -s`), not asserted. Asserted is that nothing grows faster than the flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tierflow_expressions.scope import PlainScope
from tierflow_expressions.templates import compile_template
from tierflow_flow import parse
from tierflow_flow.compiling import compile_flow
from tierflow_flow.definition import Template
from tierflow_flow.parsing import _plain


def measured(label: str, action: Callable[[], Any], times: int) -> float:
    """Microseconds of processor time for one, the least of five series: what else the machine does counts for nothing."""
    series = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            action()
        series.append((time.process_time() - start) / times)
    micros = min(series) * 1e6
    print(f"{label:60} {micros:12.1f} us")
    return micros


class Raw(PlainScope):
    """Has the text of every output at hand."""

    def raw(self, name: str, path: tuple[str | int, ...]) -> str | None:
        """The text."""
        return '{"a":1}' if name == "steps" else None


def template(source: Any) -> Template:
    """A template without problems."""
    return compile_template(source, lambda path, text: None)


def test_cost_of_filling_in() -> None:
    """E15: constants are ready, whole references are handed on; values are right while they are timed."""
    scope = Raw({"input": {"n": 3, "list": [1, 2, 3]}, "steps": {"a": {"output": {"a": 1}}}, "item": "x", "index": 7})
    cases = [
        ({"a": 1, "b": [True, "text"]}, '{"a":1,"b":[true,"text"]}'),
        ("${{ steps.a.output }}", '{"a":1}'),
        ({"files": "${{ steps.a.output }}", "path": "${{ item }}"}, '{"files":{"a":1},"path":"x"}'),
        ({"text": "number ${{ index }} of ${{ input.n }}"}, '{"text":"number 7 of 3"}'),
        ("${{ input.n > 2 && size(input.list) == 3 }}", "true"),
        ("${{ input.list.filter(x, x > 1) }}", "[2,3]"),
    ]
    for source, text in cases:
        compiled = template(source)
        assert compiled.resolve_json(scope) == text
        measured(f"resolve_json {source}", lambda compiled=compiled: compiled.resolve_json(scope), 2_000)


def flow_text(steps: int) -> str:
    """A flow of a chain whose steps read the one before."""
    lines = "".join(
        f"  s{i}: {{call: echo, with: {{v: '${{{{ steps.s{i - 1}.output }}}}'}}}}\n" if i else "  s0: {call: echo}\n"
        for i in range(steps)
    )
    return f"name: big\nsteps:\n{lines}"


def test_cost_of_compiling_grows_with_the_flow_and_no_faster() -> None:
    """E5: ten times the steps cost about ten times as much; forty times would be a loop within a loop."""
    small, large = flow_text(800), flow_text(8_000)
    costs = [
        measured(f"parse, {text.count('call')} steps", lambda text=text: parse(text), 1) for text in (small, large)
    ]
    assert costs[1] < 40 * costs[0]
    canonical = parse(large).canonical
    measured("from_canonical, 8000 steps, not cached", lambda: compile_flow(_plain(canonical), canonical), 1)
