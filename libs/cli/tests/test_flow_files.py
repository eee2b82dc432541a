"""`tierflow flow`: lint, graph, diff and test of files. Nobody is asked, unless a name or an address says so."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tierflow_cli.flow_files import flow
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_flow import parse
from tierflow_testing.fake_coordinator import FakeCoordinator

ROOT = pathlib.Path(__file__).parents[3]
FLOW = """name: pay
defaults: {timeout: 10s}
steps:
  ask: {signal: approved, timeout: 2d}
  pay: {call: bank.pay, needs: ask}
"""
CASES = """handlers: {bank.pay: {output: 1, after: 2s}}
cases:
  - {name: paid, do: [{at: 1h, signal: approved}], expect: {state: COMPLETED, duration: 1h2s}}
  - {name: nobody asks, expect: {state: FAILED}}
"""


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pay.yaml").write_text(FLOW)
    (tmp_path / "pay.test.yaml").write_text(CASES)
    return tmp_path


def said(*arguments: str) -> Result:
    return CliRunner().invoke(flow, arguments)


def test_cases_are_run_and_told(files: pathlib.Path) -> None:
    """Q24, N1: without a server; a flow finds its cases, a directory all of them; the exit code says whether all went well."""
    for arguments in (("pay.yaml",), ("pay.test.yaml",), (".",), ()):
        result = said("test", *arguments)
        assert result.exit_code == 0, result.output
        assert "✓ paid  1h2s" in result.output
        assert "2 cases as expected; 2d1h2s of flows in" in result.output
    assert "1 case as expected" in said("test", "-k", "NOBODY").output
    assert "COMPLETED" in said("test", "-v").output
    (files / "pay.test.yaml").write_text(CASES.replace("1h2s", "1h3s"))
    result = said("test")
    assert result.exit_code == 1
    assert "✗ paid" in result.output
    assert "duration: expected 1h3s, found 1h2s" in result.output
    assert "1 case as expected, 1 not" in result.output
    plain = json.loads(said("test", "--json").stdout)
    assert [(each["case"], each["passed"], each["line"]) for each in plain] == [
        ("paid", False, 3),
        ("nobody asks", True, 4),
    ]


def test_steps_that_no_case_reaches_are_named(files: pathlib.Path) -> None:
    """Q24: what is not tested is said, where all cases were run."""
    (files / "pay.test.yaml").write_text(
        CASES.split("  - {name: paid")[0] + "  - {name: nobody asks, expect: {state: FAILED}}\n"
    )
    assert "no case reaches pay" in said("test").output


def test_schemas_are_printed() -> None:
    """E2: for editors, where there is no checkout."""
    for option, name in (((), "flow"), (("--tests",), "flow-test")):
        assert said("schema", *option).output == (ROOT / f"schema/{name}.schema.json").read_text()


def test_what_cannot_be_tested_is_said(files: pathlib.Path) -> None:
    """Q24: no file, no cases, a test file that is wrong: each with what to do and an exit code of its own."""
    assert said("test", "nowhere.yaml").exit_code == 66
    (files / "alone.yaml").write_text(FLOW)
    result = said("test", "alone.yaml")
    assert (result.exit_code, "write some into alone.test.yaml" in result.stderr) == (66, True)
    (files / "pay.test.yaml").write_text("cases: [{nmae: x, expect: {}}]")
    result = said("test")
    assert result.exit_code == 64
    assert "pay.test.yaml:1: cases[0].nmae: unknown key; did you mean name?" in result.stderr


def test_lint_shows_the_line(files: pathlib.Path) -> None:
    """E5: people see the line and a mark; errors are 64, warnings are not, unless they are to be."""
    assert said("lint", ".").output == "2 files: nothing to say\n"
    (files / "pay.yaml").write_text(FLOW.replace("needs: ask", "neds: ask").replace(", timeout: 2d", ""))
    result = said("lint", "pay.yaml")
    assert result.exit_code == 64
    assert result.output.splitlines() == [
        "pay.yaml:5:25: error: unknown key  steps.pay.neds",
        "4 |   ask: {signal: approved}",
        "5 |   pay: {call: bank.pay, neds: ask}",
        "  |                         ^^^^",
        "  = did you mean needs?",
        "",
        "1 file: 1 error",
    ]
    (files / "pay.yaml").write_text(FLOW.replace(", timeout: 2d", ""))
    result = said("lint", "pay.yaml", "--format", "github")
    assert (result.exit_code, result.output.split(",")[0]) == (0, "::warning file=pay.yaml")
    assert said("lint", "pay.yaml", "--strict").exit_code == 1
    [finding] = json.loads(said("lint", "pay.yaml", "--format", "json").output)
    assert (finding["code"], finding["line"], finding["column"]) == ("endless-wait", 4, 9)
    assert said("lint", "nowhere.yaml").exit_code == 66
    (files / "pay.yaml").write_text(FLOW.replace("defaults: {timeout: 10s}\n", ""))
    assert said("lint", "pay.yaml").output == "1 file: nothing to say; 1 note, shown by --notes\n"
    assert "[default-timeout]" in said("lint", "pay.yaml", "--notes").output


def test_graph_draws(files: pathlib.Path) -> None:
    """E2: a tree for the terminal, Mermaid for documents; a broken flow is told as lint tells it."""
    assert (
        said("graph", "pay.yaml").output
        == "pay@1\n└─ ask     signal approved for at most 2d\n   └─ pay  call bank.pay\n"
    )
    assert said("graph", "pay.yaml", "--mermaid").output.startswith("flowchart TD\n")
    (files / "pay.yaml").write_text("name: x\n")
    result = said("graph", "pay.yaml")
    assert (result.exit_code, "steps is missing" in result.output) == (64, True)


def test_diff_says_what_changed(files: pathlib.Path) -> None:
    """E2: between files, without a server; whom it breaks is said, and can fail a build."""
    (files / "new.yaml").write_text(
        FLOW.replace("bank.pay,", "bank.send,").replace("name: pay", "name: pay\ninput: {n: integer}")
    )
    result = said("diff", "pay.yaml", "new.yaml")
    assert result.exit_code == 0
    assert '~ steps.pay.call  "bank.pay" → "bank.send"' in result.output
    assert "breaks callers: it is required" in result.output
    assert "callers may have to change what they send" in result.output
    assert said("diff", "pay.yaml", "new.yaml", "--fail-on-breaking").exit_code == 1
    assert "nothing changed but names" in said("diff", "pay.yaml", "pay.yaml").output
    assert json.loads(said("diff", "pay.yaml", "new.yaml", "--json").output)["breaking"] == {
        "callers": True,
        "readers": False,
        "running": False,
    }
    assert said("diff", "pay.yaml", "gone.yaml").exit_code == 66


async def test_diff_asks_for_registered_flows(fake: FakeCoordinator, tierflow: Any, files: pathlib.Path) -> None:
    """E2, N1: a name is a registered flow; the server has its definition."""
    stored = parse(FLOW.replace("timeout: 2d", "timeout: 1d"))
    known = flow_pb2.Flow(name="pay", version="3", hash=stored.hash, definition_json=stored.canonical)
    fake.answers["GetFlow"] = api.GetFlowResponse(flow=known)
    result = await tierflow("flow", "diff", "pay@3", str(files / "pay.yaml"))
    assert result.code == 0, result.err
    assert '~ steps.ask.timeout  "1d" → "2d"' in result.out


async def test_lint_asks_for_handlers(fake: FakeCoordinator, tierflow: Any, files: pathlib.Path) -> None:
    """E5: with an address, handlers that nobody offers are errors at the steps that call them."""
    fake.answers["CheckFlow"] = api.CheckFlowResponse(check=flow_pb2.FlowCheck(missing_handlers=["bank.pay"]))
    result = await tierflow("flow", "lint", str(files / "pay.yaml"), "--address", fake.address)
    assert result.code == 64
    assert "no living executor offers bank.pay" in result.out
