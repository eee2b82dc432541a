"""What an attempt's swarm shares: asked for by way of the orchestrator that owns the attempt, when the handler wants it and not before."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall, ToolCallStored
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import ContextServiceStub
from tierflow_runtime.errors import failure_of
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import failure_to_proto

from tierflow_executor.core.table import UNARY
from tierflow_executor.running import Running

PATIENCE: Final = 30.0
"""Seconds for which a call is tried while nobody answers: the run may be changing its owner."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


class ContextCalls:
    """Calls for attempts; whoever has the connections is one of these."""

    def channel(self, running: Running) -> grpc.aio.Channel:
        """The channel to the instance that owns an attempt. Raises FailureError UNAVAILABLE where it is not known."""
        raise NotImplementedError

    async def call_context(self, running: Running, call: ContextCall) -> ContextAnswer:
        """The answer to a call, or why there is none; over changes of owner. Safe to repeat: a write has its command id."""
        if call.HasField("tool_call") and running.attempt.owner == UNARY:
            return ContextAnswer(
                tool_call_stored=ToolCallStored()
            )  # it is no run's: there is no journal, and nobody who watches
        context = running.request.context
        call.author.run_id, call.author.attempt_id = context.run_id, context.attempt_id
        loop = asyncio.get_running_loop()
        started, tries = loop.time(), 0
        while True:
            answer = await self._asked(running, call)
            if not answer.failure.retryable or loop.time() - started > PATIENCE:
                return answer
            await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    async def _asked(self, running: Running, call: ContextCall) -> ContextAnswer:
        context = running.request.context
        metadata = (("tierflow-tenant", context.tenant), ("tierflow-user", context.user_id))
        try:
            stub = ContextServiceStub(self.channel(running))
            response = await stub.CallContext(pb.CallContextRequest(call=call), metadata=metadata, timeout=PATIENCE)
            answer: ContextAnswer = response.answer
        except grpc.aio.AioRpcError as error:
            return ContextAnswer(failure=failure_to_proto(failure_of(error)))
        except FailureError as error:
            return ContextAnswer(failure=failure_to_proto(error.failure))
        return answer
