"""`tierflow retry`, `rerun`, `fork`, `replay`, `skip`, `step`, `breakpoints`, `update`, `migrate`, `query`, `ask` and `steer`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from tierflow_cli.connection import Connection, as_json, connected

_reason = click.option("--reason", default="", help="Why; kept in the history.")
_id = click.argument("entity_id", metavar="ID")
_steps = click.argument("step_ids", metavar="STEP...", nargs=-1)
_checkpoint = click.option("--checkpoint", default="", help="Results count as of this checkpoint.")
_plan = click.option("--plan", "only_plan", is_flag=True, help="Only say what would be executed, reused, and may cost.")


@click.command()
@_id
@_reason
@_plan
@as_json
@connected
async def retry(connection: Connection, *, entity_id: str, reason: str, only_plan: bool, as_json: bool) -> None:
    """Run again what failed, in the next generation; what completed is kept."""
    swarm_id = await _swarm(connection, entity_id)
    if only_plan:
        _show_plan(await connection.client.plan_retry(swarm_id), as_json)
        return
    generation = await connection.client.retry(swarm_id, reason)
    _say({"swarm_id": swarm_id, "generation": generation}, f"{swarm_id}  generation {generation}", as_json)


@click.command()
@_id
@_steps
@_checkpoint
@_plan
@as_json
@connected
async def rerun(
    connection: Connection,
    *,
    entity_id: str,
    step_ids: tuple[str, ...],
    checkpoint: str,
    only_plan: bool,
    as_json: bool,
) -> None:
    """Start a new swarm from these steps, or from a checkpoint, on, with what completed before them."""
    if not step_ids and not checkpoint:
        raise click.UsageError("Name steps to begin with, or a --checkpoint.")
    swarm_id = await _swarm(connection, entity_id)
    if only_plan:
        _show_plan(await connection.client.plan_rerun(swarm_id, *step_ids, checkpoint=checkpoint), as_json)
        return
    new = await connection.client.rerun(swarm_id, *step_ids, checkpoint=checkpoint)
    _say({"swarm_id": new, "of": swarm_id}, new, as_json)


@click.command()
@_id
@_steps
@click.option("--input", "input_json", help="Another input, a JSON object.")
@_checkpoint
@as_json
@connected
async def fork(
    connection: Connection,
    *,
    entity_id: str,
    step_ids: tuple[str, ...],
    input_json: str | None,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Start a new swarm with the results of these steps, and nothing else."""
    swarm_id = await _swarm(connection, entity_id)
    value = None if input_json is None else _json(input_json, "--input")
    new = await connection.client.fork(swarm_id, *step_ids, input=value, checkpoint=checkpoint)
    _say({"swarm_id": new, "of": swarm_id}, new, as_json)


@click.command()
@_id
@as_json
@connected
async def replay(connection: Connection, *, entity_id: str, as_json: bool) -> None:
    """Start a new swarm with the same flow and input."""
    swarm_id = await _swarm(connection, entity_id)
    new = await connection.client.replay(swarm_id)
    _say({"swarm_id": new, "of": swarm_id}, new, as_json)


@click.command()
@_id
@click.argument("step_id", metavar="STEP")
@click.argument("output", metavar="[JSON]", required=False)
@_reason
@as_json
@connected
async def skip(
    connection: Connection, *, entity_id: str, step_id: str, output: str | None, reason: str, as_json: bool
) -> None:
    """End a step as SKIPPED, with an output or none; what needs it goes on."""
    swarm_id = await _swarm(connection, entity_id)
    value = None if output is None else _json(output, "JSON")
    applied = await connection.client.skip(swarm_id, step_id, value, reason=reason)
    _say({"swarm_id": swarm_id, "step_id": step_id, "applied": applied}, f"{swarm_id}  {step_id}", as_json)


@click.command()
@_id
@click.argument("step_id", metavar="[STEP]", default="")
@as_json
@connected
async def step(connection: Connection, *, entity_id: str, step_id: str, as_json: bool) -> None:
    """Run what is ready in a paused run, or one step, and pause again."""
    swarm_id = await _swarm(connection, entity_id)
    applied = await connection.client.step(swarm_id, step_id)
    _say({"swarm_id": swarm_id, "applied": applied}, swarm_id, as_json)


@click.command()
@_id
@_steps
@as_json
@connected
async def breakpoints(connection: Connection, *, entity_id: str, step_ids: tuple[str, ...], as_json: bool) -> None:
    """Pause before these steps from now on (`*`: all); none clears them."""
    swarm_id = await _swarm(connection, entity_id)
    applied = await connection.client.set_breakpoints(swarm_id, *step_ids)
    said = " ".join(step_ids) or "none"
    _say({"swarm_id": swarm_id, "applied": applied}, f"{swarm_id}  breakpoints: {said}", as_json)


