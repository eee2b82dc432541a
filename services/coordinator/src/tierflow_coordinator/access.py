"""Who may see what: a swarm belongs to a user of a tenant (L4, H23)."""

from __future__ import annotations

from typing import Final

from tierflow_runtime.errors import failure
from tierflow_runtime.security import Caller
from tierflow_runtime.values import FailureError

DEVELOPER: Final = "dev"
"""The user that development mode believes everybody to be who names none: sees all of its tenant."""


class Access:
    """Decides from the caller alone; what is not allowed is refused, never filtered out in silence where somebody asked by id."""

    def __init__(self, *, development: bool) -> None:
        self._development = development

    def sees_tenant(self, caller: Caller) -> bool:
        """Whether the caller may see what other users of its tenant own."""
        return self._development and caller.user_id == DEVELOPER

    def visible_user(self, caller: Caller, asked: str) -> str | None:
        """The user to filter a list by: the one asked for or None, as far as the caller may see them; else the caller itself."""
        if self.sees_tenant(caller):
            return asked or None
        return caller.user_id

    def check(self, caller: Caller, tenant: str, user_id: str, *, what: str, hide: bool = True) -> None:
        """Refuses what is not the caller's.

        Args:
            caller: Who asks.
            tenant: The owner's tenant.
            user_id: The owner.
            what: What was asked for, such as `swarm <id>`.
            hide: Whether another user's is said not to exist; else its existence is admitted and the caller told that it is not allowed.

        Raises:
            FailureError: NOT_FOUND or PERMISSION_DENIED. Another tenant's never exists.
        """
        if tenant == caller.tenant and (user_id == caller.user_id or self.sees_tenant(caller)):
            return
        if tenant != caller.tenant or hide:
            raise FailureError(failure("NOT_FOUND", f"There is no {what}.", component="access", operation="check"))
        raise FailureError(
            failure("PERMISSION_DENIED", f"{what} is another user's.", component="access", operation="check")
        )
