"""`tierflow approvals`: what waits for people, and what they say."""

from __future__ import annotations

from typing import Any

import click

from tierflow_cli.connection import Connection, as_json, connected
from tierflow_cli.groups import Listing

_run = click.argument("run_id", metavar="RUN")
_step = click.argument("step_id", metavar="STEP")
_reason = click.option("--reason", default="", help="Why; kept in the history.")


@click.group(cls=Listing)
def approvals() -> None:
    """List what waits for people; approve, reject, delegate. Without a subcommand: list."""


@approvals.command("list")
@click.option("--run", "run_id", default="", help="Only of this run.")
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@as_json
@connected
async def list_approvals(connection: Connection, *, run_id: str, limit: int, as_json: bool) -> None:
    """List what waits for you, and what of yours waits for others."""
    from tierflow_cli import text

    found = [approval async for approval in connection.client.approvals(run_id, limit=limit)]
    if as_json:
        text.print_json(found)
        return
    rows = [
        (
            approval.run_id,
            approval.step_id,
            f"{sum(vote.verdict == 1 for vote in approval.votes)}/{approval.needed}",
            ", ".join((*approval.users, *(f"role {role}" for role in approval.roles))),
            approval.message,
        )
        for approval in found
    ]
    text.table(("RUN", "STEP", "APPROVED", "ASKED", "QUESTION"), rows)


@approvals.command("approve")
@_run
@_step
@_reason
@as_json
@connected
async def approve(connection: Connection, *, run_id: str, step_id: str, reason: str, as_json: bool) -> None:
    """Let a step go on."""
    _say(run_id, step_id, "approved", await connection.client.approve(run_id, step_id, reason), as_json)


@approvals.command("reject")
@_run
@_step
@_reason
@as_json
@connected
async def reject(connection: Connection, *, run_id: str, step_id: str, reason: str, as_json: bool) -> None:
    """Make a step fail with APPROVAL_REJECTED."""
    _say(run_id, step_id, "rejected", await connection.client.reject(run_id, step_id, reason), as_json)


@approvals.command("delegate")
@_run
@_step
@click.argument("to", metavar="USER")
@_reason
@as_json
@connected
async def delegate(connection: Connection, *, run_id: str, step_id: str, to: str, reason: str, as_json: bool) -> None:
    """Let another user decide instead of you."""
    _say(run_id, step_id, f"delegated to {to}", await connection.client.delegate(run_id, step_id, to, reason), as_json)


def _say(run_id: str, step_id: str, what: str, applied: bool, as_json: bool) -> None:
    from tierflow_cli import text

    answer: dict[str, Any] = {"run_id": run_id, "step_id": step_id, "applied": applied}
    if as_json:
        text.print_json(answer)
    else:
        click.echo(f"{run_id}  {step_id}  {what}{'' if applied else '  (nothing to change: you have decided already)'}")
