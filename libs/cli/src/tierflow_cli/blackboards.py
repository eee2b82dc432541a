"""`tierflow blackboard` and `tierflow context`: what a swarm shares."""

from __future__ import annotations

import json
from typing import Any

import click

from tierflow_cli.connection import Connection, as_json, connected

_swarm = click.argument("swarm_id", metavar="ID")
_key = click.argument("key")
_reason = click.option("--reason", default="", help="Why; kept in the history.")


@click.group()
def blackboard() -> None:
    """Read and write what a swarm shares, key by key. ID is a swarm, or a run of it."""


@blackboard.command("list")
@_swarm
@click.argument("prefix", default="")
@as_json
@connected
async def list_keys(connection: Connection, *, swarm_id: str, prefix: str, as_json: bool) -> None:
    """List the keys, or those that begin with PREFIX, without their values."""
    board = await _board(connection, swarm_id)
    _table([item async for item in board.keys(prefix)], as_json)


@blackboard.command("get")
@_swarm
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@as_json
@connected
async def get(connection: Connection, *, swarm_id: str, keys: tuple[str, ...], as_json: bool) -> int:
    """Print the value of a key as JSON; of several, or with --json, an object. Exit code 66 where one is not there."""
    from tierflow_cli import text

    found = await (await _board(connection, swarm_id)).items(*keys)
    if as_json:
        text.print_json({key: _shown(item, value=True) for key, item in found.items()})
    elif len(keys) > 1:
        text.print_json({key: item.value for key, item in found.items()})
    elif found:
        text.print_json(found[keys[0]].value)
    return _missing([key for key in keys if key not in found])


@blackboard.command("set")
@_swarm
@_key
@click.argument("value", metavar="JSON")
@click.option("--expect", type=click.IntRange(0), default=None, help="The version that it must have; 0: not there.")
@as_json
@connected
async def put(
    connection: Connection, *, swarm_id: str, key: str, value: str, expect: int | None, as_json: bool
) -> None:
    """Write a key and print its version. A text needs its quotes: '"text"'."""
    from tierflow_cli import text

    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}; a text needs its quotes", param_hint="JSON") from None
    version = await (await _board(connection, swarm_id)).set(key, parsed, expected_version=expect)
    if as_json:
        text.print_json({"key": key, "version": version})
    else:
        click.echo(f"{key}  version {version}")


@blackboard.command("delete")
@_swarm
@_key
@click.option("--expect", type=click.IntRange(1), default=None, help="The version that it must have.")
@connected
async def delete(connection: Connection, *, swarm_id: str, key: str, expect: int | None) -> None:
    """Remove a key; its history stays."""
    await (await _board(connection, swarm_id)).delete(key, expected_version=expect)


@blackboard.command("history")
@_swarm
@_key
@click.option("-n", "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@as_json
@connected
async def history(connection: Connection, *, swarm_id: str, key: str, limit: int, as_json: bool) -> None:
    """Show what a key was, write by write, the newest first."""
    from tierflow_cli.following import swarm_of

    swarm = await swarm_of(connection.client, swarm_id)
    _table(await connection.client.blackboard_history(swarm, key, limit=limit), as_json, values=True)


@click.group()
def context() -> None:
    """Show and change what is agreed on for a swarm; go back to checkpoints. ID is a swarm, or a run of it."""


@context.command("show")
@_swarm
@as_json
@connected
async def show(connection: Connection, *, swarm_id: str, as_json: bool) -> None:
    """Show goal, policy and flags with their version, and the checkpoints."""
    _context(await (await _board(connection, swarm_id)).context(), as_json)


@context.command("update")
@_swarm
@click.option("--expect", type=click.IntRange(1), required=True, help="The version that the change is made from.")
@click.option("--goal", default=None, help="Another goal.")
@click.option("--policy", default=None, help="A JSON object to merge into the policy; null removes a member.")
@click.option("--adaptive/--not-adaptive", default=None, help="Whether agents may change policy and goal.")
@_reason
@as_json
@connected
async def update(
    connection: Connection,
    *,
    swarm_id: str,
    expect: int,
    goal: str | None,
    policy: str | None,
    adaptive: bool | None,
    reason: str,
    as_json: bool,
) -> None:
    """Change the context; the next decision goes by it."""
    try:
        parsed = None if policy is None else json.loads(policy)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--policy") from None
    board = await _board(connection, swarm_id)
    _context(await board.update_context(expect, goal=goal, policy=parsed, adaptive=adaptive, reason=reason), as_json)


@context.command("checkpoint")
@_swarm
@click.argument("name")
@as_json
@connected
async def checkpoint(connection: Connection, *, swarm_id: str, name: str, as_json: bool) -> None:
    """Name what context and blackboard are now; print the hash."""
    from tierflow_cli.following import swarm_of

    made = await connection.client.checkpoint_context(await swarm_of(connection.client, swarm_id), name)
    _hash(name, made, as_json)


@context.command("restore")
@_swarm
@click.argument("name")
@_reason
@as_json
@connected
async def restore(connection: Connection, *, swarm_id: str, name: str, reason: str, as_json: bool) -> None:
    """Bring context and blackboard back to a checkpoint, as a new revision; print the hash."""
    from tierflow_cli.following import swarm_of

    swarm = await swarm_of(connection.client, swarm_id)
    _hash(name, await connection.client.restore_context(swarm, name, reason=reason), as_json)


def _missing(keys: list[str]) -> int:
    if not keys:
        return 0
    click.echo(f"not there: {', '.join(keys)}", err=True)
    return 66


async def _board(connection: Connection, entity_id: str) -> Any:
    from tierflow_cli.following import swarm_of

    return connection.client.blackboard(await swarm_of(connection.client, entity_id))


def _shown(item: Any, *, value: bool) -> dict[str, Any]:
    shown = {
        "key": item.key,
        "version": item.version,
        "size": item.size,
        "actor": item.actor,
        "run_id": item.run_id,
        "step_id": item.step_id,
        "written_at": item.written_at.isoformat(),
    }
    return {**shown, **({"value": item.value} if value else {}), **({"deleted": True} if item.deleted else {})}


def _table(items: list[Any], as_json: bool, *, values: bool = False) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json([_shown(item, value=values) for item in items])
        return
    heads = ("KEY", "VERSION", "BYTES", "BY", "WHEN") + (("VALUE",) if values else ())
    rows = []
    for item in items:
        by = f"{item.actor}  {item.step_id}".rstrip()
        row = (item.key, str(item.version), str(item.size), by, f"{item.written_at:%Y-%m-%d %H:%M:%S}")
        said = "(removed)" if item.deleted else json.dumps(item.value, ensure_ascii=False)
        rows.append((*row, said if len(said) <= 60 else said[:57] + "...") if values else row)
    text.table(heads, rows)


def _context(shared: Any, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json({name: getattr(shared, name) for name in shared.__slots__})
        return
    click.echo(f"version {shared.version}, revision {shared.revision}{', adaptive' if shared.adaptive else ''}")
    click.echo(f"{shared.keys} keys, {shared.bytes} bytes")
    if shared.goal:
        click.echo(f"goal    {shared.goal}")
    click.echo(f"policy  {json.dumps(shared.policy, ensure_ascii=False)}")
    for name, made in shared.checkpoints.items():
        click.echo(f"checkpoint {name}  {made}")


def _hash(name: str, made: str, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json({"name": name, "hash": made})
    else:
        click.echo(f"{name}  {made}")
