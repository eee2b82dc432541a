"""Named places in the histories of runs (K6): made, listed."""

from __future__ import annotations

from typing import Any, Final

from tierflow_contracts.orchestrator.v1 import checkpoint_pb2 as pb
from tierflow_durable.checkpoints import checkpoint_message
from tierflow_durable.durable import Durable
from tierflow_runtime.security import caller_of

from tierflow_orchestrator.checks import sound_texts, valid_id, violated

LONGEST_NAME: Final = 100


class Checkpointing:
    """Part of the orchestrator's service. Any replica answers."""

    _durable: Durable

    async def CreateRunCheckpoint(  # noqa: N802 - named by the proto
        self, request: pb.CreateRunCheckpointRequest, context: Any
    ) -> pb.CreateRunCheckpointResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        sound_texts(name=request.name, reason=request.reason, actor=request.actor)
        if not 1 <= len(request.name) <= LONGEST_NAME:
            raise violated("name", f"has 1 to {LONGEST_NAME} characters", "create_checkpoint")
        actor = request.actor or caller_of(context).user_id
        made, created = await self._durable.checkpoints.mark(
            request.run_id, request.name, actor=actor, reason=request.reason
        )
        return pb.CreateRunCheckpointResponse(checkpoint=checkpoint_message(made), created=created)

    async def ListRunCheckpoints(  # noqa: N802
        self, request: pb.ListRunCheckpointsRequest, context: Any
    ) -> pb.ListRunCheckpointsResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        if await self._durable.reader.row(request.run_id) is None:
            raise self._durable.reader.not_found(request.run_id)
        found = await self._durable.checkpoints.list(request.run_id)
        return pb.ListRunCheckpointsResponse(checkpoints=[checkpoint_message(one) for one in found])
