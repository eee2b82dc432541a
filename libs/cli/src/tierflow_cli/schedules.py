"""`tierflow schedule`: swarms at given times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import Connection, as_json, connected

if TYPE_CHECKING:
    from tierflow_contracts.common.v1.schedule_pb2 import Firing
    from tierflow_contracts.coordinator.v1.schedule_pb2 import Schedule

_name = click.argument("name")
_reason = click.option("--reason", default="", help="Why; kept in the history.")
_OVERLAPS = click.Choice(["skip", "buffer_one", "buffer_all", "cancel_running", "allow"])
_WHEN = (
    click.option("--cron", multiple=True, metavar="EXPRESSION", help="When: '0 2 * * *', @daily; may be repeated."),
    click.option("--every", metavar="DURATION", help="When: again and again after so long, such as 15m."),
    click.option("--offset", metavar="DURATION", help="Moves the times of --every."),
    click.option("--tz", "time_zone", metavar="ZONE", help="Time zone of --cron, such as Europe/Berlin; else UTC."),
    click.option("--start", "start_at", metavar="TIME", help="No times before."),
    click.option("--end", "end_at", metavar="TIME", help="No times from then on."),
    click.option("--jitter", metavar="DURATION", help="Each time fires up to so much later."),
)
_HOW = (
    click.option("--overlap", type=_OVERLAPS, help="While an earlier swarm is at work; skip unless said otherwise."),
    click.option("--max-waiting", type=click.IntRange(1), metavar="N", help="buffer_all: so many wait at most; 100."),
    click.option("--catch-up", metavar="DURATION", help="Fires so much later what nothing was up for; 1d."),
    click.option("--pause-after-failures", type=click.IntRange(0), metavar="N", help="Pauses after N in a row."),
    click.option("--max-firings", type=click.IntRange(0), metavar="N", help="Ends after N."),
    click.option("--description", help="What it is for."),
    click.option("-i", "--input", "pairs", multiple=True, metavar="KEY=VALUE", help="One value of the input; ${{ schedule.date }} stands for the firing's."),
    click.option("--input-json", metavar="JSON", help="The whole input; @FILE reads a file."),
    click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of each swarm."),
    click.option("--timeout", metavar="DURATION", help="How long each swarm may take."),
    click.option("--priority", type=click.IntRange(-100, 100), help="Higher is sooner."),
)  # fmt: skip


def _with(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group()
def schedule() -> None:
    """Start swarms at given times: make, list, pause, trigger, backfill.

    \b
    tierflow schedule create nightly report --cron '0 2 * * *' --tz Europe/Berlin -i 'day=${{ schedule.date }}'
    tierflow schedule next nightly
    """  # noqa: D301 - click's sign for "do not wrap"


@schedule.command("create")
@_name
@click.argument("flow")
@_with(_WHEN)
@_with(_HOW)
@click.option("--paused", is_flag=True, help="Make it PAUSED.")
@_reason
@as_json
@connected
async def create(
    connection: Connection, *, name: str, flow: str, paused: bool, reason: str, as_json: bool, **options: Any
) -> None:
    """Make schedule NAME, which starts FLOW: a registered name, name@version, or a path."""
    given = _given(options)
    made = await connection.client.schedules.create(
        name, flow, given.pop("input", None), paused=paused, reason=reason, **given
    )
    _show(made, as_json)


@schedule.command("update")
@_name
@click.option("--flow", help="Another flow.")
@_with(_WHEN)
@_with(_HOW)
@_reason
@as_json
@connected
async def update(connection: Connection, *, name: str, reason: str, as_json: bool, **options: Any) -> None:
    """Change what is named; the rest stays. An empty text takes a thing away: --jitter ''."""
    changes = _given(options)
    if not changes:
        raise click.UsageError("name something to change")
    _show(await connection.client.schedules.update(name, reason=reason, **changes), as_json)


@schedule.command("list")
@click.option("--ended", is_flag=True, help="Also those that are over, as long as they are kept.")
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True)
@as_json
@connected
async def list_schedules(connection: Connection, *, ended: bool, limit: int, as_json: bool) -> None:
    """List schedules, newest first."""
    from tierflow_cli import text

    found = [each async for each in connection.client.schedules.list(ended=ended, limit=limit)]
    if as_json:
        text.print_json(found)
        return
    rows = [(each.name, text.state(_state(each)), _when(each), _next(each), _last(each), each.reason) for each in found]
    text.table(("SCHEDULE", "STATE", "WHEN", "NEXT", "LAST", "REASON"), rows)


@schedule.command("show")
@_name
@as_json
@connected
async def show(connection: Connection, *, name: str, as_json: bool) -> None:
    """Show a schedule, its latest firings, and why it does not fire."""
    from tierflow_cli import text

    found = await connection.client.schedules.get(name)
    _show(found, as_json)
    if as_json:
        return
    why = await connection.client.schedules.explain(name)
    for blocker in why.blockers:
        click.echo(f"{text.bold('waits')}  {blocker.description}")
    firings = [*reversed(found.open), *found.recent]
    if firings:
        click.echo()
        text.table(("FIRING", "STATE", "OUTCOME", "SWARM", "REASON"), [_row(firing) for firing in firings])


@schedule.command("pause")
@_name
@_reason
@as_json
@connected
async def pause(connection: Connection, *, name: str, reason: str, as_json: bool) -> None:
    """Let its times pass."""
    _say(name, "paused", await connection.client.schedules.pause(name, reason), as_json)


@schedule.command("resume")
@_name
@_reason
@as_json
@connected
async def resume(connection: Connection, *, name: str, reason: str, as_json: bool) -> None:
    """Fire again, from now on."""
    _say(name, "resumed", await connection.client.schedules.resume(name, reason), as_json)


@schedule.command("trigger")
@_name
@click.option("--overlap", type=_OVERLAPS, default=None, help="Other than the schedule says.")
@_reason
@as_json
@connected
async def trigger(connection: Connection, *, name: str, overlap: str | None, reason: str, as_json: bool) -> int | None:
    """Fire it now, also while it is paused."""
    from tierflow_cli import text
    from tierflow_cli.connection import CONFLICT

    firing = await connection.client.schedules.trigger(name, overlap=overlap or "", reason=reason)
    skipped = _firing_state(firing) == "SKIPPED"
    if as_json:
        text.print_json(firing)
    elif firing.swarm_id:
        click.echo(f"{text.bold(name)}  swarm {firing.swarm_id}")
    else:
        said = firing.failure.message if firing.HasField("failure") else firing.reason
        click.echo(f"{text.bold(name)}  {text.state(_firing_state(firing))}  {said}")
    return CONFLICT if skipped else None


@schedule.command("backfill")
@_name
@click.option("--from", "first", required=True, metavar="TIME", help="From this moment on.")
@click.option("--to", "last", metavar="TIME", help="Up to and without this one; now, unless said otherwise.")
@click.option("--concurrent", is_flag=True, help="All at once, rather than one after the other.")
@click.option("--check", is_flag=True, help="Only say which times.")
@_reason
@as_json
@connected
async def backfill(
    connection: Connection, *, name: str, first: str, last: str | None, as_json: bool, **options: Any
) -> None:
    """Fire the times of a past range, whether they fired or not."""
    from tierflow_cli import text

    end = _moment("--to", last) if last else datetime.now().astimezone()
    times = await connection.client.schedules.backfill(name, _moment("--from", first), end, **options)
    if as_json:
        text.print_json([time.isoformat() for time in times])
        return
    for time in times:
        click.echo(time.isoformat())
    click.echo(text.dim(f"{text.count(len(times), 'time')} {'would fire' if options['check'] else 'fire'}"), err=True)


@schedule.command("next")
@click.argument("name", required=False, default="")
@_with(_WHEN)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--after", metavar="TIME", help="From here on; else from now on.")
@as_json
@connected
async def next_times(
    connection: Connection, *, name: str, limit: int, after: str | None, as_json: bool, **options: Any
) -> None:
    """Say when schedule NAME is going to fire, or with --cron and --every when one would."""
    from tierflow_cli import text

    when = _given(options)
    if bool(name) == bool(when):
        raise click.UsageError("give the name of a schedule, or when it would fire: --cron, --every")
    start = _moment("--after", after) if after else None
    schedules = connection.client.schedules
    times = await (schedules.times(name, limit, after=start) if name else schedules.preview(limit, after=start, **when))
    if as_json:
        text.print_json([time.isoformat() for time in times])
        return
    for time in times:
        click.echo(time.isoformat())


@schedule.command("delete")
@_name
@click.option("--cancel-running", is_flag=True, help="Also cancel its swarms that are at work.")
@_reason
@as_json
@connected
async def delete(connection: Connection, *, name: str, cancel_running: bool, reason: str, as_json: bool) -> None:
    """End it for good. Its name is free again."""
    done = await connection.client.schedules.delete(name, reason, cancel_running=cancel_running)
    _say(name, "deleted", done, as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What was given on the command line, as the SDK takes it; an empty text takes a thing away."""
    # Nothing is a number where one was asked for, and no value where a text was.
    given = {
        name: None if value == "" else value for name, value in options.items() if value is not None and value != ()
    }
    if "cron" in given:
        given["cron"] = list(filter(None, options["cron"])) or None
    for name in given.keys() & {"start_at", "end_at"}:
        given[name] = _moment(f"--{name.removesuffix('_at')}", options[name]) if options[name] else None
    return _with_input(given)


