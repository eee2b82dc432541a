"""`tierflow flow`: check, draw, compare and test flows in files. No server is asked, unless a name or an address says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import FAILED, INVALID, NOT_FOUND, refuse

if TYPE_CHECKING:
    from tierflow_kit.cases import CaseFile
    from tierflow_kit.running import CaseResult, FileResults


@click.group()
def flow() -> None:
    """Check, draw, compare and test flows in files; needs no server."""


@flow.command("test")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option("-k", "words", default="", help="Only cases whose name holds these words.")
@click.option("-v", "--verbose", is_flag=True, help="Show how each step went, also where all is as expected.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def test(paths: tuple[Path, ...], words: str, verbose: bool, as_json: bool) -> None:
    """Run the cases of test files on a virtual clock with faked handlers.

    PATH is a flow (its cases are beside it in NAME.test.yaml), a test file, or a directory; without one, this directory.
    """
    from tierflow_kit.running import run_file

    from tierflow_cli import flow_reports, text

    files = [_read(path) for path in _test_files(paths or (Path(),))]
    readable = [read for read in files if read is not None]
    found = []
    for read in readable:
        found.append(run_file(read, words))
        if not as_json:
            flow_reports.cases(found[-1], verbose=verbose)
    if as_json:
        text.print_json([_plain(each.read, result) for each in found for result in each.results])
    else:
        flow_reports.summary(found, len(files) - len(readable))
    sys.exit(_exit_code(found, broken=len(readable) < len(files)))


def _exit_code(found: list[FileResults], *, broken: bool) -> int:
    if broken:
        return INVALID
    return 0 if all(result.passed for each in found for result in each.results) else FAILED


def _test_files(paths: tuple[Path, ...]) -> list[Path]:
    from tierflow_kit.cases import cases_beside

    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(sorted([*path.rglob("*.test.yaml"), *path.rglob("*.test.yml")])))
        elif not path.exists():
            refuse(f"there is no file {path}", NOT_FOUND)
        elif (beside := cases_beside(path)) is None:
            refuse(f"{path} has no cases beside it; write some into {path.with_suffix('.test.yaml')}", NOT_FOUND)
        else:
            found[beside] = None
    if not found:
        refuse(f"no *.test.yaml below {', '.join(map(str, paths))}", NOT_FOUND)
    return list(found)


def _read(path: Path) -> CaseFile | None:
    """A test file; None where it is wrong, which is told."""
    from tierflow_kit.cases import read_cases
    from tierflow_kit.sources import FlowError

    try:
        return read_cases(path)
    except FlowError as error:
        for problem in error.problems:
            click.echo(f"{path}:{problem.line or 1}: {problem.path}: {problem.description}", err=True)
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"{path}: {error}", err=True)
    return None


def _plain(read: CaseFile, result: CaseResult) -> dict[str, Any]:
    return {
        "file": str(read.path),
        "flow": str(read.flow_path),
        "line": result.case.line,
        "case": result.case.name,
        "passed": result.passed,
        "differences": list(result.differences),
        "virtual_microseconds": result.report.duration if result.report else None,
        "seconds": round(result.seconds, 6),
    }
