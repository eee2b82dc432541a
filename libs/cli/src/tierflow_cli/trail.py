"""`tierflow trail`: who did what."""

from __future__ import annotations

import click

from tierflow_cli.connection import Connection, as_json, connected


@click.command()
@click.argument("subject", metavar="[ID]", default="")
@click.option("--by", default="", help="Only by this user.")
@click.option("--action", "actions", multiple=True, help="Only this RPC, such as CancelSwarm; several may be given.")
@click.option("--limit", default=100, show_default=True)
@as_json
@connected
async def trail(
    connection: Connection, *, subject: str, by: str, actions: tuple[str, ...], limit: int, as_json: bool
) -> None:
    """List who asked for which change, and what came of it: of everything, or about a swarm, a run, a flow."""
    from tierflow_cli import text

    found = connection.client.audit(subject=subject, user=by, actions=actions, limit=limit)
    entries = [entry async for entry in found]
    if as_json:
        text.print_json(entries)
        return
    rows = [
        (text.moment(one.time), one.user_id, one.action, one.subject, one.code or "open", one.result, one.reason)
        for one in entries
    ]
    text.table(("WHEN", "WHO", "WHAT", "OF", "CAME OF IT", "MADE", "WHY"), rows)
