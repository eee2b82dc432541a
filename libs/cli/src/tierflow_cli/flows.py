"""`tierflow flows`: register, list, check and show flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tierflow_cli.connection import FORBIDDEN, INVALID, NOT_FOUND, Connection, as_json, connected

if TYPE_CHECKING:
    from tierflow_contracts.common.v1.flow_pb2 import FlowCheck


@click.group()
def flows() -> None:
    """Register, list, check and show flows."""


@flows.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@as_json
@connected
async def register(connection: Connection, *, paths: tuple[str, ...], as_json: bool) -> None:
    """Validate and store flows from files. The same text again changes nothing."""
    from pathlib import Path

    from tierflow_cli import text

    client, stored = connection.client, []
    for path in paths:
        flow, created = await client.register_flow(Path(path))
        stored.append({**text.plain(flow), "created": created})
        if not as_json:
            click.echo(
                f"{text.bold(f'{flow.name}@{flow.version}')}  {flow.hash[:12]}  {'stored' if created else 'was stored before'}"
            )
    if as_json:
        text.print_json(stored)


@flows.command("list")
@click.argument("name", required=False, default="")
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True)
@as_json
@connected
async def list_flows(connection: Connection, *, name: str, limit: int, as_json: bool) -> None:
    """List registered flows, all or the versions of one."""
    from tierflow_cli import text

    found = [flow async for flow in connection.client.flows(name, limit=limit)]
    if as_json:
        text.print_json(found)
        return
    rows = [
        (f.name, f.version, f.hash[:12], str(f.steps), ", ".join(f.handlers), (f.description.splitlines() or [""])[0])
        for f in found
    ]
    text.table(("FLOW", "VERSION", "HASH", "STEPS", "HANDLERS", "IS FOR"), rows)


@flows.command()
@click.argument("flow")
@as_json
@connected
async def check(connection: Connection, *, flow: str, as_json: bool) -> int | None:
    """Say everything that is wrong with FLOW (a name or a path) and whether it could run now; store nothing."""
    from tierflow_cli import text

    found = await connection.client.check_flow(flow)
    refused = any(each.refuses for each in found.unmet)
    code = INVALID if found.problems else NOT_FOUND if found.missing_handlers else FORBIDDEN if refused else None
    if as_json:
        text.print_json(found)
        return code
    _show_check(flow, found)
    if code is None:
        click.echo(
            f"{text.bold(f'{found.flow.name}@{found.flow.version}')} is valid and could run now: {text.count(found.flow.steps, 'step')}"
        )
    return code


def _show_check(flow: str, found: FlowCheck) -> None:
    from tierflow_cli import text

    for problem in found.problems:
        click.echo(
            f"{flow}:{problem.line or ''}{':' if problem.line else ''} {text.bold(problem.field)}: {problem.description}"
        )
    for handler in found.missing_handlers:
        click.echo(
            f"no living executor offers {text.bold(handler)}; start one with: tierflow executor --handlers YOUR_PACKAGE"
        )
    for each in found.unmet:
        if each.code != "HANDLER_NOT_FOUND" or not each.field.endswith(".call"):
            doubt = "" if each.refuses else "perhaps: "
            click.echo(f"{doubt}{text.bold(each.field)}: {each.description}; {each.hint}")


@flows.command()
@click.argument("flow")
@as_json
@connected
async def show(connection: Connection, *, flow: str, as_json: bool) -> None:
    """Show a flow's definition. FLOW is name or name@version."""
    import json

    from tierflow_cli import text

    found = await connection.client.get_flow(flow)
    if as_json:
        text.print_json(found)
        return
    text.fields(
        [
            ("flow", text.bold(f"{found.name}@{found.version}")),
            ("hash", found.hash),
            ("is for", found.description),
            ("handlers", ", ".join(found.handlers)),
        ]
    )
    click.echo()
    click.echo(json.dumps(json.loads(found.definition_json), indent=2, ensure_ascii=False))
