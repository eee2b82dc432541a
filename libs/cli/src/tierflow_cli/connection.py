"""From a command to the coordinator: options that all have in common, one client, and errors as exit codes."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from tierflow import Client

FAILED, INVALID, CONFLICT, NOT_FOUND, UNREACHABLE, DEFECT, AGAIN, FORBIDDEN, INTERRUPTED = (
    1,
    64,
    65,
    66,
    69,
    70,
    75,
    77,
    130,
)
_CODES = {
    "ExecutionFailed": FAILED,
    "InvalidRequest": INVALID,
    "Conflict": CONFLICT,
    "NotFound": NOT_FOUND,
    "Unavailable": UNREACHABLE,
    "ResourceExhausted": AGAIN,
    "PermissionDenied": FORBIDDEN,
}

_OPTIONS = (
    click.option(
        "--address",
        envvar="TIERFLOW_ADDRESS",
        default="127.0.0.1:7701",
        show_default=True,
        help="The coordinator, host:port.",
    ),
    click.option("--tenant", envvar="TIERFLOW_TENANT", help="Whom you belong to, in development mode."),
    click.option("--user", envvar="TIERFLOW_USER", help="Who you are, in development mode."),
    click.option("--roles", envvar="TIERFLOW_ROLES", help="What you are, separated by commas, in development mode."),
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


class Connection:
    """What a command gets: a client that gives up at once, and one that waits over restarts."""

    def __init__(self, address: str, tenant: str | None, user: str | None, roles: str | None = None) -> None:
        self.address = address
        self._tenant, self._user = tenant, user
        self._roles = roles.split(",") if roles else []
        self._clients: list[Client] = []

    @property
    def client(self) -> Client:
        """A client that says at once when nobody can be reached."""
        return self._new(patience=0)

    @property
    def patient(self) -> Client:
        """A client that waits while the coordinator restarts."""
        return self._new(patience=600)

    def _new(self, *, patience: float) -> Client:
        from tierflow import Client

        client = Client(self.address, tenant=self._tenant, user=self._user, roles=self._roles, patience=patience)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Closes all clients."""
        for client in self._clients:
            await client.close()


def connected(command: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """Makes an async function `command(connection, **options)` the body of a click command. It returns an exit code or None."""

    @functools.wraps(command)
    def run(address: str, tenant: str | None, user: str | None, roles: str | None, **options: Any) -> None:
        async def session() -> int | None:
            connection = Connection(address, tenant, user, roles)
            try:
                return await command(connection, **options)
            finally:
                await connection.close()

        sys.exit(guarded(session))

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def guarded(session: Callable[[], Awaitable[int | None]]) -> int:
    """Runs a session and returns its exit code; an error is one message on standard error."""

    async def outcome() -> int:
        from tierflow import TierflowError

        try:
            return await session() or 0
        except TierflowError as error:
            complain(str(error))
            return next((code for kind in type(error).__mro__ if (code := _CODES.get(kind.__name__))), DEFECT)

    try:
        return asyncio.run(outcome())
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 0


def complain(text: str) -> None:
    """One message on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)


def refuse(text: str, code: int) -> NoReturn:
    """Ends the command with a message and an exit code."""
    complain(text)
    sys.exit(code)
