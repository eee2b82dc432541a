"""`tierflow verify`: whether histories are as they were written."""

from __future__ import annotations

import click

from tierflow_cli.connection import FAILED, Connection, as_json, connected


@click.command()
@click.argument("entity_id", metavar="ID")
@as_json
@connected
async def verify(connection: Connection, *, entity_id: str, as_json: bool) -> int | None:
    """Read the whole history of a swarm and its runs, or of a run, and say whether every event is there as it was written."""
    from tierflow_cli import text

    found = await connection.client.verify(entity_id)
    broken = [check for check in found if check.broken_at]
    if as_json:
        text.print_json(found)
        return FAILED if broken else None
    for check in found:
        if check.broken_at:
            said = f"{text.bold('broken')} at event {check.broken_at}: {check.problem}"
        elif check.unproven_events:
            said = f"{check.unproven_events} of {check.events} events were stored before there was a proof"
        else:
            said = f"intact: {text.count(check.events, 'event')}, head {check.head}"
        click.echo(f"{check.entity_id}  {said}")
    return FAILED if broken else None
