"""`tierflow flow`: check, draw, compare and test flows in files. No server is asked, unless a name or an address says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import FAILED, INVALID, NOT_FOUND, Connection, connected, guarded, refuse

if TYPE_CHECKING:
    from tierflow_kit.cases import CaseFile
    from tierflow_kit.linting import Linted
    from tierflow_kit.running import CaseResult, FileResults
    from tierflow_kit.sources import Flow


@click.group()
def flow() -> None:
    """Check, draw, compare and test flows in files; needs no server."""


@flow.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option("--notes", is_flag=True, help="Show also what is merely worth a thought.")
@click.option("--address", help="A coordinator, host:port: says also which handlers no living executor offers.")
def lint(paths: tuple[Path, ...], form: str, strict: bool, notes: bool, address: str | None) -> None:
    """Say everything that is wrong with flows and test files, and what is suspicious. Of a directory: all that look like flows.

    A comment `# lint: ignore NAME` on the line, or above it, silences a warning or note.
    """
    from tierflow_kit.linting import lint as look

    from tierflow_cli import flow_reports

    files = [look(path) for path in _flow_files(paths)]
    if address is not None and (code := guarded(lambda: _ask_for_handlers(Connection(address, None, None), files))):
        sys.exit(code)
    hidden = set() if notes else {"note"}
    found = [finding for file in files for finding in file.findings if finding.severity not in hidden]
    flow_reports.findings(files, found, form)
    sys.exit(_severest({finding.severity for finding in found}, strict=strict))


def _severest(severities: set[str], *, strict: bool) -> int:
    if "error" in severities:
        return INVALID
    return FAILED if strict and "warning" in severities else 0


async def _ask_for_handlers(connection: Connection, files: list[Linted]) -> None:
    try:
        for file in files:
            if file.flow is not None:
                checked = await connection.client.check_flow(file.path)
                file.missing(checked.missing_handlers)
    finally:
        await connection.close()


def _flow_files(paths: tuple[Path, ...]) -> list[Path]:
    from tierflow_kit.linting import looks_like_one

    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
            found.update(dict.fromkeys(file for file in below if looks_like_one(file)))
        elif path.exists():
            found[path] = None
        else:
            refuse(f"there is no file {path}", NOT_FOUND)
    return list(found)


@flow.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--mermaid", is_flag=True, help="Write a Mermaid flowchart, for Markdown pages.")
def graph(path: Path, mermaid: bool) -> None:
    """Draw a flow: a tree in the terminal, or a Mermaid flowchart."""
    from tierflow_kit import outlines

    drawn = _load(path)
    click.echo(outlines.mermaid(drawn) if mermaid else outlines.tree(drawn))


@flow.command()
@click.argument("before")
@click.argument("after")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--fail-on-breaking", is_flag=True, help="Exit with 1 where callers or readers of the output break.")
@connected
async def diff(connection: Connection, *, before: str, after: str, as_json: bool, fail_on_breaking: bool) -> int | None:
    """Say what changed between two flows, and whom it breaks. Each is a file, or a registered flow: name or name@version."""
    from tierflow_kit.comparing import CALLERS, READERS, compare

    from tierflow_cli import flow_reports

    one, other = [await _file_or_registered(connection, text) for text in (before, after)]
    found = compare(one, other)
    flow_reports.comparison(found, as_json=as_json)
    broken = found.breaking(CALLERS) or found.breaking(READERS)
    return FAILED if fail_on_breaking and broken else None


def _is_file(text: str) -> bool:
    return Path(text).exists() or Path(text).suffix in (".yaml", ".yml", ".json")


async def _file_or_registered(connection: Connection, text: str) -> Flow:
    from tierflow_kit.sources import stored

    if _is_file(text):
        return _load(Path(text))
    return stored((await connection.client.get_flow(text)).definition_json)


def _load(path: Path) -> Flow:
    """The flow in a file; where it is not one, says why and ends the command."""
    from tierflow_kit.linting import lint as look

    from tierflow_cli import flow_reports

    if not path.is_file():
        refuse(f"there is no file {path}", NOT_FOUND)
    file = look(path)
    if file.flow is None:
        flow_reports.findings([file], file.findings, "text")
        sys.exit(INVALID)
    return file.flow


@flow.command()
@click.option("--tests", is_flag=True, help="That of test files.")
def schema(tests: bool) -> None:
    """Print the JSON Schema of flows, for editors."""
    from tierflow_kit import case_keys, sources

    click.echo(case_keys.schema_text() if tests else sources.schema_text(), nl=False)


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
