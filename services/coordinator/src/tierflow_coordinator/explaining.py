"""Why swarms wait: for room, for somebody who paused them, for their run (S5). What runs and steps wait for is asked of Tier 2."""

from __future__ import annotations

from typing import Any

import grpc
from tierflow_contracts.common.v1 import explanation_pb2 as pb
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import timestamp

from tierflow_coordinator import listing
from tierflow_coordinator.core import states
from tierflow_coordinator.core.plan import DECIDED
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.reaching import Reaching


class Explaining(Reaching):
    """Composes both tiers' explanations."""

    _engine: Any

    async def Explain(self, request: api.ExplainRequest, context: Any) -> api.ExplainResponse:  # noqa: N802 - named by the proto
        """See the proto."""
        caller = caller_of(context)
        listing.check_texts(step_id=request.step_id)
        try:
            swarm: Swarm = await self._visible(request.id, caller)
        except FailureError as missing:
            if missing.failure.code != "NOT_FOUND":
                raise
            await self._run(request.id, caller)
            return api.ExplainResponse(explanations=[await self._run_explained(request.id, request.step_id, caller)])
        below = await self._below(swarm, request.step_id, caller)
        answer = api.ExplainResponse()
        if not request.step_id:
            answer.explanations.append(self._of_swarm(swarm, stored=below is not None))
        if below is not None:
            answer.explanations.append(below)
        return answer

    async def _below(self, swarm: Swarm, step_id: str, caller: Caller) -> pb.Explanation | None:
        """What its run waits for; None where that has ended or is not stored yet."""
        if swarm.run is None or swarm.run.finished or swarm.state in states.ENDED:
            return None
        try:
            return await self._run_explained(swarm.run.run_id, step_id, caller)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or step_id:
                raise
            return None

    async def _run_explained(self, run_id: str, step_id: str, caller: Caller) -> pb.Explanation:
        found = await (await self._runs_stub()).ExplainRun(
            orchestrator.ExplainRunRequest(run_id=run_id, step_id=step_id), **self._call(caller)
        )
        explanation: pb.Explanation = found.explanation
        return explanation

    def _of_swarm(self, swarm: Swarm, *, stored: bool) -> pb.Explanation:
        explanation = pb.Explanation(entity_id=swarm.swarm_id, state=swarm.state)
        if swarm.state in states.ENDED:
            return explanation
        if swarm.context.deadline is not None:
            explanation.deadline.CopyFrom(timestamp(swarm.context.deadline))
        if swarm.state in ("PAUSING", "PAUSED"):
            by = (swarm.order.actor,) if swarm.order is not None and swarm.order.actor else ()
            text = f"it is {swarm.state}: {swarm.reason or 'no reason was given'}"
            explanation.blockers.add(kind=pb.BLOCKER_KIND_PAUSE, description=text, held_by=by)
        self._add_run(explanation, swarm, stored=stored)
        return explanation

    def _add_run(self, explanation: pb.Explanation, swarm: Swarm, *, stored: bool) -> None:
        run = swarm.run
        if run is None or run.finished:
            return
        planned = _planned(swarm, run.run_id)
        if stored or run.taken:
            text = f"its run {run.run_id}{planned} has not ended"
            explanation.blockers.add(kind=pb.BLOCKER_KIND_CHILD, description=text, held_by=[run.run_id])
            return
        position = self._engine.runs.position(run.run_id)
        text = (
            f"no orchestrator has room for its run{planned}"
            if position
            else f"its run{planned} is not stored by an orchestrator yet"
        )
        explanation.blockers.add(kind=pb.BLOCKER_KIND_LINE, description=text, position=position)


def _planned(swarm: Swarm, run_id: str) -> str:
    """Which run of the plan it is, and what was decided before, where there are several."""
    plan = swarm.plan
    if plan is None:
        return ""
    current = next((each for each, standing in plan.standings.items() if standing.run_id == run_id), "")
    before = "; ".join(
        f"{each}: {standing.state}" + (f", {standing.reason}" if standing.reason else "")
        for each, standing in plan.standings.items()
        if standing.state in DECIDED
    )
    return f" ({current} of the plan{'; ' + before if before else ''})"
