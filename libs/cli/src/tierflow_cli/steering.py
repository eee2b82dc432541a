"""`tierflow cancel`, `pause`, `resume`, `stop` and `signal`."""

from __future__ import annotations

import click

from tierflow_cli.connection import Connection, as_json, connected

_reason = click.option("--reason", default="", help="Why; kept in the history.")
_swarms = click.argument("swarm_ids", metavar="ID...", nargs=-1, required=True)


@click.command()
@_swarms
@_reason
@as_json
@connected
async def cancel(connection: Connection, *, swarm_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Stop all work of a swarm now. It ends STOPPED once nothing is alive."""
    await _steer(connection, "cancel", swarm_ids, reason, as_json)


@click.command()
@_swarms
@_reason
@click.option("--interrupt", is_flag=True, help="Stop what runs; its steps start again when the swarm is resumed.")
@as_json
@connected
async def pause(
    connection: Connection, *, swarm_ids: tuple[str, ...], reason: str, interrupt: bool, as_json: bool
) -> None:
    """Start nothing new and let running steps finish."""
    await _steer(connection, "pause", swarm_ids, reason, as_json, interrupt=interrupt)


@click.command()
@_swarms
@_reason
@as_json
@connected
async def resume(connection: Connection, *, swarm_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Go on after a pause."""
    await _steer(connection, "resume", swarm_ids, reason, as_json)


@click.command()
@_swarms
@_reason
@click.option("--force", is_flag=True, help="End it at once; the tiers below are told to stop but not waited for.")
@as_json
@connected
async def stop(connection: Connection, *, swarm_ids: tuple[str, ...], reason: str, force: bool, as_json: bool) -> None:
    """Let running steps finish, then end the swarm STOPPED."""
    await _steer(connection, "stop", swarm_ids, reason, as_json, force=force)


@click.command()
@click.argument("entity_id", metavar="ID")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@click.option("--id", "signal_id", default="", help="Id of the signal: the same id again is the same signal.")
@as_json
@connected
async def signal(
    connection: Connection, *, entity_id: str, name: str, payload: str, signal_id: str, as_json: bool
) -> None:
    """Send a message to a run that waits for it, or is going to."""
    import json

    from tierflow_cli import text
    from tierflow_cli.following import swarm_of

    try:
        value = json.loads(payload)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="JSON") from None
    swarm_id = await swarm_of(connection.client, entity_id)
    applied = await connection.client.signal(swarm_id, name, value, signal_id=signal_id)
    if as_json:
        text.print_json({"swarm_id": swarm_id, "applied": applied})
    else:
        click.echo(f"{swarm_id}  {name}{'' if applied else '  (not taken: it has ended)'}")


async def _steer(
    connection: Connection, verb: str, ids: tuple[str, ...], reason: str, as_json: bool, **options: bool
) -> None:
    """Does one thing to swarms, or to the swarms of runs, and says how they stand after it."""
    from tierflow_contracts.common.v1 import state_pb2

    from tierflow_cli import text
    from tierflow_cli.following import swarm_of

    client, answers = connection.client, []
    for entity_id in ids:
        swarm_id = await swarm_of(client, entity_id)
        applied = await getattr(client, verb)(swarm_id, reason, **options)
        state = text.name_of(state_pb2.SwarmState, (await client.get(swarm_id)).state, "SWARM_STATE_")
        answers.append({"swarm_id": swarm_id, "applied": applied, "state": state})
        if not as_json:
            click.echo(f"{swarm_id}  {text.state(state)}{'' if applied else '  (nothing to change)'}")
    if as_json:
        text.print_json(answers)
