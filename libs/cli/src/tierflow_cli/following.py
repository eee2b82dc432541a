"""`tierflow watch`: events as lines, live."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from tierflow_contracts.common.v1 import state_pb2

from tierflow_cli import text
from tierflow_cli.connection import FAILED, Connection, connected

if TYPE_CHECKING:
    from tierflow import Client, Event, Gap


@click.command()
@click.argument("swarm_id", metavar="ID")
@click.option("--resume-token", default="", help="Go on after the event that had this token.")
@click.option("--progress/--no-progress", default=True, help="Also show progress, which may be lost.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@connected
async def watch(
    connection: Connection, *, swarm_id: str, resume_token: str, progress: bool, as_json: bool
) -> int | None:
    """Follow a swarm (or the swarm of a run) live until it ends. Survives broken connections; exits 1 where the swarm did not complete."""
    found = await swarm_of(connection.client, swarm_id)
    final = await follow(connection.patient, found, resume_token, progress=progress, as_json=as_json)
    return 0 if final in (None, "COMPLETED") else FAILED


async def swarm_of(client: Client, entity_id: str) -> str:
    """The swarm of that id, or the one to which the run of that id belongs. Raises `NotFound`."""
    from tierflow import NotFound

    try:
        await client.get(entity_id)
    except NotFound as missing:
        try:
            run = await client.get_run(entity_id)
        except NotFound:
            raise missing from None
        return run.context.swarm_id
    return entity_id


async def follow(
    client: Client, swarm_id: str, resume_token: str = "", *, progress: bool = True, as_json: bool = False
) -> str | None:
    """Prints events until the swarm has ended; returns its final state. That it ended is the last line, though runs may be told after it."""
    from tierflow import Gap

    final, last = None, None
    async for item in client.watch(swarm_id, resume_token, progress=progress):
        if as_json:
            _print_object(item)
        elif isinstance(item, Gap):
            click.echo(f"{text.dim('history is missing here')} ({item.from_seq} to {item.to_seq})")
        elif item.type == "swarm_ended":
            last = line(item)
        else:
            click.echo(line(item))
        if not isinstance(item, Gap) and item.type == "swarm_ended":
            ended: Any = item.message
            final = text.name_of(state_pb2.SwarmState, ended.to, "SWARM_STATE_")
    if last is not None:
        click.echo(last)
    return final


def _print_object(item: Event | Gap) -> None:
    import json

    from tierflow import Gap

    if isinstance(item, Gap):
        record = {"type": "gap", "entity_id": item.entity_id, "from_seq": item.from_seq, "to_seq": item.to_seq}
    else:
        record = {
            "type": item.type,
            "time": item.time.isoformat(),
            "seq": item.seq,
            "entity_id": item.entity_id,
            "run_id": item.run_id,
            "step_id": item.step_id,
            "attempt": item.attempt,
            "data": item.data,
        }
    click.echo(json.dumps({**record, "resume_token": item.resume_token}, ensure_ascii=False))


def line(event: Event) -> str:
    """An event as one line: when, where, what."""
    when = text.dim(text.clock(event.time))
    where = event.step_id or ("run" if event.run_id else "swarm")
    told = _TOLD.get(event.type)
    what = told(event.message) if told else event.type.replace("_", " ")
    again = text.dim(f" (attempt {event.attempt})") if event.attempt > 1 else ""
    return f"{when}  {where:<24} {what}{again}"


def _states(enum: Any, prefix: str) -> Callable[[Any], str]:
    def told(message: Any) -> str:
        names = [text.name_of(enum, number, prefix) for number in (getattr(message, "from"), message.to)]
        reason = f": {message.reason}" if message.reason else ""
        return f"{names[0]} -> {text.state(names[1])}{reason}" + (
            f": {message.failure.message}" if _has(message, "failure") else ""
        )

    return told


def _who(message: Any) -> str:
    return message.step_id or message.actor or "nobody known"


def _has(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name and message.HasField(field)


def _tool_ended(message: Any) -> str:
    outcome = text.name_of(state_pb2.ToolOutcome, message.outcome, "TOOL_OUTCOME_")
    code = f" ({message.code})" if message.code else ""
    return f"tool {message.tool}: {outcome}{code} in {text.duration(message.duration)}"


def _progress(message: Any) -> str:
    share = f"{message.percent:.0f} % " if message.percent else ""
    return text.dim(f"{share}{message.message}".strip() or message.kind)


_RUN = _states(state_pb2.RunState, "RUN_STATE_")
_SWARM = _states(state_pb2.SwarmState, "SWARM_STATE_")
_TOLD: dict[str, Callable[[Any], str]] = {
    "swarm_created": lambda m: f"accepted, flow {m.flow.name}" if m.flow.name else "accepted",
    "swarm_state_changed": _SWARM,
    "swarm_ended": _SWARM,
    "run_requested": lambda m: (
        f"asked for run {m.run_id}"
        + (f": {m.planned}, flow {m.flow.name}" if m.planned else "")
        + (f", {m.reason}" if m.reason else "")
    ),
    "plan_decided": lambda m: (
        f"{m.decision.id} {text.state(text.name_of(state_pb2.StepState, m.decision.state, 'STEP_STATE_'))}: {m.decision.reason}"
    ),
    "run_taken": lambda m: f"run {m.run_id} taken",
    "run_finished": lambda m: f"run {m.run_id} {text.state(text.name_of(state_pb2.RunState, m.state, 'RUN_STATE_'))}",
    "run_created": lambda m: f"accepted, flow {m.flow.name}" if m.flow.name else "accepted",
    "run_state_changed": _RUN,
    "run_ended": _RUN,
    "command_received": lambda m: (
        f"told to {m.command} by {m.actor or 'nobody known'}" + (f": {m.reason}" if m.reason else "")
    ),
    "context_updated": lambda m: f"context version {m.context.version}: {', '.join(m.changed)} by {_who(m)}",
    "blackboard_changed": lambda m: f"blackboard: {', '.join(change.key for change in m.changes)} by {_who(m)}",
    "context_checkpointed": lambda m: f"checkpoint {m.name} of context and blackboard",
    "context_restored": lambda m: f"context and blackboard are as at {m.name}" + (f": {m.reason}" if m.reason else ""),
    "items_expanded": lambda m: text.count(m.count, "item"),
    "step_scheduled": lambda m: f"{text.state('SCHEDULED')} on {m.executor_id}",
    "step_started": lambda _: text.state("RUNNING"),
    "step_completed": lambda m: (
        text.state("COMPLETED") + (f" in {text.duration(m.usage.wall_time)}" if m.usage.HasField("wall_time") else "")
    ),
    "step_retrying": lambda m: (
        f"{text.state('BACKOFF')}: {m.failure.message}; again at {text.clock(m.next_attempt_at)}"
    ),
    "step_failed": lambda m: f"{text.state('FAILED')}: {m.failure.message}" + (" (tolerated)" if m.tolerated else ""),
    "step_skipped": lambda m: f"SKIPPED: {m.reason}",
    "step_cancelled": lambda m: f"{text.state('CANCELLED')}: {m.reason}",
    "approval_requested": lambda m: f"asks {', '.join((*m.users, *(f'role {role}' for role in m.roles)))}: {m.message}",
    "approval_decided": lambda m: f"{m.actor} says {m.verdict}" + (f": {m.reason}" if m.reason else ""),
    "approval_escalated": lambda _: "asks further people",
    "approval_resolved": lambda m: f"is {m.verdict}",
    "child_told": lambda m: "its run pauses" if m.paused else "its run goes on",
    "step_stopping": lambda m: f"is being stopped: {m.reason}",
    "variables_set": lambda m: "set " + ", ".join(variable.name for variable in m.variables),
    "cache_missed": lambda _: "no stored result has its key",
    "step_interrupted": lambda m: f"{text.state('READY')} again: {m.reason}",
    "step_reused": lambda m: f"{text.state('COMPLETED')}, taken over from run {m.run_id}",
    "step_held": lambda _: "waits at a breakpoint",
    "step_released": lambda _: "may pass its breakpoint",
    "breakpoints_set": lambda m: "breakpoints: " + (" ".join(m.breakpoints) or "none"),
    "run_updated": lambda m: f"limits and policies, version {m.version}: {', '.join(m.changed)}",
    "run_migrated": lambda m: f"goes on with version {m.flow.version} of {m.flow.name}",
    "signal_answered": lambda m: f"answered signal {m.signal_id}",
    "late_result": lambda _: "a result came too late; its cost is booked",
    "hold_charged": lambda _: "nobody knows what it cost: all that it might spend counts as spent",
    "attempt_logged": lambda m: f"wrote {text.count(len(m.lines), 'line')}",
    "tool_call_began": lambda m: f"calls tool {m.tool}",
    "tool_call_ended": _tool_ended,
    "block_began": lambda _: "its steps begin",
    "iteration_began": lambda m: f"iteration {m.index} begins",
    "handler_called": lambda m: f"{m.failure.message}; {m.handler_step} handles it",
    "step_reset": lambda _: "begins anew",
    "step_grown": lambda _: "returned further steps, which begin",
    "compensation_began": lambda _: f"{text.state('COMPENSATING')}: what it did is being undone",
    "step_compensated": lambda _: text.state("COMPENSATED"),
    "compensation_failed": lambda m: f"{text.state('FAILED')}: {m.failure.message}",
    "progress_reported": _progress,
}
