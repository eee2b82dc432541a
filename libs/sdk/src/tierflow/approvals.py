"""What people decide: approvals that wait, and saying yes, no, or that somebody else is to decide."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import approval_pb2
from tierflow_contracts.orchestrator.v1.approval_pb2 import Approval

from tierflow.calls import Calls
from tierflow.ids import new_id


class Approvals:
    """The deciding part of a client."""

    _calls: Calls

    def approvals(self, run_id: str = "", *, limit: int | None = None) -> AsyncIterator[Approval]:
        """Approvals that wait: those that the caller may decide, and those of the caller's runs; of the newest runs first."""
        return self._approvals(run_id, limit)

    async def _approvals(self, run_id: str, limit: int | None) -> AsyncIterator[Approval]:
        request, count = api.ListApprovalsRequest(run_id=run_id), 0
        while True:
            page: api.ListApprovalsResponse = await self._calls.call("ListApprovals", request)
            for approval in page.approvals:
                if limit is not None and count >= limit:
                    return
                count += 1
                yield approval
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def approve(self, run_id: str, step_id: str, reason: str = "", *, decision_id: str = "") -> bool:
        """Lets a step go on, as far as the caller is concerned. Returns whether that was counted, now or before.

        Raises:
            PermissionDenied: The caller is not among those who may decide.
            Conflict: The step waits for no approval.
            NotFound: There is no such run or step.
        """
        return await self._decide(run_id, step_id, approval_pb2.APPROVAL_VERDICT_APPROVED, reason, "", decision_id)

    async def reject(self, run_id: str, step_id: str, reason: str = "", *, decision_id: str = "") -> bool:
        """Makes a step fail with APPROVAL_REJECTED. Returns and raises what `approve` does."""
        return await self._decide(run_id, step_id, approval_pb2.APPROVAL_VERDICT_REJECTED, reason, "", decision_id)

    async def delegate(self, run_id: str, step_id: str, to: str, reason: str = "", *, decision_id: str = "") -> bool:
        """Lets another user decide instead of the caller. Returns and raises what `approve` does; `InvalidRequest` where that user may decide anyway."""
        return await self._decide(run_id, step_id, approval_pb2.APPROVAL_VERDICT_DELEGATED, reason, to, decision_id)

    async def _decide(
        self,
        run_id: str,
        step_id: str,
        verdict: approval_pb2.ApprovalVerdict.ValueType,
        reason: str,
        to: str,
        decision_id: str,
    ) -> bool:
        request = api.DecideApprovalRequest(
            run_id=run_id,
            step_id=step_id,
            verdict=verdict,
            reason=reason,
            delegate_to=to,
            decision_id=decision_id or new_id(),
        )
        response: api.DecideApprovalResponse = await self._calls.call("DecideApproval", request)
        return response.applied
