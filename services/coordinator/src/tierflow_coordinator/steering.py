"""Steering beyond pause, resume, cancel and stop: what clients ask of Tier 1 and the swarm's run does."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError


def _not_yet(operation: str) -> FailureError:
    return FailureError(failure("UNSUPPORTED", "this build does not offer it yet", operation=operation))


class Steering:
    """Part of the coordinator's service."""

    async def AskSwarm(self, request: api.AskSwarmRequest, context: Any) -> api.AskSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("AskSwarm")

    async def QuerySwarm(self, request: api.QuerySwarmRequest, context: Any) -> api.QuerySwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("QuerySwarm")

    async def RetrySwarm(self, request: api.RetrySwarmRequest, context: Any) -> api.RetrySwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("RetrySwarm")

    async def RerunSwarm(self, request: api.RerunSwarmRequest, context: Any) -> api.RerunSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("RerunSwarm")

    async def ForkSwarm(self, request: api.ForkSwarmRequest, context: Any) -> api.ForkSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("ForkSwarm")

    async def ReplaySwarm(self, request: api.ReplaySwarmRequest, context: Any) -> api.ReplaySwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("ReplaySwarm")

    async def SkipStep(self, request: api.SkipStepRequest, context: Any) -> api.SkipStepResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("SkipStep")

    async def StepSwarm(self, request: api.StepSwarmRequest, context: Any) -> api.StepSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("StepSwarm")

    async def SetBreakpoints(self, request: api.SetBreakpointsRequest, context: Any) -> api.SetBreakpointsResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("SetBreakpoints")

    async def UpdateSwarm(self, request: api.UpdateSwarmRequest, context: Any) -> api.UpdateSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("UpdateSwarm")

    async def MigrateSwarm(self, request: api.MigrateSwarmRequest, context: Any) -> api.MigrateSwarmResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("MigrateSwarm")

    async def SteerSwarms(self, request: api.SteerSwarmsRequest, context: Any) -> api.SteerSwarmsResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("SteerSwarms")
