"""`tierflow submit`: start an execution, and wait for it where that is wished."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import AGAIN, FAILED, INTERRUPTED, INVALID, NOT_FOUND, Connection, as_json, connected

if TYPE_CHECKING:
    from tierflow import Handle, Result


@click.command()
@click.argument("flow")
@click.argument("input_file", required=False, metavar="[@FILE]")
@click.option(
    "-i",
    "--input",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="One value of the input; JSON where it reads as JSON, else text.",
)
@click.option(
    "--input-json", metavar="JSON", help="The whole input, a JSON object; @FILE reads a file, @- standard input."
)
@click.option("--wait", is_flag=True, help="Wait for the end and print the output.")
@click.option(
    "--wait-timeout", type=float, metavar="SECONDS", help="Give up waiting after so long; the execution goes on."
)
@click.option("--watch", "watching", is_flag=True, help="Follow it live until its end.")
@click.option("--request-id", help="The same id with the same arguments is the same execution.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label to find it by.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher is sooner.")
@click.option("--timeout", metavar="DURATION", help="How long it may take, such as 90s or 15m.")
@click.option(
    "--credits",
    "credit",
    type=click.IntRange(0),
    metavar="MICRO",
    help="Most micro-credits it may spend; 1000000 are 1 USD. Once they are spent, no further attempt starts.",
)
@click.option("--test-mode", is_flag=True, help="Side-effecting handlers only pretend.")
@as_json
@connected
async def submit(
    connection: Connection,
    *,
    flow: str,
    input_file: str | None,
    pairs: tuple[str, ...],
    input_json: str | None,
    labels: tuple[str, ...],
    credit: int | None,
    wait: bool,
    wait_timeout: float | None,
    watching: bool,
    as_json: bool,
    **options: Any,
) -> int | None:
    """Start an execution of FLOW: a registered name, name@version, or a path to YAML or JSON of a flow, or of a plan of several runs.

    \b
    tierflow submit hello -i name=Ada --wait
    tierflow submit flow.yaml @input.json --watch
    """  # noqa: D301 - click's sign for "do not wrap"
    from tierflow import Budget

    value = input_of(input_file or input_json, pairs)
    budget = Budget(credits=credit) if credit is not None else None
    target = plan_in(flow) or flow
    handle = await connection.client.submit(target, value, labels=dict(map(pair, labels)), budget=budget, **options)
    if watching:
        return await _watch(connection, handle)
    if wait or wait_timeout is not None:
        return await _wait(handle, wait_timeout, as_json)
    _say_accepted(handle, as_json)
    return None


def _say_accepted(handle: Handle, as_json: bool) -> None:
    from tierflow_cli import text

    if as_json:
        text.print_json(
            {"swarm_id": handle.id, "run_id": handle.run_id, "trace_id": handle.trace_id, "created": handle.created}
        )
        return
    text.fields([("swarm", handle.id), ("run", handle.run_id), ("trace", handle.trace_id)])
    if not handle.created:
        click.echo("This request id is known: it is the execution that was started then.")
    click.echo(text.dim(f"follow it: tierflow watch {handle.id}"), err=True)


async def _wait(handle: Handle, timeout: float | None, as_json: bool) -> int:
    from tierflow import ExecutionFailed

    try:
        result = await handle.wait(timeout)
    except TimeoutError:
        click.echo(
            f"{handle.id} has not ended after {timeout:g} s and goes on; follow it: tierflow watch {handle.id}",
            err=True,
        )
        return AGAIN
    if as_json:
        _print_result(result)
        return 0 if result.state == "COMPLETED" else FAILED
    try:
        click.echo(json.dumps(result.value(), indent=2, ensure_ascii=False))
    except ExecutionFailed as failed:
        from tierflow_cli.connection import complain

        complain(str(failed))
        return FAILED
    from tierflow_cli import text

    click.echo(text.dim(f"{handle.id} {result.outcome} in {text.span(result.duration)}"), err=True)
    return 0


def _print_result(result: Result) -> None:
    from tierflow_cli import text

    text.print_json(
        {
            "swarm_id": result.id,
            "trace_id": result.trace_id,
            "state": result.state,
            "outcome": result.outcome,
            "output": result.output,
            "failure": text.plain(result.failure) if result.failure else None,
            "usage": text.plain(result.usage),
            "duration": result.duration,
        }
    )


async def _watch(connection: Connection, handle: Handle) -> int:
    from tierflow_cli.following import follow

    click.echo(f"swarm {handle.id}  trace {handle.trace_id}", err=True)
    final = await follow(connection.patient, handle.id)
    return INTERRUPTED if final is None else 0 if final == "COMPLETED" else FAILED


_RUNS = re.compile(r"""^(runs|"runs"|'runs'):|^\s*\{\s*"(runs|name|output)":""", re.MULTILINE)
"""Cheap, so that files of flows are not read twice."""


def plan_in(flow: str) -> dict[str, Any] | None:
    """The plan of several runs that a file holds; None where it holds a flow, or where it is no file. Raises UsageError."""
    path = Path(flow)
    found = _plan_text(path)
    if found is None:
        return None
    runs = found["runs"]
    for run in runs.values() if isinstance(runs, dict) else runs if isinstance(runs, list) else ():
        if isinstance(run, dict):
            run.update(_found_beside(run, path.parent))
    return found


def _plan_text(path: Path) -> dict[str, Any] | None:
    if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        return None
    text = _read(str(path))
    if _RUNS.search(text) is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    return found if isinstance(found, dict) and "runs" in found and "steps" not in found else None


def _found_beside(run: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The flows of a run, with paths that count from the plan's directory."""

    def beside(flow: Any) -> Any:
        return str(directory / flow) if isinstance(flow, str) and flow.endswith((".yaml", ".yml", ".json")) else flow

    moved: dict[str, Any] = {}
    if "flow" in run:
        moved["flow"] = beside(run["flow"])
    if isinstance(run.get("among"), list):
        moved["among"] = [beside(flow) for flow in run["among"]]
    return moved


def input_of(source: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """The input from a file or text, and values by name. Raises UsageError."""
    value: Any = {}
    if source:
        text = source
        if source.startswith("@"):
            text = sys.stdin.read() if source == "@-" else _read(source[1:])
        try:
            value = json.loads(text, parse_constant=_no_number)
        except ValueError as error:
            hint = f"; a file is named with @: @{source}" if Path(source).exists() else ""
            raise click.UsageError(f"the input is not JSON: {error}{hint}") from error
        except RecursionError:
            raise click.UsageError("the input is not JSON that can be read: it is nested too deeply") from None
        if not isinstance(value, dict):
            raise click.UsageError("the input is not a JSON object")
    value.update((key, _json_or_text(text)) for key, text in map(pair, pairs))
    return dict(value)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        from tierflow_cli.connection import refuse

        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        refuse(f"{path} cannot be read: {reason}", NOT_FOUND if isinstance(error, FileNotFoundError) else INVALID)


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE in two. Raises UsageError."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"{text!r} is not KEY=VALUE")
    return key, value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
