"""The tutorials, followed to the letter: their files are written, their commands are run, what they promise is looked at."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from tierflow_testing.stack import Stack, StackOptions

pytestmark = pytest.mark.slow
PAGES = pathlib.Path(__file__).resolve().parents[2] / "docs/tutorials"
BEFOREHAND = ("make setup", "source ", "tierflow demo", "tierflow dev")
"""What the test has done in its own way: it is in an environment, and its stack runs."""


def _follow(page: str, directory: pathlib.Path, *, handlers: tuple[str, ...] = ()) -> dict[str, str]:
    """Runs a page; returns what each command wrote on standard output."""
    commands = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", (PAGES / page).read_text(), re.S | re.M):
        if language == "sh":
            commands += [line for line in block.splitlines() if not line.startswith(BEFOREHAND)]
        elif title := re.match(r"# (\S+\.\w+)\n", block):
            (directory / title[1]).write_text(block)
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    options = StackOptions(handlers=handlers, environment={"PYTHONPATH": str(directory)})
    said = {}
    with Stack(directory / "stack", options) as stack:
        environment = {**os.environ, **stack.environment(), "PATH": path}
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said[command] = said.get(command, "") + done.stdout
    return said


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("tutorial")


def test_the_first_flow(directory: pathlib.Path) -> None:
    """Q25, A14, O3: check, submit, wait, watch, list; the same request id gives the same answer."""
    said = _follow("first-flow.md", directory)
    first = next(text for command, text in said.items() if command.startswith("tierflow submit") and "Grace" in command)
    assert '"Hello Ada",' in first
    assert '"how_many": 2' in first
    assert "2 files: nothing to say" in said["tierflow flow lint greet.yaml greet.test.yaml"]
    assert "map text.join over input.names" in said["tierflow flow graph greet.yaml"]
    assert "1 case as expected" in said["tierflow flow test greet.yaml"]
    assert "is valid and could run now" in said["tierflow flows check greet.yaml"]
    assert said["tierflow runs"].count("COMPLETED") == 2  # so far
    twice = next(text for command, text in said.items() if "--request-id letter-1" in command)
    assert twice.count('"Hello Ada"') == 2


def test_a_handler_of_your_own(directory: pathlib.Path) -> None:
    """Q25, K10, F6, Q27: a typed handler, a retry with the same key, and its logs."""
    said = _follow("handler.md", directory, handlers=("shop",))
    assert "shop.charge" in said["tierflow executors"]
    assert '"attempt": 2' in said["tierflow submit order.yaml -i number=17 --wait"]
    logs = next(text for command, text in said.items() if command.startswith("tierflow logs"))
    assert "charging 1250 cents, attempt 1" in logs
    assert "charging 1250 cents, attempt 2" in logs


def test_submitting_from_python(directory: pathlib.Path) -> None:
    """B12, H22, F23: the program of the page, as it is there."""
    lines = _follow("python.md", directory)["python first.py"].splitlines()
    assert lines[0] == "{'lines': ['Hello Ada', 'Hello Grace']}"
    assert "100" in lines
    assert lines[-1].endswith(("lines[0]", "lines"))
    assert any(line.startswith("swarm_ended") for line in lines)
