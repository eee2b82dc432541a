"""Whether histories are as they were written (S12): the swarm's own in Tier 1, those of its runs in Tier 2."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.chain import check_message, verify
from tierflow_durable.durable import Durable
from tierflow_runtime.security import caller_of

from tierflow_coordinator.reaching import Reaching


class Histories(Reaching):
    """Reads everything; changes nothing."""

    _durable: Durable

    async def VerifyRun(  # noqa: N802 - named by the proto
        self, request: api.VerifyRunRequest, context: Any
    ) -> api.VerifyRunResponse:
        """See the proto."""
        caller = caller_of(context)
        await self._run(request.run_id, caller)
        found = await (await self._runs_stub()).VerifyRun(
            orchestrator.VerifyRunRequest(run_id=request.run_id), **self._call(caller)
        )
        return api.VerifyRunResponse(check=found.check)

    async def VerifySwarm(  # noqa: N802
        self, request: api.VerifySwarmRequest, context: Any
    ) -> api.VerifySwarmResponse:
        """See the proto."""
        caller = caller_of(context)
        await self._visible(request.swarm_id, caller, hide=False)
        row = await self._durable.reader.row(request.swarm_id)
        own = await verify(self._durable.database, request.swarm_id, 0 if row is None else row.seq)
        answer = api.VerifySwarmResponse(swarm=check_message(request.swarm_id, own))
        wanted = orchestrator.ListRunsRequest(tenant=caller.tenant, swarm_id=request.swarm_id, page_size=1000)
        stub, call = await self._runs_stub(), self._call(caller)
        while True:
            page = await stub.ListRuns(wanted, **call)
            for run in page.runs:
                found = await stub.VerifyRun(orchestrator.VerifyRunRequest(run_id=run.context.run_id), **call)
                answer.runs.append(found.check)
            if not page.next_page_token:
                return answer
            wanted.page_token = page.next_page_token
