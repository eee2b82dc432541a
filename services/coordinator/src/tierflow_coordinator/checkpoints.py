"""Checkpoints of swarms (K6): a name for one place in the swarm's own history and one in its run's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from tierflow_contracts.coordinator.v1 import checkpoint_pb2 as api
from tierflow_contracts.orchestrator.v1 import checkpoint_pb2 as runs
from tierflow_durable.checkpoints import checkpoint_message
from tierflow_durable.durable import Durable
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.security import caller_of
from tierflow_runtime.values import Violation

from tierflow_coordinator import listing
from tierflow_coordinator.contexts import Author, Contexts
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.reaching import Reaching

LONGEST_NAME: Final = 100


class Checkpoints(Reaching):
    """Part of the coordinator's service."""

    _durable: Durable
    _contexts: Contexts

    async def CreateCheckpoint(  # noqa: N802 - named by the proto
        self, request: api.CreateCheckpointRequest, context: Any
    ) -> api.CreateCheckpointResponse:
        """See the proto. The run's place first: where the call breaks off, the next one with the same name makes the rest."""
        caller = caller_of(context)
        if not 1 <= len(request.name) <= LONGEST_NAME:
            refuse_if([Violation(field="name", description=f"has 1 to {LONGEST_NAME} characters")])
        listing.check_texts(name=request.name, reason=request.reason)
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        answer = api.CreateCheckpointResponse()
        if swarm.run is not None:
            wanted = runs.CreateRunCheckpointRequest(
                run_id=swarm.run.run_id, name=request.name, reason=request.reason, actor=caller.user_id
            )
            with _run_may_be_on_its_way():
                done = await (await self._runs_stub()).CreateRunCheckpoint(wanted, **self._call(caller))
                answer.checkpoint.run.CopyFrom(done.checkpoint)
        if swarm.board is not None and not swarm.ended:
            await self._contexts.keep(swarm, request.name, Author(caller.user_id))
        made, answer.created = await self._durable.checkpoints.mark(
            swarm.swarm_id, request.name, actor=caller.user_id, reason=request.reason
        )
        answer.checkpoint.name = request.name
        answer.checkpoint.swarm.CopyFrom(checkpoint_message(made))
        return answer

    async def ListCheckpoints(  # noqa: N802
        self, request: api.ListCheckpointsRequest, context: Any
    ) -> api.ListCheckpointsResponse:
        """See the proto."""
        caller = caller_of(context)
        swarm = await self._visible(request.swarm_id, caller)
        of_run = await self._of_its_run(swarm, caller)
        found = await self._durable.checkpoints.list(swarm.swarm_id)
        return api.ListCheckpointsResponse(
            checkpoints=[
                api.SwarmCheckpoint(name=one.name, swarm=checkpoint_message(one), run=of_run.get(one.name))
                for one in found
            ]
        )

    async def _of_its_run(self, swarm: Swarm, caller: Any) -> dict[str, Any]:
        if swarm.run is None:
            return {}
        wanted = runs.ListRunCheckpointsRequest(run_id=swarm.run.run_id)
        with _run_may_be_on_its_way():
            found = await (await self._runs_stub()).ListRunCheckpoints(wanted, **self._call(caller))
            return {one.name: one for one in found.checkpoints}
        return {}


@contextmanager
def _run_may_be_on_its_way() -> Iterator[None]:
    """A run that no orchestrator has taken yet has no history, so no place in it."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