@click.command()
@_id
@click.option("--concurrency", type=int, help="Steps at once, in place of what the flow says; 0 is not limited.")
@click.option("--concurrent-steps", type=int, help="The allocation's steps at once; 0 is not limited.")
@click.option("--steps", type=int, help="The allocation's attempts in all; 0 is not limited.")
@click.option("--credits", "credits", type=int, help="The budget's micro-credits in all; 0 is not limited.")
@click.option("--tokens", type=int, help="The budget's tokens in all; 0 is not limited.")
@click.option("--tool-calls", type=int, help="The budget's tool calls in all; 0 is not limited.")
@click.option("--deadline", help="When it must be over: 2030-01-31T08:00:00+00:00.")
@click.option("--failure-policy", default="", help="fail_fast, continue or pause.")
@click.option("--attempts", type=int, help="Attempts of a step that says nothing itself.")
@click.option("--expected-version", type=int, help="Refuse where the version is another by now.")
@_reason
@as_json
@connected
async def update(
    connection: Connection, *, entity_id: str, deadline: str | None, as_json: bool, **changes: Any
) -> None:
    """Change limits and policies of a running swarm; its next decision honours them."""
    swarm_id = await _swarm(connection, entity_id)
    moment = None
    if deadline is not None:
        try:
            moment = datetime.fromisoformat(deadline).astimezone()
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--deadline") from None
    version = await connection.client.update(swarm_id, deadline=moment, **changes)
    _say({"swarm_id": swarm_id, "version": version}, f"{swarm_id}  version {version}", as_json)


@click.command()
@_id
@click.argument("flow")
@click.option("--check", is_flag=True, help="Only show what differs, and whether it could be.")
@_reason
@as_json
@connected
async def migrate(
    connection: Connection, *, entity_id: str, flow: str, check: bool, reason: str, as_json: bool
) -> None:
    """Let a paused swarm go on with another version of its flow."""
    swarm_id = await _swarm(connection, entity_id)
    found = await connection.client.migrate(swarm_id, flow, check=check, reason=reason)
    lines = [f"{swarm_id}  {found.from_version} to {found.to_version}"]
    for word in ("added", "removed", "changed"):
        lines += [f"  {word}: {step_id}" for step_id in getattr(found, word)]
    _say(found, "\n".join(lines), as_json)


@click.command()
@_id
@click.argument("expressions", metavar="EXPRESSION...", nargs=-1)
@connected
async def query(connection: Connection, *, entity_id: str, expressions: tuple[str, ...]) -> None:
    """Show variables, outputs and counts of a run, or what expressions amount to; as JSON."""
    from tierflow_cli import text

    swarm_id = await _swarm(connection, entity_id)
    found = await connection.client.query(swarm_id, {each: each for each in expressions})
    if expressions:
        text.print_json({"values": dict(found.values), "errors": dict(found.errors)})
        return
    shown = {
        name: getattr(found, name) for name in ("state", "generation", "seq", "vars", "input", "outputs", "counts")
    }
    text.print_json(shown)


@click.command()
@_id
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@click.option("--timeout", default="30s", help="How long to wait for the answer.", show_default=True)
@click.option("--id", "signal_id", default="", help="Id of the question: the same id again asks once.")
@as_json
@connected
async def ask(
    connection: Connection, *, entity_id: str, name: str, payload: str, timeout: str, signal_id: str, as_json: bool
) -> None:
    """Send a signal to a run and wait for what a step answers."""
    swarm_id = await _swarm(connection, entity_id)
    value = _json(payload, "JSON")
    answer = await connection.client.ask(swarm_id, name, value, timeout=timeout, signal_id=signal_id)
    said = json.dumps(answer.value, ensure_ascii=False)
    _say({"answer": answer.value, "step_id": answer.step_id, "signal_id": answer.signal_id}, said, as_json)


@click.command()
@click.argument("verb", type=click.Choice(["cancel", "retry", "signal", "pause", "resume", "stop"]))
@click.option("--state", "states", multiple=True, help="Only swarms in this state; may be given several times.")
@click.option("--flow", default="", help="Only swarms of this flow.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only swarms with this label.")
@click.option("--signal", default="", help="With signal: its name.")
@click.option("--payload", default="null", help="With signal: what it says, JSON.")
@click.option("--dry-run", is_flag=True, help="Only show which swarms match.")
@_reason
@as_json
@connected
async def steer(
    connection: Connection,
    *,
    verb: str,
    labels: tuple[str, ...],
    payload: str,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Do one thing to every swarm that matches."""
    pairs = dict(label.partition("=")[::2] for label in labels)
    outcomes = connection.client.steer_many(verb, labels=pairs, payload=_json(payload, "--payload"), **wanted)
    told = []
    async for one in outcomes:
        why = one.failure.message if one.failure is not None else "" if one.applied else "nothing to change"
        told.append({"swarm_id": one.swarm_id, "applied": one.applied, "state": one.state, "why": why})
        if not as_json:
            click.echo(f"{one.swarm_id}  {one.state}" + (f"  ({why})" if why and not wanted["dry_run"] else ""))
    if as_json:
        from tierflow_cli import text

        text.print_json(told)


async def _swarm(connection: Connection, entity_id: str) -> str:
    from tierflow_cli.following import swarm_of

    return await swarm_of(connection.client, entity_id)


def _json(text: str, hint: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=hint) from None


def _say(found: Any, line: str, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json(found)
    else:
        click.echo(line)


def _show_plan(plan: Any, as_json: bool) -> None:
    """What would be done again, and what it used the last time."""
    from tierflow_cli import text

    if as_json:
        text.print_json(plan)
        return
    for one in plan.executed:
        click.echo(f"  again   {one.step_id}  {one.reason}  {text.count(one.attempts, 'attempt')}")
    for step_id in plan.reused:
        click.echo(f"  reused  {step_id}")
    click.echo(
        f"the last time: {text.count(plan.attempts, 'attempt')}, {text.duration(plan.duration)}, {plan.usage.credits} micro-credits"
        + (f"; not known: {', '.join(plan.unknown)}" if plan.unknown else "")
    )
