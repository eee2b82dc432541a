"""The Makefile and what continuous integration runs."""

import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources

MAKEFILE = (sources.ROOT / "Makefile").read_text()


def test_every_target_is_explained() -> None:
    """O3: `make help` lists every target that is for people, with what it does."""
    targets = set(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)) - {"python"}
    text = subprocess.run(["make", "-s", "help"], cwd=sources.ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}
    assert set(listed) == targets
    assert all(re.match(r"[A-Z].{10,}", explanation) for explanation in listed.values())


def test_recipes_name_existing_files() -> None:
    """O3: what the Makefile runs exists."""
    named = set(re.findall(r"(?<![\w./-])((?:tools|benchmarks|tests)/[\w./-]+\.(?:py|txt))", MAKEFILE))
    assert named
    assert [name for name in sorted(named) if not (sources.ROOT / name).exists()] == []


def test_an_old_python_is_refused(tmp_path: pathlib.Path) -> None:
    """O3: on a machine without a usable Python the error says what to do."""
    old, bare = tmp_path / "old", tmp_path / "bare"
    old.write_text("#!/bin/sh\nexit 1\n")
    bare.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    for program, complaint in ((old, "older than 3.11"), (bare, "ensurepip")):
        program.chmod(0o755)
        command = ["make", "-s", "python", f"PYTHON={program}"]
        done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert complaint in done.stderr
        assert "PYTHON=" in done.stderr


def test_integration_runs_check_and_test() -> None:
    """O3: .ci/run is a program, runs both, and stops at the first failure."""
    program = sources.ROOT / ".ci/run"
    text = program.read_text()
    assert os.access(program, os.X_OK)
    assert subprocess.run(["bash", "-n", program], check=False).returncode == 0
    assert "set -euo pipefail" in text
    assert re.findall(r"^make -s (\w+)$", text, re.MULTILINE) == ["check", "test"]
