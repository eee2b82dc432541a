"""RPCs that bring something to a run from outside: signals, and what people decide."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.orchestrator.v1 import approval_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.chain import check_message, verify
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_durable.reading import ListFilter
from tierflow_runtime import wire
from tierflow_runtime.contract import refusal
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.security import caller_of
from tierflow_runtime.values import FailureError, Violation

from tierflow_orchestrator.checks import page_size, sound_texts, valid_id, violated
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.wire_approvals import VERDICTS, pending_of

DECIDABLE = {VERDICTS[name]: name for name in ("APPROVED", "REJECTED", "DELEGATED")}
MAY_ASK = ("RUNNING", "SUSPENDED", "PAUSING", "PAUSED")
"""States of runs in which something can wait for people."""


class Messages:
    """Any replica takes them and hands them to the run's owner (R14)."""

    _durable: Durable

    async def SignalRun(self, request: pb.SignalRunRequest, context: Any) -> pb.SignalRunResponse:  # noqa: N802 - named by the proto
        """See the proto."""
        valid_id("run_id", request.run_id)
        if not request.name:
            raise violated("name", "must not be empty", "signal_run")
        sound_texts(name=request.name, signal_id=request.signal_id, actor=request.actor)
        payload = _payload(request)
        signal_id = request.signal_id or uuid7()
        command = commands.Signal(command_id=signal_id, name=request.name, payload=payload, actor=request.actor)
        reply = await self._durable.router.command(request.run_id, command, signal_id)
        if reply.failure is not None:
            raise FailureError(reply.failure)
        state = wire.RUN_STATES.number(reply.state)
        return pb.SignalRunResponse(applied=reply.applied, state=state, signal_id=signal_id)

    # --- history ---

    async def VerifyRun(self, request: pb.VerifyRunRequest, context: Any) -> pb.VerifyRunResponse:  # noqa: N802
        """See the proto."""
        valid_id("run_id", request.run_id)
        row = await self._durable.reader.row(request.run_id)
        if row is None:
            raise self._durable.reader.not_found(request.run_id)
        found = await verify(self._durable.database, request.run_id, row.seq)
        return pb.VerifyRunResponse(check=check_message(request.run_id, found))

    # --- approvals ---

    async def DecideApproval(  # noqa: N802
        self, request: approval_pb2.DecideApprovalRequest, context: Any
    ) -> approval_pb2.DecideApprovalResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        verdict = DECIDABLE.get(request.verdict)
        if verdict is None:
            raise violated("verdict", "set APPROVED, REJECTED or DELEGATED", "decide_approval")
        sound_texts(
            step_id=request.step_id,
            reason=request.reason,
            delegate_to=request.delegate_to,
            decision_id=request.decision_id,
            actor=request.actor,
        )
        decision_id = request.decision_id or uuid7()
        command = commands.DecideApproval(
            command_id=decision_id,
            step_id=request.step_id,
            verdict=verdict,
            actor=request.actor,
            roles=tuple(request.actor_roles),
            reason=request.reason,
            delegate_to=request.delegate_to,
        )
        reply = await self._durable.router.command(request.run_id, command, decision_id)
        if reply.failure is not None:
            raise FailureError(reply.failure)
        answer: approval_pb2.DecideApprovalResponse = await self._durable.reader.view(
            request.run_id, lambda run: _decided(run, request.step_id)
        )
        answer.applied, answer.decision_id = reply.applied, decision_id
        return answer

    async def ListApprovals(  # noqa: N802
        self, request: approval_pb2.ListApprovalsRequest, context: Any
    ) -> approval_pb2.ListApprovalsResponse:
        """See the proto."""
        sound_texts(user_id=request.user_id, page_token=request.page_token, tenant=request.tenant)
        look = _Pending(request.user_id, tuple(request.roles))
        if request.run_id:
            valid_id("run_id", request.run_id)
            return approval_pb2.ListApprovalsResponse(approvals=await self._durable.reader.view(request.run_id, look))
        if request.page_token:
            valid_id("page_token", request.page_token)
        wanted = ListFilter(
            tenant=request.tenant or caller_of(context).tenant,
            states=MAY_ASK,
            before_id=request.page_token or None,
            limit=page_size(request.page_size, 100, most=200),
        )
        page = await self._durable.reader.page(wanted)
        found: list[approval_pb2.Approval] = []
        for row in page.rows:
            # Where a run does nothing but wait, its row says whether it waits for people: of a million that sleep none is loaded for nothing.
            if row.state == "SUSPENDED" and row.reason.startswith(("TIMER: ", "SIGNAL: ")):
                continue
            found += await self._durable.reader.view(row.id, look)
        return approval_pb2.ListApprovalsResponse(approvals=found, next_page_token=page.next_id or "")


class _Pending:
    """How the approvals of a run that somebody may see are looked up."""

    def __init__(self, user: str, roles: tuple[str, ...]) -> None:
        self._user = user
        self._roles = roles

    def __call__(self, run: Run) -> list[approval_pb2.Approval]:
        return pending_of(run, self._user, self._roles)


def _decided(run: Run, step_id: str) -> approval_pb2.DecideApprovalResponse:
    """How an approval stands."""
    step = run.steps.get(step_id)
    approval = None if step is None else step.approval
    return approval_pb2.DecideApprovalResponse(
        state=wire.STEP_STATES.number("" if step is None else step.state),
        approved=0 if approval is None else approval.approved,
        needed=0 if approval is None else approval.needed,
    )


def _payload(request: pb.SignalRunRequest) -> str:
    """The payload as a JSON text. Raises FailureError INVALID_REQUEST."""
    if not request.HasField("payload"):
        return "null"
    found: list[Violation] = []
    check_payload("payload", request.payload, found)
    if found:
        raise FailureError(refusal(found, component="orchestrator", operation="signal_run"))
    payload = wire.payload_from_proto(request.payload)
    if payload is not None and not isinstance(payload, str):
        raise violated("payload", "must be inline: a stored value is not taken", "signal_run")
    return payload or "null"
