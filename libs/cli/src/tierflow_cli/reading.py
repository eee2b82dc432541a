"""Commands that only read: `runs`, `swarms`, `describe`, `logs`, `queue`, `executors`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import Connection, as_json, connected
from tierflow_cli.groups import Listing

if TYPE_CHECKING:
    from tierflow import Client


def _filters(command: Any) -> Any:
    for option in (
        click.option("--state", "states", multiple=True, help="Only in this state; may be given again."),
        click.option("--flow", default="", help="Only of this flow."),
        click.option(
            "-l",
            "--label",
            "labels",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only with this label; may be given again.",
        ),
        click.option("--by", "user", default="", help="Only of this user."),
        click.option("--trace", "trace_id", default="", help="Only of this trace."),
        click.option("--since", metavar="DURATION", help="Only accepted within so long, such as 15m or 2d."),
        click.option(
            "-n",
            "--limit",
            type=click.IntRange(1),
            default=20,
            show_default=True,
            help="At most so many, newest first.",
        ),
    ):
        command = option(command)
    return command


def _conditions(labels: tuple[str, ...], since: str | None, **conditions: Any) -> dict[str, Any]:
    from tierflow.times import microseconds

    pairs = dict(label.partition("=")[::2] for label in labels)
    after = datetime.now(UTC) - timedelta(microseconds=microseconds(since, "since")) if since else None
    return {**conditions, "labels": pairs, "after": after}


@click.group(cls=Listing)
def runs() -> None:
    """List runs, or describe one. Without a subcommand: list."""


@runs.command("list")
@click.option("--swarm", "swarm_id", default="", help="Only of this swarm.")
@_filters
@as_json
@connected
async def list_runs(connection: Connection, *, as_json: bool, **conditions: Any) -> None:
    """List runs, newest first."""
    from tierflow_cli import describing, text

    found = [run async for run in connection.client.runs(**_conditions(**conditions))]
    if as_json:
        text.print_json(found)
    else:
        describing.list_runs(found)


@runs.command("describe")
@click.argument("run_id", metavar="ID")
@click.option(
    "--steps", "show_steps", type=click.IntRange(0), default=200, show_default=True, help="At most so many steps."
)
@as_json
@connected
async def describe_run(connection: Connection, *, run_id: str, show_steps: int, as_json: bool) -> None:
    """Show a run with its steps."""
    await _describe_run(connection.client, run_id, show_steps, as_json)


@click.command()
@_filters
@as_json
@connected
async def swarms(connection: Connection, *, as_json: bool, **conditions: Any) -> None:
    """List swarms, newest first."""
    from tierflow_cli import describing, text

    found = [swarm async for swarm in connection.client.list(**_conditions(**conditions))]
    if as_json:
        text.print_json(found)
    else:
        describing.list_swarms(found)


@click.command()
@click.argument("entity_id", metavar="ID")
@click.option(
    "--steps", "show_steps", type=click.IntRange(0), default=200, show_default=True, help="At most so many steps."
)
@as_json
@connected
async def describe(connection: Connection, *, entity_id: str, show_steps: int, as_json: bool) -> None:
    """Show a swarm with its runs, or a run with its steps."""
    from tierflow import NotFound

    from tierflow_cli import describing, text

    client = connection.client
    try:
        swarm = await client.get(entity_id)
    except NotFound as missing:
        try:
            await _describe_run(client, entity_id, show_steps, as_json)
        except NotFound:
            raise missing from None
        return
    found = [await client.get_run(run_id) for run_id in swarm.run_ids]
    if as_json:
        text.print_json({"swarm": text.plain(swarm), "runs": [text.plain(run) for run in found]})
        return
    describing.show_swarm(swarm)
    for run in found:
        text.heading(f"run {run.context.run_id}")
        describing.show_run(
            run, [step async for step in client.steps(run.context.run_id, limit=show_steps)], within=swarm
        )


async def _describe_run(client: Client, run_id: str, show_steps: int, as_json: bool) -> None:
    from tierflow_cli import describing, text

    run = await client.get_run(run_id)
    steps = [step async for step in client.steps(run_id, limit=show_steps, payloads=as_json)]
    if as_json:
        text.print_json({"run": text.plain(run), "steps": [text.plain(step) for step in steps]})
    else:
        describing.show_run(run, steps)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step_id", required=False, default="", metavar="[STEP]")
@as_json
@connected
async def logs(connection: Connection, *, run_id: str, step_id: str, as_json: bool) -> None:
    """Show what the attempts of a run wrote: standard output, standard error, log lines. RUN may be a swarm: then of all its runs."""
    from tierflow import NotFound

    from tierflow_cli import describing, text

    client = connection.client
    try:
        attempts = [*await client.logs(run_id, step_id)]
    except NotFound as missing:
        try:
            swarm = await client.get(run_id)
        except NotFound:
            raise missing from None
        attempts = [attempt for run in swarm.run_ids for attempt in await client.logs(run, step_id)]
    if as_json:
        text.print_json(attempts)
    elif attempts:
        describing.show_logs(attempts)
    else:
        click.echo("Nothing was written.", err=True)


@click.command()
@as_json
@connected
async def queue(connection: Connection, *, as_json: bool) -> None:
    """Show how much is under way in the whole engine."""
    from tierflow_cli import describing, text

    counted = await connection.client.queue()
    if as_json:
        text.print_json(counted)
    else:
        describing.show_queue(counted)


@click.command()
@click.option("--handlers", "show_handlers", is_flag=True, help="Also what each handler does.")
@as_json
@connected
async def executors(connection: Connection, *, show_handlers: bool, as_json: bool) -> None:
    """List the executors that are connected, with their slots and handlers."""
    from tierflow_cli import describing, text

    found = await connection.client.executors()
    if as_json:
        text.print_json(found)
    else:
        describing.list_executors(found, show_handlers=show_handlers)