def _with_input(given: dict[str, Any]) -> dict[str, Any]:
    from tierflow_cli.submitting import input_of, pair

    pairs, source = given.pop("pairs", ()), given.pop("input_json", None)
    if pairs or source:
        given["input"] = input_of(source, pairs)
    if "labels" in given:
        given["labels"] = dict(map(pair, given["labels"]))
    return given


def _moment(option: str, given: str) -> datetime:
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError:
        wrong = f"{given!r} is no moment; write for example 2026-05-01 or 2026-05-01T02:00:00+02:00"
        raise click.BadParameter(wrong, param_hint=option) from None


def _show(found: Schedule, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json(found)
        return
    counts = found.counts
    state = f"{text.state(_state(found))}{f'  {found.reason}' if found.reason else ''}"
    if found.actor:
        state += text.dim(f"  by {found.actor}")
    pairs = [
        ("schedule", text.bold(found.name)),
        ("is for", found.spec.description),
        ("state", state),
        ("when", _when(found)),
        ("next", _next(found)),
        ("runs", found.spec.swarm.flow.name or found.spec.swarm.flow.hash[:12] or "a flow of its own"),
        ("overlap", _short(found.spec.DESCRIPTOR.fields_by_name["overlap"], found.spec.overlap, "OVERLAP_POLICY_").lower()),
        ("version", str(found.version)),
        ("fired", f"{counts.fired} times: {counts.succeeded} succeeded, {counts.failed} failed; {counts.skipped} skipped, {counts.missed} missed"),
    ]  # fmt: skip
    text.fields([(key, value) for key, value in pairs if value])


def _say(name: str, what: str, applied: bool, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json({"name": name, "applied": applied})
    else:
        click.echo(f"{text.bold(name)}  {what}{'' if applied else '  (nothing to change)'}")


def _short(field: Any, number: int, prefix: str) -> str:
    return str(field.enum_type.values_by_number[number].name.removeprefix(prefix))


def _state(found: Schedule) -> str:
    return _short(found.DESCRIPTOR.fields_by_name["state"], found.state, "SCHEDULE_STATE_")


def _firing_state(firing: Firing) -> str:
    return _short(firing.DESCRIPTOR.fields_by_name["state"], firing.state, "FIRING_STATE_")


def _when(found: Schedule) -> str:
    from tierflow_cli import text

    spec = found.spec
    parts = [*spec.cron]
    if spec.HasField("every"):
        parts.append(f"every {text.duration(spec.every)}")
    zone = f" {spec.time_zone}" if spec.cron else ""
    return f"{', '.join(parts)}{zone}"


def _next(found: Schedule) -> str:
    from tierflow_cli import text

    return text.moment(found.next_fire) if found.HasField("next_fire") else ""


def _last(found: Schedule) -> str:
    return (
        "" if not found.recent else " ".join(filter(None, (_firing_state(found.recent[0]), _outcome(found.recent[0]))))
    )


def _outcome(firing: Firing) -> str:
    return _short(firing.DESCRIPTOR.fields_by_name["outcome"], firing.outcome, "OUTCOME_").replace("UNSPECIFIED", "")


def _row(firing: Firing) -> tuple[str, str, str, str, str]:
    from tierflow_cli import text

    why = firing.reason or (firing.failure.message if firing.HasField("failure") else "")
    return (firing.firing_id, text.state(_firing_state(firing)), _outcome(firing), firing.swarm_id, why)
