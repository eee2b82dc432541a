"""Named places in the history of a swarm, from which new swarms may begin."""

from __future__ import annotations

from tierflow_contracts.coordinator.v1 import checkpoint_pb2 as api

from tierflow.calls import Calls


class Checkpoints:
    """Part of `Client`."""

    _calls: Calls

    async def checkpoint(self, swarm_id: str, name: str, reason: str = "") -> api.SwarmCheckpoint:
        """Names the place up to which a swarm and its run have come. A name that is taken stays where it is: safe to repeat. Raises `NotFound`."""
        request = api.CreateCheckpointRequest(swarm_id=swarm_id, name=name, reason=reason)
        answer: api.CreateCheckpointResponse = await self._calls.call("CreateCheckpoint", request)
        return answer.checkpoint

    async def checkpoints(self, swarm_id: str) -> tuple[api.SwarmCheckpoint, ...]:
        """The checkpoints of a swarm, newest first. Raises `NotFound`."""
        request = api.ListCheckpointsRequest(swarm_id=swarm_id)
        answer: api.ListCheckpointsResponse = await self._calls.call("ListCheckpoints", request)
        return tuple(answer.checkpoints)
