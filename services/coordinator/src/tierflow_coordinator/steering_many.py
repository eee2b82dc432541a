"""One thing done to many swarms, page by page (Q14)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.errors import failure_of, public
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.values import Failure, FailureError, Violation
from tierflow_runtime.wire import SWARM_STATES, failure_to_proto

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.core import commands, states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.reaching import Reaching

AT_ONCE: Final = 32
"""Swarms of a page that are told side by side."""

_VERBS: Final = {
    api.SWARM_VERB_CANCEL: states.CANCEL,
    api.SWARM_VERB_RETRY: states.RETRY,
    api.SWARM_VERB_PAUSE: states.PAUSE,
    api.SWARM_VERB_RESUME: states.RESUME,
    api.SWARM_VERB_STOP: states.STOP,
}


class SteeringMany(Reaching):
    """Part of the coordinator's service."""

    _access: Access
    _durable: Durable

    async def _steer(self, request: Any, command: str, caller: Caller) -> commands.Reply:
        raise NotImplementedError

    async def _signal(self, request: api.SignalSwarmRequest, swarm: Swarm, caller: Caller) -> api.SignalSwarmResponse:
        raise NotImplementedError

    async def SteerSwarms(self, request: api.SteerSwarmsRequest, context: Any) -> api.SteerSwarmsResponse:  # noqa: N802
        """See the proto."""
        caller = caller_of(context)
        _check(request)
        user = self._access.visible_user(caller, request.filter.user_id)
        if request.filter.user_id and user != request.filter.user_id:
            return api.SteerSwarmsResponse()  # Whatever another user has is not to be seen.
        page = await self._durable.reader.page(listing.filter_of(request.filter, caller.tenant, user))
        command_id = request.command_id or uuid7()
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(swarm_id: str, state: str) -> api.SteerOutcome:
            outcome = api.SteerOutcome(swarm_id=swarm_id, state=SWARM_STATES.number(state))
            if request.validate_only:
                return outcome
            async with slots:
                try:
                    await self._do(request, outcome, f"{command_id}/{swarm_id}", caller)
                except FailureError as error:
                    outcome.failure.CopyFrom(failure_to_proto(public(error.failure)))
                except grpc.RpcError as error:
                    outcome.failure.CopyFrom(failure_to_proto(public(failure_of(error))))
            return outcome

        outcomes = await asyncio.gather(*(one(row.id, row.state) for row in page.rows))
        return api.SteerSwarmsResponse(
            outcomes=outcomes,
            next_page_token=page.next_id or "",
            applied=sum(outcome.applied for outcome in outcomes),
        )

    async def _do(
        self, request: api.SteerSwarmsRequest, outcome: api.SteerOutcome, command_id: str, caller: Caller
    ) -> None:
        """Does it to one swarm. Raises what doing it by itself raises."""
        if request.verb == api.SWARM_VERB_SIGNAL:
            swarm = await self._visible(outcome.swarm_id, caller, hide=False)
            signal = api.SignalSwarmRequest(swarm_id=swarm.swarm_id, name=request.signal, signal_id=command_id)
            if request.HasField("payload"):
                signal.payload.CopyFrom(request.payload)
            outcome.applied = (await self._signal(signal, swarm, caller)).applied
            return
        command = api.CancelSwarmRequest(swarm_id=outcome.swarm_id, reason=request.reason, command_id=command_id)
        reply = await self._steer(command, _VERBS[request.verb], caller)
        outcome.applied, outcome.state = reply.applied, SWARM_STATES.number(reply.state)
        if not reply.applied and request.verb == api.SWARM_VERB_RETRY:
            message = f"retry: the swarm is {reply.state}; it must be FAILED."
            raise FailureError(Failure(code="STATE_CONFLICT", message=message, tier=1, operation="SteerSwarms"))


def _check(request: api.SteerSwarmsRequest) -> None:
    found: list[Violation] = []
    if request.verb not in _VERBS and request.verb != api.SWARM_VERB_SIGNAL:
        found.append(Violation(field="verb", description="set CANCEL, RETRY, SIGNAL, PAUSE, RESUME or STOP"))
    if (request.verb == api.SWARM_VERB_SIGNAL) != bool(request.signal):
        found.append(Violation(field="signal", description="names the signal of SIGNAL, and is empty otherwise"))
    if len(request.command_id) > 100:
        found.append(Violation(field="command_id", description="has more than 100 characters"))
    refuse_if(found, "steering", "SteerSwarms")
    listing.check_texts(reason=request.reason, command_id=request.command_id, signal=request.signal)
