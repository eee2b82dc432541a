"""`tierflow cancel`, `pause`, `resume` and `stop`."""

from __future__ import annotations

import click

from tierflow_cli.connection import Connection, as_json, connected

_reason = click.option("--reason", default="", help="Why; kept in the history.")
_swarm = click.argument("swarm_id", metavar="ID")


@click.command()
@_swarm
@_reason
@as_json
@connected
async def cancel(connection: Connection, *, swarm_id: str, reason: str, as_json: bool) -> None:
    """Stop all work of a swarm now. It ends STOPPED once nothing is alive."""
    await _steer(connection, "cancel", swarm_id, reason, as_json)


@click.command()
@_swarm
@_reason
@as_json
@connected
async def pause(connection: Connection, *, swarm_id: str, reason: str, as_json: bool) -> None:
    """Start nothing new and let running steps finish."""
    await _steer(connection, "pause", swarm_id, reason, as_json)


@click.command()
@_swarm
@_reason
@as_json
@connected
async def resume(connection: Connection, *, swarm_id: str, reason: str, as_json: bool) -> None:
    """Go on after a pause."""
    await _steer(connection, "resume", swarm_id, reason, as_json)


@click.command()
@_swarm
@_reason
@click.option("--force", is_flag=True, help="End it at once; the tiers below are told to stop but not waited for.")
@as_json
@connected
async def stop(connection: Connection, *, swarm_id: str, reason: str, force: bool, as_json: bool) -> None:
    """Let running steps finish, then end the swarm STOPPED."""
    await _steer(connection, "stop", swarm_id, reason, as_json, force=force)


async def _steer(connection: Connection, verb: str, swarm_id: str, reason: str, as_json: bool, **options: bool) -> None:
    """Does one thing to a swarm, or to the swarm of a run, and says how it stands after it."""
    from tierflow_contracts.common.v1 import state_pb2

    from tierflow_cli import text
    from tierflow_cli.following import swarm_of

    client = connection.client
    found = await swarm_of(client, swarm_id)
    applied = await getattr(client, verb)(found, reason, **options)
    state = text.name_of(state_pb2.SwarmState, (await client.get(found)).state, "SWARM_STATE_")
    if as_json:
        text.print_json({"swarm_id": found, "applied": applied, "state": state})
    else:
        click.echo(f"{found}  {text.state(state)}{'' if applied else '  (nothing to change)'}")
