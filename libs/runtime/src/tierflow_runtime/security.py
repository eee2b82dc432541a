"""Who calls: tenant and user come from the credential, never from the payload.

An `Authenticator` turns the metadata of a call into a `Caller`, or refuses. The boundary of `serving` asks it once per call or stream; servicers ask
`caller_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

import msgspec

from tierflow_runtime.contract_basics import LONGEST_TEXT, PLACEHOLDERS
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

TENANT_KEY: Final = "tierflow-tenant"
USER_KEY: Final = "tierflow-user"
ROLES_KEY: Final = "tierflow-roles"
"""Names of roles, separated by commas."""


class Caller(msgspec.Struct, frozen=True):
    """Who calls. Immutable, and the only source of tenant and user."""

    tenant: str
    user_id: str
    roles: tuple[str, ...] = ()
    """What the credential says that the user is: approvals and norms ask for it."""


_caller: ContextVar[Caller | None] = ContextVar("tierflow_caller", default=None)


class Authenticator(Protocol):
    """Knows callers by their metadata."""

    async def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """The caller. Raises FailureError with UNAUTHENTICATED or PERMISSION_DENIED."""
        ...


class DevelopmentAuthenticator:
    """Believes whoever calls: `tierflow-tenant` and `tierflow-user`, by default `default` and `dev`; `tierflow-roles`, by default none.

    For loopback only.
    """

    async def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """The caller that the metadata names."""
        roles = _identity(metadata, ROLES_KEY, "none").split(",") if ROLES_KEY in metadata else []
        return Caller(
            _identity(metadata, TENANT_KEY, "default"),
            _identity(metadata, USER_KEY, "dev"),
            tuple(dict.fromkeys(role.strip() for role in roles if role.strip())),
        )


class RefusingAuthenticator:
    """Lets nobody in: what a service has that was given no way to know its callers (L14)."""

    async def authenticate(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """Refuses."""
        raise FailureError(
            failure(
                "UNAUTHENTICATED",
                "This service was given no way to know its callers: it is not in development mode and no credentials are configured.",
                component="security",
                operation="authenticate",
            )
        )


def caller_of(context: Any) -> Caller:
    """Who makes the present call. The argument is the call's servicer context; only the boundary's verdict counts, nothing in it is read.

    Raises:
        FailureError: UNAUTHENTICATED, where the call came past the boundary (fail closed).
    """
    caller = _caller.get()
    if caller is None:
        raise FailureError(
            failure(
                "UNAUTHENTICATED", "The caller of this call is not known.", component="security", operation="caller_of"
            )
        )
    return caller


def set_caller(caller: Caller | None) -> None:
    """Says who makes the present call. For the boundary, and for tests of servicers without one."""
    _caller.set(caller)


def own_or_refuse(caller: Caller, tenant: str, user_id: str) -> None:
    """Refuses a payload that names another tenant or user than its credential (L2, L11); empty ones are filled by the service.

    Raises:
        FailureError: PERMISSION_DENIED.
    """
    for name, said, known in (("tenant", tenant, caller.tenant), ("user_id", user_id, caller.user_id)):
        if said and said != known:
            raise FailureError(
                failure(
                    "PERMISSION_DENIED",
                    f"context.{name} is {said!r}, the credential's is {known!r}. Leave it empty or use that.",
                    component="security",
                    operation="own_or_refuse",
                )
            )


def _identity(metadata: Mapping[str, str | bytes], key: str, default: str) -> str:
    value = metadata.get(key, default)
    if (
        not isinstance(value, str)
        or not value.strip()
        or value != value.strip()
        or len(value) > LONGEST_TEXT
        or value.lower() in PLACEHOLDERS
        or not value.isprintable()
    ):
        raise FailureError(
            failure(
                "UNAUTHENTICATED",
                f"The metadata {key!r} is not an identity.",
                component="security",
                operation="authenticate",
            )
        )
    return value
