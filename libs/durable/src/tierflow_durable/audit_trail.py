"""Who asked for which change, and what came of it (I14).

An entry is stored before the change is made: nothing is changed of which there is no entry. What came of it is added afterwards; an entry without that belongs to a
call that is under way, or whose process died: the histories of the entities say then what was done. A new execution needs no entry: its own row says who, when, what.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database, Viewer
from tierflow_durable.ids import floor_of, moment_of, uuid7
from tierflow_durable.sqlfile import Statement, statement

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SUBMIT: Final = "SubmitSwarm"
KEEP: Final[Micros] = 400 * 86_400_000_000
"""For so long entries are kept."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One call that asked for a change."""

    id: str
    user_id: str
    action: str
    """The RPC's name."""
    subject: str
    """The execution, flow, schedule, letter that it was about."""
    command_id: str = ""
    reason: str = ""
    code: str = ""
    """`OK`, or that of the failure; empty while it is under way."""
    result: str = ""
    """What was made by it, where something was."""

    @property
    def time(self) -> Micros:
        """When, to the millisecond."""
        return moment_of(self.id)


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to list; of one tenant, always. An unset field does not filter."""

    tenant: str
    user_id: str | None = None
    subject: str | None = None
    actions: tuple[str, ...] = ()
    after: Micros | None = None
    before: Micros | None = None
    before_id: str | None = None
    limit: int = 100


class AuditTrail:
    """The entries of one tier."""

    def __init__(self, database: Database, clock: DatabaseClock) -> None:
        self._database = database
        self._clock = clock

    async def begin(
        self, tenant: str, user_id: str, action: str, *, subject: str, command_id: str = "", reason: str = ""
    ) -> str:
        """Stores that a change is asked for; the entry's id. Waits for a database that restarts. Raises FailureError DATABASE_UNAVAILABLE: then nothing may be changed."""
        entry_id = uuid7(self._clock.now())
        await self._database.fetch_patiently(
            _query("begin"), id=entry_id, tenant=tenant, user_id=user_id, action=action, subject=subject,
            command_id=command_id, reason=reason,
        )  # fmt: skip
        return entry_id

    async def done(self, entry_id: str, code: str, *, subject: str = "", result: str = "") -> None:
        """Adds what came of it. A database that is away meanwhile leaves it open."""
        try:
            await self._database.fetch(_query("done"), id=entry_id, code=code, subject=subject, result=result)
        except FailureError:
            return

    async def page(self, wanted: AuditFilter) -> list[Entry]:
        """Entries, newest first, submissions among them."""
        common, values = _common(wanted)
        audited, submitted = list(common), list(common)
        if wanted.subject is not None:
            audited.append("subject = :subject")
            values["subject"] = wanted.subject
            submitted.append("id = :entity_id" if _ID.fullmatch(wanted.subject) else "false")
            if _ID.fullmatch(wanted.subject):
                values["entity_id"] = wanted.subject
        if wanted.actions:
            audited.append("action = ANY(:actions::text[])")
            values["actions"] = list(wanted.actions)
            if SUBMIT not in wanted.actions:
                submitted.append("false")
        query = _query("page", audited=" AND ".join(audited), submitted=" AND ".join(submitted))
        viewer = Viewer(wanted.tenant, wanted.user_id or "")
        rows = await self._database.fetch_seen(viewer, query, limit=wanted.limit, **values)
        return [_read(row) for row in rows]


FORGET: Final = statement("forget", filename="audit.sql")


def _common(wanted: AuditFilter) -> tuple[list[str], dict[str, Any]]:
    """Conditions that both tables know. An id tells when it was made."""
    conditions, values = ["tenant = :tenant"], {"tenant": wanted.tenant}
    if wanted.user_id is not None:
        conditions.append("user_id = :user_id")
        values["user_id"] = wanted.user_id
    if wanted.after is not None:
        conditions.append("id >= :least")
        values["least"] = floor_of(max(0, wanted.after))
    if wanted.before is not None:
        conditions.append("id < :most")
        values["most"] = floor_of(max(0, wanted.before))
    if wanted.before_id is not None:
        conditions.append("id < :before_id")
        values["before_id"] = wanted.before_id
    return conditions, values


def _query(name: str, **parts: str) -> Statement:
    return statement(name, filename="audit.sql", **parts)


def _read(row: Any) -> Entry:
    names = ("user_id", "action", "subject", "command_id", "reason", "code", "result")
    return Entry(id=str(row["id"]), **{name: row[name] for name in names})
