"""`tierflow checkpoint` and `checkpoints`: named places in the history of a swarm."""

from __future__ import annotations

import click

from tierflow_cli.connection import Connection, as_json, connected

_id = click.argument("entity_id", metavar="ID")


@click.command()
@_id
@click.argument("name")
@click.option("--reason", default="", help="Why; kept with it.")
@as_json
@connected
async def checkpoint(connection: Connection, *, entity_id: str, name: str, reason: str, as_json: bool) -> None:
    """Name the place up to which a swarm has come; `rerun` and `fork` can begin there."""
    from tierflow_cli import text
    from tierflow_cli.following import swarm_of

    made = await connection.client.checkpoint(await swarm_of(connection.client, entity_id), name, reason)
    if as_json:
        text.print_json(made)
    else:
        click.echo(f"{made.name}  event {made.run.seq} of the run, hash {made.run.hash}")


@click.command()
@_id
@as_json
@connected
async def checkpoints(connection: Connection, *, entity_id: str, as_json: bool) -> None:
    """List the checkpoints of a swarm, newest first."""
    from tierflow_cli import text
    from tierflow_cli.following import swarm_of

    found = await connection.client.checkpoints(await swarm_of(connection.client, entity_id))
    if as_json:
        text.print_json(found)
        return
    rows = [
        (one.name, str(one.run.seq or ""), text.ago(one.swarm.created_at), one.swarm.actor, one.swarm.reason)
        for one in found
    ]
    text.table(("CHECKPOINT", "EVENT", "MADE", "BY", "REASON"), rows)
