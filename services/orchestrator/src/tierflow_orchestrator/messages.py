"""RPCs that bring something to a run from outside: signals."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime import wire
from tierflow_runtime.values import FailureError

from tierflow_orchestrator.checks import valid_id, violated
from tierflow_orchestrator.core import commands

LONGEST_ID = 200


class Messages:
    """Any replica takes them and hands them to the run's owner (R14)."""

    _durable: Durable

    async def SignalRun(self, request: pb.SignalRunRequest, context: Any) -> pb.SignalRunResponse:  # noqa: N802 - named by the proto
        """See the proto."""
        valid_id("run_id", request.run_id)
        if not request.name:
            raise violated("name", "must not be empty", "signal_run")
        if len(request.signal_id) > LONGEST_ID:
            raise violated("signal_id", f"at most {LONGEST_ID} characters", "signal_run")
        payload = wire.payload_from_proto(request.payload) if request.HasField("payload") else None
        if payload is not None and not isinstance(payload, str):
            raise violated("payload", "must be inline: a stored value is not taken", "signal_run")
        signal_id = request.signal_id or uuid7()
        command = commands.Signal(
            command_id=signal_id, name=request.name, payload=payload or "null", actor=request.actor
        )
        reply = await self._durable.router.command(request.run_id, command, signal_id)
        if reply.failure is not None:
            raise FailureError(reply.failure)
        state = wire.RUN_STATES.number(reply.state)
        return pb.SignalRunResponse(applied=reply.applied, state=state, signal_id=signal_id)
