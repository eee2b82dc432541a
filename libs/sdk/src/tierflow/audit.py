"""Who did what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from tierflow_contracts.coordinator.v1 import audit_pb2 as api

from tierflow.calls import Calls


class Audit:
    """Part of `Client`."""

    _calls: Calls

    def audit(
        self,
        *,
        subject: str = "",
        user: str = "",
        actions: Iterable[str] = (),
        after: datetime | None = None,
        before: datetime | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[api.AuditEntry]:
        """Calls that asked for changes, newest first: about a swarm, a run, a flow, by a user, of some names such as `CancelSwarm`; `limit` None gives all."""
        request = api.ListAuditRequest(user_id=user, subject=subject, actions=actions)
        if after is not None:
            request.after.FromDatetime(after)
        if before is not None:
            request.before.FromDatetime(before)
        return self._calls.pages("ListAudit", request, "entries", limit)
