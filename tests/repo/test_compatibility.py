"""The contracts may grow, not break; and the generated code is what they give."""

import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources

BUF = pathlib.Path(sys.executable).with_name("buf")
BASELINE = sources.ROOT / "proto/baseline.binpb"


@pytest.fixture
def protos(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the protos that a test may change."""
    shutil.copytree(sources.ROOT / "proto", tmp_path / "proto")
    shutil.copy(sources.ROOT / "buf.yaml", tmp_path)
    return tmp_path


def breaking(directory: pathlib.Path, against: pathlib.Path = BASELINE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", "--against", against], cwd=directory, capture_output=True, text=True, check=False
    )


def change(directory: pathlib.Path, file: str, old: str, new: str) -> None:
    path = directory / "proto/tierflow" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_protos_keep_the_baseline(protos: pathlib.Path) -> None:
    """A12: nothing that the last release promised is gone."""
    done = breaking(protos)
    assert done.returncode == 0, done.stdout


def test_additions_are_compatible(protos: pathlib.Path) -> None:
    """A12: a new field, a new message and a new state are no break."""
    with (protos / "proto/tierflow/common/v1/state.proto").open("a") as file:
        file.write("\n// Added later.\nmessage AddedLater {\n  // A name.\n  string name = 1;\n}\n")
    change(
        protos,
        "executor/v1/step.proto",
        "message StepExecutionRequest {",
        "message StepExecutionRequest {\n  // Added later.\n  string added_later = 999;\n",
    )
    done = breaking(protos)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("executor/v1/step.proto", "context = 1;", "context = 91;", "Previously present field"),
        ("executor/v1/step.proto", " allocation = 3;", " grant = 3;", "changed name"),
        ("executor/v1/step.proto", "message StepExecutionRequest {", "message StepRequest {", "was deleted"),
    ],
)
def test_breaks_are_caught(protos: pathlib.Path, file: str, old: str, new: str, complaint: str) -> None:
    """A12, Lesson 1: a moved number, another name, a lost message; each is named."""
    change(protos, file, old, new)
    if "message StepExecutionRequest {" in old:
        for path in protos.rglob("*.proto"):
            path.write_text(path.read_text().replace("StepExecutionRequest", "StepRequest"))
    done = breaking(protos)
    assert done.returncode != 0
    assert complaint in done.stdout
