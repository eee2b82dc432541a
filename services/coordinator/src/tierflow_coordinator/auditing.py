"""The audit trail of the public API (I14): every call that may change something leaves an entry, before it is let through.

Which calls only read is listed here; whatever is not listed is a change, so that a new RPC is audited unless somebody says that it need not be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from tierflow_contracts.coordinator.v1 import audit_pb2 as api
from tierflow_durable.audit_trail import AuditFilter, AuditTrail, Entry
from tierflow_durable.durable import Durable
from tierflow_runtime.contract_basics import LONGEST_TEXT
from tierflow_runtime.errors import failure_of
from tierflow_runtime.security import caller_of
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import micros

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.sessions import check_id

READS: Final = frozenset(
    (
        "GetSwarm", "ListSwarms", "WaitSwarm", "WatchSwarm", "ListEvents", "QuerySwarm", "ListApprovals", "Explain", "VerifySwarm", "VerifyRun",
        "GetQueue", "GetRun", "ListRuns", "ListSteps", "ListLogs", "ListExecutors", "CheckFlow", "GetFlow", "ListFlows", "ReadBlob",
        "ListCheckpoints", "ListDeadLetters", "GetDeadLetter", "ListAudit", "GetContext", "ReadBlackboard", "ListBlackboard",
        "ListBlackboardHistory", "GetSchedule", "ListSchedules", "ListScheduleTimes",
    )
)  # fmt: skip
SUBMISSIONS: Final = frozenset(("SubmitSwarm", "SubmitSwarms", "ExecuteSwarms"))
"""Their record is the swarm itself: its row and its first event say who, when and what, and are written by the same commit."""
_SUBJECTS: Final = ("swarm_id", "run_id", "schedule_id", "id", "name")
_LONGEST_REASON: Final = 2000


class Audited:
    """A servicer whose changing calls leave entries; all else is passed on."""

    def __init__(self, servicer: Any, trail: AuditTrail) -> None:
        self._servicer = servicer
        self._trail = trail

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)
        if not name[0].isupper() or name in READS or name in SUBMISSIONS:
            return method
        return self._audited(name, method)

    def _audited(self, action: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            if getattr(request, "validate_only", False):
                return await method(request, context)
            caller = caller_of(context)
            entry = await self._trail.begin(
                caller.tenant,
                caller.user_id,
                action,
                subject=_first(request, _SUBJECTS),
                command_id=_first(request, ("command_id", "signal_id", "decision_id", "request_id")),
                reason=_first(request, ("reason",), longest=_LONGEST_REASON),
            )
            code = "CANCELLED"  # The caller has hung up: what it began goes on.
            subject = result = ""
            try:
                answer = await method(request, context)
                code, subject, result = "OK", _registered(answer), _made(answer)
                return answer
            except FailureError as refused:
                code = refused.failure.code
                raise
            except grpc.aio.AioRpcError as refused:
                code = failure_of(refused).code
                raise
            except Exception:  # a defect, which the boundary sees to; the entry says that it was one
                code = "INTERNAL"
                raise
            finally:
                await self._trail.done(entry, code, subject=subject, result=result)

        return call


def _first(request: Any, names: tuple[str, ...], *, longest: int = LONGEST_TEXT) -> str:
    """The first of these fields that is there and set, as far as it can be stored: what is wrong with it is found later."""
    for name in names:
        value = getattr(request, name, "")
        if isinstance(value, str) and value:
            return value.replace("\x00", "\ufffd")[:longest]
    return ""


def _registered(answer: Any) -> str:
    """The flow that a call has stored."""
    flow = getattr(answer, "flow", None)
    return f"{flow.name}@{flow.version}" if flow is not None and hasattr(flow, "version") else ""


def _made(answer: Any) -> str:
    """The swarm that a call has made."""
    accepted = getattr(answer, "accepted", None)
    made = getattr(accepted, "swarm_id", "") or getattr(answer, "swarm_id", "")
    return made if isinstance(made, str) else ""


class Auditing:
    """Part of the coordinator's service: the entries, listed."""

    _durable: Durable
    _access: Access

    async def ListAudit(self, request: api.ListAuditRequest, context: Any) -> api.ListAuditResponse:  # noqa: N802 - named by the proto
        """See the proto."""
        caller = caller_of(context)
        size = listing.limit_of("page_size", request.page_size, default=100, most=1000)
        listing.check_texts(user_id=request.user_id, subject=request.subject, **_numbered(request.actions))
        if request.page_token:
            check_id("page_token", request.page_token)
        user = self._access.visible_user(caller, request.user_id)
        if request.user_id and user != request.user_id:
            return api.ListAuditResponse()
        found = await self._durable.audit.page(
            AuditFilter(
                tenant=caller.tenant,
                user_id=user,
                subject=request.subject or None,
                actions=tuple(request.actions),
                after=micros(request.after) if request.HasField("after") else None,
                before=micros(request.before) if request.HasField("before") else None,
                before_id=request.page_token or None,
                limit=size + 1,
            )
        )
        token = found[size - 1].id if len(found) > size else ""
        return api.ListAuditResponse(entries=[_message(one) for one in found[:size]], next_page_token=token)


def _numbered(actions: Any) -> dict[str, str]:
    return {f"actions[{index}]": text for index, text in enumerate(actions[:100])}


def _message(entry: Entry) -> api.AuditEntry:
    message = api.AuditEntry(
        id=entry.id,
        user_id=entry.user_id,
        action=entry.action,
        subject=entry.subject,
        command_id=entry.command_id,
        reason=entry.reason,
        code=entry.code,
        result=entry.result,
    )
    message.time.FromMicroseconds(entry.time)
    return message
