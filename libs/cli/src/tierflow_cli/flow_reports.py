"""How cases of flows look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tierflow_cli import text

if TYPE_CHECKING:
    from tierflow_kit.report import Report
    from tierflow_kit.running import FileResults


def cases(found: FileResults, *, verbose: bool) -> None:
    """The cases of a file, one line each, with what differs."""
    from tierflow_kit import spoken

    read, results = found.read, found.results
    if not results:
        return
    click.echo(f"{text.bold(str(read.path))}  {text.dim(f'{read.flow.name}@{read.flow.version}')}")
    for result in results:
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
