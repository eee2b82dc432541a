"""The tracked files of the repository, for tests that read them."""

import ast
import functools
import pathlib
import subprocess
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = ("libs/contracts/src/", "docs/reference/")


@functools.cache
def tracked() -> tuple[pathlib.Path, ...]:
    """All files that are tracked, or would be by `git add .`; all files, where this is no git checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        paths = [path for path in ROOT.rglob("*") if not {".git", ".venv", ".tools", "__pycache__"} & set(path.parts)]
    else:
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return tuple(sorted(path for path in paths if path.is_file()))


def name(path: pathlib.Path) -> str:
    """The path as it is written in messages."""
    return str(path.relative_to(ROOT))


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every tracked text file."""
    for path in tracked():
        try:
            yield name(path), path.read_text()
        except UnicodeDecodeError:
            continue


def modules(*places: str) -> list[pathlib.Path]:
    """Python modules that people write, below the places (all if none)."""
    found = [path for path in tracked() if path.suffix == ".py" and not name(path).startswith(GENERATED)]
    return [path for path in found if not places or name(path).startswith(places)]


def product() -> list[pathlib.Path]:
    """The modules of libraries, services and tools, without their tests."""
    return [
        path
        for path in modules("libs/", "services/", "tools/", "benchmarks/")
        if "tests" not in path.relative_to(ROOT).parts
    ]


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(), str(path))
