"""How findings, differences and cases of flows look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tierflow_cli import text

if TYPE_CHECKING:
    from tierflow_kit.cases import CaseFile
    from tierflow_kit.comparing import Change, Comparison
    from tierflow_kit.findings import Finding
    from tierflow_kit.linting import Linted
    from tierflow_kit.report import Report
    from tierflow_kit.running import CaseResult, FileResults


def cases(found: FileResults, *, verbose: bool) -> None:
    """The cases of a file, one line each, with what differs."""
    read, results = found.read, found.results
    if not results:
        return
    click.echo(f"{text.bold(str(read.path))}  {text.dim(f'{read.flow.name}@{read.flow.version}')}")
    for result in results:
        _case(read, result, verbose=verbose)
    if found.complete and (missed := found.unreached()):
        click.echo(text.dim(f"    no case reaches {', '.join(missed)}"))


def _case(read: CaseFile, result: CaseResult, *, verbose: bool) -> None:
    from tierflow_kit import spoken

    mark = click.style("✓", fg="green") if result.passed else click.style("✗", fg="red", bold=True)
    took = text.dim(spoken.duration(result.report.duration)) if result.report else ""
    click.echo(f"  {mark} {result.case.name}  {took}".rstrip())
    if not result.passed:
        click.echo(text.dim(f"    {read.path}:{result.case.line}"))
    for difference in result.differences:
        click.echo(f"    {difference}")
    if result.report and (verbose or not result.passed):
        _steps(result.report)


def _steps(report: Report) -> None:
    """How each step went."""
    from tierflow_kit import spoken
    from tierflow_kit.expecting import shown

    rows = []
    for step in report.steps.values():
        why = step.reason if step.state != "COMPLETED" else ""
        if step.failure is not None and step.state != "COMPLETED":
            why = shown(step.failure)
        at = "" if step.started_at is None else spoken.duration(step.started_at)
        end = "" if step.ended_at is None else spoken.duration(step.ended_at)
        output = spoken.value(step.output, 60) if step.output is not None else ""
        rows.append((step.id, text.state(step.state), str(step.attempts or ""), at, end, output or why[:100]))
    text.table(("STEP", "STATE", "ATTEMPTS", "FROM", "TO", "OUTPUT, OR WHY"), rows, indent=4)


def summary(found: Sequence[FileResults], broken: int) -> None:
    """One line about all of them."""
    from tierflow_kit import spoken

    results = [result for each in found for result in each.results]
    failed = sum(not result.passed for result in results)
    virtual = sum(result.report.duration for result in results if result.report)
    real = text.span(sum(result.seconds for result in results))
    said = [text.count(len(results) - failed, "case") + " as expected"]
    if failed:
        said.append(click.style(f"{failed} not", fg="red", bold=True))
    if broken:
        said.append(click.style(f"{text.count(broken, 'file')} cannot be read", fg="red", bold=True))
    click.echo(f"{', '.join(said)}; {spoken.duration(virtual)} of flows in {real}")


_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def findings(files: Sequence[Linted], found: Sequence[Finding], form: str) -> None:
    """What lint found: for people with the lines it is about, or for programs."""
    from tierflow_kit.findings import frame, github

    if form == "json":
        text.print_json([finding.plain() for finding in found])
        return
    lines = {str(file.path): file.lines for file in files}
    for finding in found:
        if form == "github":
            click.echo(github(finding))
            continue
        where = text.bold(f"{finding.file}:{finding.line}:{finding.column}")
        severity = click.style(finding.severity, fg=_COLOURS[finding.severity], bold=True)
        click.echo(f"{where}: {severity}: {finding.message}  {text.dim(_about(finding))}")
        click.echo(f"{frame(finding, lines[finding.file])}\n")
    if form == "text":
        hidden = sum(len(file.findings) for file in files) - len(found)
        more = text.dim(f"; {text.count(hidden, 'note')}, shown by --notes") if hidden else ""
        click.echo(_counted(found, len(files)) + more)


def _about(finding: Finding) -> str:
    return finding.path if finding.severity == "error" else f"{finding.path} [{finding.code}]"


def _counted(found: Sequence[Finding], files: int) -> str:
    counts = {severity: sum(finding.severity == severity for finding in found) for severity in _COLOURS}
    said = [text.count(number, severity) for severity, number in counts.items() if number]
    return f"{text.count(files, 'file')}: {', '.join(said) or 'nothing to say'}"


def comparison(found: Comparison, *, as_json: bool) -> None:
    """What changed between two flows, and whom it breaks."""
    from tierflow_kit.comparing import CALLERS, READERS, RUNNING

    if as_json:
        breaking = {whom: bool(found.breaking(whom)) for whom in (CALLERS, READERS, RUNNING)}
        text.print_json({"breaking": breaking, "changes": [change.plain() for change in found.changes]})
        return
    one, other = found.before, found.after
    click.echo(text.bold(f"{one.name}@{one.version} {one.hash[:12]} → {other.name}@{other.version} {other.hash[:12]}"))
    for change in found.changes:
        broken = f"  {click.style(f'breaks {change.breaks}: {change.why}', fg='yellow')}" if change.breaks else ""
        click.echo(f"  {_change(change)}{broken}")
    if not found.changes:
        click.echo("  nothing changed but names")
    for whom, clear, broken in (
        (CALLERS, "callers need not change", "callers may have to change what they send"),
        (READERS, "who reads the output need not change", "who reads the output may not find what was there"),
        (
            RUNNING,
            "runs under way can be moved to it",
            "runs under way can be moved to it only where they have not come to what changed",
        ),
    ):
        number = len(found.breaking(whom))
        click.echo(f"{clear}." if not number else f"{broken} ({text.count(number, 'change')}).")
    click.echo(text.dim("Runs that were accepted keep the flow that they began with, unless somebody moves them."))


def _change(change: Change) -> str:
    from tierflow_kit import spoken

    before, after = spoken.value(change.before, 60), spoken.value(change.after, 60)
    if change.kind == "added":
        return f"{click.style('+', fg='green')} {change.path}  {after}"
    if change.kind == "removed":
        return f"{click.style('-', fg='red')} {change.path}  {before}"
    sign = "~" if change.kind == "changed" else "→"
    return f"{click.style(sign, fg='cyan')} {change.path}  {before} → {after}"
