"""What people decide, on its way to Tier 2: as the caller, with the roles of its credential, within its tenant."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import approval_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_runtime.errors import failure
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.values import FailureError

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.reaching import Reaching
from tierflow_coordinator.sessions import check_id


class Approvals(Reaching):
    """Who may decide is known to the run, which asked: Tier 1 says who the caller is, Tier 2 whether that is somebody who was asked."""

    _access: Access

    async def DecideApproval(  # noqa: N802 - named by the proto
        self, request: api.DecideApprovalRequest, context: Any
    ) -> api.DecideApprovalResponse:
        """See the proto."""
        caller = caller_of(context)
        listing.check_texts(
            step_id=request.step_id,
            reason=request.reason,
            delegate_to=request.delegate_to,
            decision_id=request.decision_id,
        )
        await self._of_tenant(request.run_id, caller)
        done = await (await self._runs_stub()).DecideApproval(
            approval_pb2.DecideApprovalRequest(
                run_id=request.run_id,
                step_id=request.step_id,
                verdict=request.verdict,
                reason=request.reason,
                delegate_to=request.delegate_to,
                decision_id=request.decision_id,
                actor=caller.user_id,
                actor_roles=caller.roles,
            ),
            **self._call(caller),
        )
        return api.DecideApprovalResponse(
            applied=done.applied,
            state=done.state,
            decision_id=done.decision_id,
            approved=done.approved,
            needed=done.needed,
        )

    async def ListApprovals(  # noqa: N802
        self, request: api.ListApprovalsRequest, context: Any
    ) -> api.ListApprovalsResponse:
        """See the proto."""
        caller = caller_of(context)
        if request.run_id:
            await self._of_tenant(request.run_id, caller)
        found = await (await self._runs_stub()).ListApprovals(
            approval_pb2.ListApprovalsRequest(
                tenant=caller.tenant,
                run_id=request.run_id,
                user_id="" if self._access.sees_tenant(caller) else caller.user_id,
                roles=caller.roles,
                page_size=request.page_size,
                page_token=request.page_token,
            ),
            **self._call(caller),
        )
        return api.ListApprovalsResponse(approvals=found.approvals, next_page_token=found.next_page_token)

    async def _of_tenant(self, run_id: str, caller: Caller) -> None:
        """Another tenant's run does not exist (L4)."""
        check_id("run_id", run_id)
        found = await (await self._runs_stub()).GetRun(orchestrator.GetRunRequest(run_id=run_id), **self._call(caller))
        if found.run.context.tenant != caller.tenant:
            raise FailureError(
                failure("NOT_FOUND", f"There is no run {run_id}.", component="access", operation="check")
            )
