"""`tierflow dead-letters`: what failed beyond automatic help, and what is done about it."""

from __future__ import annotations

import click
from tierflow.results import story
from tierflow_contracts.common.v1 import dead_letter_pb2 as pb

from tierflow_cli.connection import Connection, as_json, connected
from tierflow_cli.groups import Listing

_ids = click.argument("letter_ids", metavar="LETTER...", nargs=-1, required=True)


@click.group(cls=Listing)
def dead_letters() -> None:
    """List what failed beyond automatic help; show, retry, discard it. Without a subcommand: list."""


@dead_letters.command("list")
@click.option(
    "--state", "states", multiple=True, help="open (the default), retried or discarded; several may be given."
)
@click.option("--swarm", "swarm_id", default="", help="Only of this swarm.")
@click.option("--flow", default="", help="Only of this flow.")
@click.option("--limit", default=100, show_default=True)
@as_json
@connected
async def listed(
    connection: Connection, *, states: tuple[str, ...], swarm_id: str, flow: str, limit: int, as_json: bool
) -> None:
    """Dead letters, newest first; those that nobody has dealt with."""
    from tierflow_cli import text

    found = connection.client.dead_letters(states=states, swarm_id=swarm_id, flow=flow, limit=limit)
    letters = [letter async for letter in found]
    if as_json:
        text.print_json(letters)
        return
    rows = [
        (
            one.id,
            _kind(one),
            _state(one),
            f"{one.flow_name}@{one.flow_version}",
            text.ago(one.created_at),
            one.run_id or one.swarm_id,
            one.failure.message[:60],
        )
        for one in letters
    ]
    text.table(("LETTER", "KIND", "STATE", "FLOW", "WRITTEN", "OF", "WHY"), rows)


@dead_letters.command()
@click.argument("letter_id", metavar="LETTER")
@as_json
@connected
async def show(connection: Connection, *, letter_id: str, as_json: bool) -> None:
    """One dead letter in full."""
    from tierflow_cli import text

    one = await connection.client.dead_letter(letter_id)
    if as_json:
        text.print_json(one)
        return
    text.fields(
        [
            ("letter", text.bold(one.id)),
            ("kind", _kind(one)),
            ("state", _state(one)),
            ("flow", f"{one.flow_name}@{one.flow_version}"),
            ("swarm", one.swarm_id),
            ("run", f"{one.run_id} generation {one.generation}" if one.run_id else ""),
            ("trace", one.trace_id),
            ("tenant / user", f"{one.tenant} / {one.user_id}"),
            ("failure", click.style(story(one.failure), fg="red")),
            ("about", one.payload_ref),
            ("written", text.moment(one.created_at)),
            ("dealt with", text.moment(one.resolved_at)),
            ("by", one.actor),
            ("reason", one.reason),
            ("retried as", one.retried_as),
        ]
    )


@dead_letters.command()
@_ids
@click.option("--reason", default="", help="Why; kept with it.")
@as_json
@connected
async def retry(connection: Connection, *, letter_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Submit the runs of letters again, as new swarms that name the old ones."""
    from tierflow_cli import text

    made = {letter_id: await connection.client.retry_dead_letter(letter_id, reason) for letter_id in letter_ids}
    if as_json:
        text.print_json(made)
        return
    for letter_id, swarm_id in made.items():
        click.echo(f"{letter_id}  {swarm_id or 'published'}")


@dead_letters.command()
@_ids
@click.option("--reason", required=True, help="Why nothing is to be done; kept with it.")
@connected
async def discard(connection: Connection, *, letter_ids: tuple[str, ...], reason: str) -> None:
    """Say that nothing is to be done about letters."""
    for letter_id in letter_ids:
        await connection.client.discard_dead_letter(letter_id, reason)
        click.echo(letter_id)


def _kind(letter: pb.DeadLetter) -> str:
    return pb.DeadLetterKind.Name(letter.kind).removeprefix("DEAD_LETTER_KIND_").lower()


def _state(letter: pb.DeadLetter) -> str:
    return pb.DeadLetterState.Name(letter.state).removeprefix("DEAD_LETTER_STATE_").lower()
