"""`tierflow explain`: why something waits."""

from __future__ import annotations

import click

from tierflow_cli.connection import Connection, as_json, connected


@click.command()
@click.argument("entity_id", metavar="ID")
@click.argument("step_id", required=False, default="", metavar="[STEP]")
@as_json
@connected
async def explain(connection: Connection, *, entity_id: str, step_id: str, as_json: bool) -> None:
    """Say why a swarm, a run or a step of it waits: for what, who holds it, until when."""
    from tierflow_contracts.common.v1.explanation_pb2 import BlockerKind

    from tierflow_cli import text

    found = await connection.client.explain(entity_id, step_id)
    if as_json:
        text.print_json(list(found))
        return
    for explanation in found:
        what = f"{explanation.entity_id} {explanation.step_id}".strip()
        click.echo(f"{text.bold(what)}  {text.state(explanation.state)}")
        rows = [
            (
                text.name_of(BlockerKind, blocker.kind, "BLOCKER_KIND_"),
                blocker.step_id,
                blocker.description,
                ", ".join(blocker.held_by),
                text.moment(blocker.until) if blocker.HasField("until") else "",
                str(blocker.position) if blocker.position else "",
            )
            for blocker in explanation.blockers
        ]
        if rows:
            text.table(("WAITS FOR", "STEP", "WHY", "HELD BY", "UNTIL", "PLACE"), rows, indent=2)
        if explanation.HasField("earliest"):
            click.echo(f"  goes on at {text.moment(explanation.earliest)} at the earliest")
        if explanation.HasField("deadline"):
            click.echo(f"  is over at {text.moment(explanation.deadline)} at the latest")
