"""RPCs that bring something to a run from outside: signals."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime import wire
from tierflow_runtime.contract import refusal
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.values import FailureError, Violation

from tierflow_orchestrator.checks import sound_texts, valid_id, violated
from tierflow_orchestrator.core import commands


class Messages:
    """Any replica takes them and hands them to the run's owner (R14)."""

    _durable: Durable

    async def SignalRun(self, request: pb.SignalRunRequest, context: Any) -> pb.SignalRunResponse:  # noqa: N802 - named by the proto
        """See the proto."""
        valid_id("run_id", request.run_id)
        if not request.name:
            raise violated("name", "must not be empty", "signal_run")
        sound_texts(name=request.name, signal_id=request.signal_id, actor=request.actor)
        payload = _payload(request)
        signal_id = request.signal_id or uuid7()
        command = commands.Signal(command_id=signal_id, name=request.name, payload=payload, actor=request.actor)
        reply = await self._durable.router.command(request.run_id, command, signal_id)
        if reply.failure is not None:
            raise FailureError(reply.failure)
        state = wire.RUN_STATES.number(reply.state)
        return pb.SignalRunResponse(applied=reply.applied, state=state, signal_id=signal_id)


def _payload(request: pb.SignalRunRequest) -> str:
    """The payload as a JSON text. Raises FailureError INVALID_REQUEST."""
    if not request.HasField("payload"):
        return "null"
    found: list[Violation] = []
    check_payload("payload", request.payload, found)
    if found:
        raise FailureError(refusal(found, component="orchestrator", operation="signal_run"))
    payload = wire.payload_from_proto(request.payload)
    if payload is not None and not isinstance(payload, str):
        raise violated("payload", "must be inline: a stored value is not taken", "signal_run")
    return payload or "null"
