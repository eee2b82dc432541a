"""docs/flows.md, run: below each flow that the reference shows there is a case, and each key and kind is shown in one."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass
from typing import Any

import pytest
from tierflow_flow.keys import FLOW
from tierflow_flow.kinds import KINDS
from tierflow_flow.source import read_document
from tierflow_kit.cases import read_cases
from tierflow_kit.running import run_case

PAGE = (pathlib.Path(__file__).parents[3] / "docs/flows.md").read_text()
BLOCK = re.compile(r"^```yaml( case)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
UNTOLD = {"id", "env", "description", "output_schema", "concurrency", "norms", "dead_letter"}
"""Keys of flows that no case of the reference needs; they have tests elsewhere."""


@dataclass
class Shown:
    """A flow on the page, with the cases below it."""

    text: str
    cases: list[str]

    @property
    def name(self) -> str:
        found = re.search(r"^name: (\S+)", self.text, re.MULTILINE)
        return found[1] if found else "fragment"

    @property
    def document(self) -> Any:
        return read_document(self.text, "yaml").value


def shown() -> list[Shown]:
    """Every flow that the page shows in full: it has steps."""
    flows: list[Shown] = []
    for case, text in BLOCK.findall(PAGE):
        if case:
            flows[-1].cases.append(text)
        elif re.search(r"^steps:", text, re.MULTILINE):
            flows.append(Shown(text, []))
    return flows


FLOWS = shown()


@pytest.mark.parametrize("flow", FLOWS, ids=[flow.name for flow in FLOWS])
def test_every_flow_on_the_page_goes_as_it_says(flow: Shown, tmp_path: pathlib.Path) -> None:
    """E2, Q24: what the reference says of each feature, through the core."""
    assert flow.cases, f"docs/flows.md says nothing about what becomes of {flow.name}: add a block `yaml case` below it"
    (tmp_path / "flow.yaml").write_text(flow.text)
    cases = "".join(f"  - name: case\n{re.sub('^(?=.)', '    ', text, flags=re.MULTILINE)}" for text in flow.cases)
    (tmp_path / "flow.test.yaml").write_text(f"cases:\n{cases}")
    read = read_cases(tmp_path / "flow.test.yaml")
    assert [run_case(read.flow, case).differences for case in read.cases] == [() for _ in read.cases]


def _steps(document: Any) -> list[dict[str, Any]]:
    steps = document["steps"]
    return list(steps.values()) if isinstance(steps, dict) else steps


def test_every_key_and_kind_is_shown() -> None:
    """E2: a feature without an example that runs is not in the reference."""
    documents = [flow.document for flow in FLOWS]
    assert set(FLOW.keys) - {key for document in documents for key in document} <= UNTOLD
    used = {key for document in documents for step in _steps(document) for key in step}
    assert {key for kind in KINDS.values() for key in kind.section.keys} - used == set()
    assert {kind.mark for kind in KINDS.values()} <= used
