"""Files of plans: told from files of flows, with flows beside them."""

import pathlib

import click
import pytest
from tierflow_cli.submitting import plan_in

ROOT = pathlib.Path(__file__).parents[3]


def test_a_plan_has_its_flows_beside_it() -> None:
    """B17: paths of flows count from the plan's directory, wherever the command is run."""
    found = plan_in(str(ROOT / "examples/triage/plan.yaml"))
    assert found is not None
    assert found["runs"]["triage"]["flow"] == str(ROOT / "examples/triage/triage.yaml")


def test_json_and_lists(tmp_path: pathlib.Path) -> None:
    """B17: JSON as well; runs by id or listed; names of registered flows stay names."""
    path = tmp_path / "plan.json"
    path.write_text(
        '{"runs": [{"id": "a", "flow": "one"}, {"id": "b", "flow": "${{ runs.a.output }}", "among": ["x.yaml", "y"]}]}'
    )
    found = plan_in(str(path))
    assert found is not None
    assert found["runs"][0]["flow"] == "one"
    assert found["runs"][1]["among"] == [str(tmp_path / "x.yaml"), "y"]


@pytest.mark.parametrize("name", ["hello.yaml", "clean-up.json", "research.yaml"])
def test_flows_are_no_plans(name: str) -> None:
    """B17: what is a flow is submitted as one; so are registered names."""
    assert plan_in(str(ROOT / "examples" / name)) is None
    assert plan_in(name) is None


def test_a_file_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    """B17: said, and not sent."""
    path = tmp_path / "plan.yaml"
    path.write_text("runs: [")
    with pytest.raises(click.UsageError, match="cannot be read"):
        plan_in(str(path))
