"""Steering beyond pause, resume, cancel and stop: what clients ask of Tier 1 and the swarm's run does (rule R14 brings it to whoever owns it)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import grpc
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.ledger import DIMENSIONS
from tierflow_runtime.lineage import fill_reuse
from tierflow_runtime.requests import swarm_request
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.shielding import finished
from tierflow_runtime.values import Allocation, Failure, FailureError, Reuse
from tierflow_runtime.wire import SWARM_STATES, allocation_to_proto, options_to_proto, payload_to_proto

from tierflow_coordinator import listing
from tierflow_coordinator.core import commands, states
from tierflow_coordinator.core.ledger import returned
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.reaching import Reaching

MARGIN: Final = 5.0
"""Seconds for which an answer may be on its way, on top of what is waited for."""
LONGEST_WAIT: Final = 600.0
_REFUSED: Final = frozenset(("STATE_CONFLICT", "INVALID_REQUEST", "UNSUPPORTED"))
_KINDS: Final = {
    orchestrator.RERUN_KIND_FROM_STEPS: "rerun",
    orchestrator.RERUN_KIND_FORK: "fork",
    orchestrator.RERUN_KIND_REPLAY: "replay",
}


class Steering(Reaching):
    """Part of the coordinator's service."""

    _durable: Durable

    async def _steer(self, request: Any, command: str, caller: Caller) -> commands.Reply:
        raise NotImplementedError

    async def _submitted(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, *, may_reuse: bool = False
    ) -> api.SubmitSwarmResponse | Failure:
        raise NotImplementedError

    # --- the next generation, and new swarms from old ones ---

    async def RetrySwarm(self, request: api.RetrySwarmRequest, context: Any) -> api.RetrySwarmResponse:  # noqa: N802
        """See the proto."""
        caller = caller_of(context)
        if request.validate_only:
            swarm = await self._visible(request.swarm_id, caller, hide=False)
            planned = await self._plan(swarm, caller, orchestrator.RERUN_KIND_RETRY)
            state = SWARM_STATES.number(swarm.state)
            return api.RetrySwarmResponse(state=state, generation=swarm.generation, plan=planned.plan)
        reply = await self._steer(request, states.RETRY, caller)
        if not reply.applied:
            message = f"retry: the swarm is {reply.state}; it must be FAILED."
            raise FailureError(failure("STATE_CONFLICT", message, operation="RetrySwarm"))
        state = SWARM_STATES.number(reply.state)
        return api.RetrySwarmResponse(applied=True, state=state, generation=reply.generation)

    async def RerunSwarm(self, request: api.RerunSwarmRequest, context: Any) -> api.RerunSwarmResponse:  # noqa: N802
        """See the proto."""
        accepted, plan = await self._anew(request, caller_of(context), orchestrator.RERUN_KIND_FROM_STEPS)
        return api.RerunSwarmResponse(accepted=accepted, plan=plan)

    async def ForkSwarm(self, request: api.ForkSwarmRequest, context: Any) -> api.ForkSwarmResponse:  # noqa: N802
        """See the proto."""
        accepted, plan = await self._anew(request, caller_of(context), orchestrator.RERUN_KIND_FORK)
        return api.ForkSwarmResponse(accepted=accepted, plan=plan)

    async def ReplaySwarm(self, request: api.ReplaySwarmRequest, context: Any) -> api.ReplaySwarmResponse:  # noqa: N802
        """See the proto."""
        accepted, plan = await self._anew(request, caller_of(context), orchestrator.RERUN_KIND_REPLAY)
        return api.ReplaySwarmResponse(accepted=accepted, plan=plan)

    async def _anew(
        self, request: Any, caller: Caller, kind: orchestrator.RerunKind.ValueType
    ) -> tuple[api.SubmitSwarmResponse | None, orchestrator.RerunPlan]:
        """Starts a new swarm with the flow of another and some of its results, or only says what that would mean."""
        listing.check_texts(request_id=request.request_id)
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        if swarm.plan is not None:
            text = (
                "A swarm with a plan of several runs is not made anew from its results; retry it, or submit it again."
            )
            raise FailureError(failure("UNSUPPORTED", text, operation=_KINDS[kind]))
        checkpoint = getattr(request, "checkpoint", "")
        listing.check_texts(checkpoint=checkpoint)
        if checkpoint:
            await self._durable.checkpoints.find(swarm.swarm_id, checkpoint)
        planned = await self._plan(swarm, caller, kind, getattr(request, "step_ids", ()), checkpoint)
        if request.validate_only:
            return None, planned.plan
        plan = swarm_pb2.FlowPlan(flow=flow_pb2.FlowRef(hash=planned.flow.hash), input=payload_to_proto(swarm.input))
        if kind == orchestrator.RERUN_KIND_FORK and request.HasField("input"):
            plan.input.CopyFrom(request.input)
        origin = Reuse(
            run_id=_run_of(swarm),
            step_ids=tuple(planned.plan.reused),
            swarm_id=swarm.swarm_id,
            kind=_KINDS[kind],
            checkpoint=checkpoint,
            at_seq=planned.at_seq,
            traceparent=swarm.context.traceparent,
        )
        fill_reuse(plan.reuse, origin)
        made = swarm_request(
            swarm_pb2.SwarmInput(flow=plan),
            allocation=allocation_to_proto(swarm.allocation),
            options=options_to_proto(swarm.options),
        )
        made.options.ClearField("not_before")
        made.context.request_id = request.request_id
        made.context.correlation_id = swarm.context.correlation_id
        made.context.labels.update(swarm.own_labels)
        answer = await self._submitted(made, caller, may_reuse=True)
        if isinstance(answer, Failure):
            raise FailureError(answer)
        return answer, planned.plan

    async def _plan(
        self,
        swarm: Swarm,
        caller: Caller,
        kind: orchestrator.RerunKind.ValueType,
        step_ids: Any = (),
        checkpoint: str = "",
    ) -> orchestrator.PlanRerunResponse:
        wanted = orchestrator.PlanRerunRequest(
            run_id=_failed_run(swarm) or _run_of(swarm), kind=kind, step_ids=step_ids, checkpoint=checkpoint
        )
        found: orchestrator.PlanRerunResponse = await self._of_run("PlanRerun", wanted, caller)
        return found

    # --- what the run does ---

    async def SkipStep(self, request: api.SkipStepRequest, context: Any) -> api.SkipStepResponse:  # noqa: N802
        """See the proto."""
        command = orchestrator.CommandRunRequest(command=orchestrator.RUN_COMMAND_SKIP, step_id=request.step_id)
        if request.HasField("output"):
            command.output.CopyFrom(request.output)
        done = await self._command(request, command, caller_of(context))
        return api.SkipStepResponse(applied=done.applied, state=done.state)

    async def StepSwarm(self, request: api.StepSwarmRequest, context: Any) -> api.StepSwarmResponse:  # noqa: N802
        """See the proto."""
        command = orchestrator.CommandRunRequest(command=orchestrator.RUN_COMMAND_STEP, step_id=request.step_id)
        done = await self._command(request, command, caller_of(context))
        return api.StepSwarmResponse(applied=done.applied, state=done.state)

    async def SetBreakpoints(  # noqa: N802
        self, request: api.SetBreakpointsRequest, context: Any
    ) -> api.SetBreakpointsResponse:
        """See the proto."""
        command = orchestrator.CommandRunRequest(
            command=orchestrator.RUN_COMMAND_SET_BREAKPOINTS, breakpoints=request.breakpoints
        )
        done = await self._command(request, command, caller_of(context))
        return api.SetBreakpointsResponse(applied=done.applied, state=done.state)

    async def UpdateSwarm(self, request: api.UpdateSwarmRequest, context: Any) -> api.UpdateSwarmResponse:  # noqa: N802
        """See the proto."""
        caller = caller_of(context)
        command = orchestrator.CommandRunRequest(command=orchestrator.RUN_COMMAND_UPDATE, changes=request.changes)
        before = await self._fund(request, caller)
        try:
            done = await self._command(request, command, caller)
        except (FailureError, grpc.aio.AioRpcError) as error:
            told = error.failure if isinstance(error, FailureError) else failure_of(error)
            if before is not None and told.code in _REFUSED:  # The run goes on with what it had.
                await self._grant(request.swarm_id, before, f"{request.command_id}/undone", caller, request.reason)
            raise
        return api.UpdateSwarmResponse(applied=done.applied, state=done.state, version=done.version)

    async def _fund(self, request: api.UpdateSwarmRequest, caller: Caller) -> Allocation | None:
        """Grants to the swarm what its run is going to be granted: first above, then below. What was granted before; None where the budget stays."""
        changes = request.changes
        named = {name: getattr(changes, name) for name in DIMENSIONS if changes.HasField(name)}
        listing.check_texts(reason=request.reason, command_id=request.command_id)
        if not named or min(named.values()) < 0:
            return None
        request.command_id = request.command_id or uuid7()
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        if swarm.ended:
            return None
        limits = Allocation(**{name: amount or None for name, amount in named.items()})
        await self._grant(request.swarm_id, limits, request.command_id, caller, request.reason, set(named))
        _share_of_run(swarm, limits, changes, named)
        return swarm.allocation

    async def _grant(
        self,
        swarm_id: str,
        limits: Allocation,
        command_id: str,
        caller: Caller,
        reason: str,
        named: Collection[str] = DIMENSIONS,
    ) -> None:
        cleared = tuple(name for name in DIMENSIONS if name in named and getattr(limits, name) is None)
        command = commands.FundSwarm(
            command_id=command_id, actor=caller.user_id, limits=limits, cleared=cleared, reason=reason
        )
        await finished(self._durable.router.command(swarm_id, command, command_id))

    async def MigrateSwarm(self, request: api.MigrateSwarmRequest, context: Any) -> api.MigrateSwarmResponse:  # noqa: N802
        """See the proto."""
        command = orchestrator.CommandRunRequest(
            command=orchestrator.RUN_COMMAND_MIGRATE, flow=request.flow, validate_only=request.validate_only
        )
        done = await self._command(request, command, caller_of(context))
        return api.MigrateSwarmResponse(applied=done.applied, state=done.state, difference=done.difference)

    async def AskSwarm(self, request: api.AskSwarmRequest, context: Any) -> api.AskSwarmResponse:  # noqa: N802
        """See the proto."""
        caller = caller_of(context)
        listing.check_texts(name=request.name, signal_id=request.signal_id)
        wait = listing.longest_wait(request.timeout) if request.HasField("timeout") else 30.0
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        wanted = orchestrator.AskRunRequest(
            run_id=_run_of(swarm), name=request.name, signal_id=request.signal_id, actor=caller.user_id
        )
        if request.HasField("payload"):
            wanted.payload.CopyFrom(request.payload)
        if request.HasField("timeout"):
            wanted.timeout.CopyFrom(request.timeout)
        done = await self._of_run("AskRun", wanted, caller, timeout=min(wait, LONGEST_WAIT) + MARGIN)
        return api.AskSwarmResponse(answer=done.answer, signal_id=done.signal_id, step_id=done.step_id)

    async def QuerySwarm(self, request: api.QuerySwarmRequest, context: Any) -> api.QuerySwarmResponse:  # noqa: N802
        """See the proto."""
        caller = caller_of(context)
        swarm = await self._visible(request.swarm_id, caller)
        wanted = orchestrator.QueryRunRequest(
            run_id=_run_of(swarm), expressions=request.expressions, step_ids=request.step_ids
        )
        found = await self._of_run("QueryRun", wanted, caller)
        return api.QuerySwarmResponse(run=found, run_id=wanted.run_id)

    async def _command(
        self, request: Any, command: orchestrator.CommandRunRequest, caller: Caller
    ) -> orchestrator.CommandRunResponse:
        """Brings a command to the swarm's run, and its answer back."""
        listing.check_texts(reason=request.reason, command_id=request.command_id)
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        command.run_id, command.command_id = _run_of(swarm), request.command_id or uuid7()
        command.reason, command.actor = request.reason, caller.user_id
        done: orchestrator.CommandRunResponse = await finished(self._of_run("CommandRun", command, caller))
        return done

    async def _of_run(self, method: str, message: Any, caller: Caller, *, timeout: float | None = None) -> Any:
        """Asks any orchestrator. A run that Tier 2 does not know yet is going to be there: the caller may try again."""
        options = self._call(caller)
        if timeout is not None:
            options["timeout"] = timeout
        try:
            return await getattr(await self._runs_stub(), method)(message, **options)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                text = "The run has not been taken by an orchestrator yet; try again."
                raise FailureError(failure("UNAVAILABLE", text, operation=method)) from error
            raise


def _run_of(swarm: Swarm) -> str:
    """The swarm's run. Raises FailureError NOT_FOUND."""
    if swarm.run is None:
        raise FailureError(failure("NOT_FOUND", f"Swarm {swarm.swarm_id} has no run."))
    return swarm.run.run_id


def _failed_run(swarm: Swarm) -> str:
    """With a plan of several runs: the one that a retry would retry. Empty where there is none."""
    standings = swarm.plan.standings.values() if swarm.plan is not None else ()
    return next((each.run_id for each in standings if each.state == "FAILED" and each.run_id), "")


def _share_of_run(swarm: Swarm, limits: Allocation, changes: orchestrator.RunChanges, named: Collection[str]) -> None:
    """Of a plan of several runs, the present one has what the others have left."""
    if swarm.plan is None:
        return
    rest = returned(limits, swarm.plan.used(without=_run_of(swarm)))
    for name in named:
        amount = getattr(rest, name)
        setattr(changes, name, 0 if amount is None else max(1, amount))
