"""The way of an attempt to what its swarm shares: from its executor up to a coordinator. Nothing of it is kept or decided here (B2).

Tool calls of attempts come the same way, and go no further: they are the run's own events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime.errors import failure
from tierflow_runtime.streams import Frames
from tierflow_runtime.values import FailureError

from tierflow_orchestrator.core.attempts import current
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.wire_tools import report_command

SERVICE = "tierflow.orchestrator.v1.ContextService"
ANSWER_WITHIN = 10.0
TRIES = 3


class Way(Protocol):
    """A coordinator's stream."""

    frames: Frames


class Questions:
    """Calls that are on their way up, by id."""

    def __init__(self, way: Callable[[], Way | None]) -> None:
        self._way = way
        self._open: dict[str, tuple[Way, asyncio.Future[bb.ContextAnswer]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, call: bb.ContextCall) -> bb.ContextAnswer:
        """The answer of some coordinator; asked again where it gets lost, which the call's command id makes safe. Raises FailureError UNAVAILABLE."""
        for _ in range(TRIES):
            way = self._way()
            if way is None:
                break
            call.call_id = uuid7()
            future: asyncio.Future[bb.ContextAnswer] = asyncio.get_running_loop().create_future()
            self._open[call.call_id] = (way, future)
            try:
                way.frames.put("context_calls", call)
                async with asyncio.timeout(ANSWER_WITHIN):
                    return await future
            except (TimeoutError, ConnectionError):
                continue
            finally:
                self._open.pop(call.call_id, None)
        raise FailureError(
            failure("UNAVAILABLE", "No coordinator answers now.", component="context", operation="call_context")
        )

    def answered(self, answer: bb.ContextAnswer) -> None:
        """An answer has come; one that nobody waits for any more is dropped."""
        asked = self._open.get(answer.call_id)
        if asked is not None and not asked[1].done():
            asked[1].set_result(answer)

    def lost(self, way: Way) -> None:
        """A stream has ended, with whatever was on its way."""
        for other, future in self._open.values():
            if other is way and not future.done():
                future.set_exception(ConnectionError())


class ContextService(rpc.ContextServiceServicer):
    """See proto/tierflow/orchestrator/v1/orchestrator_service.proto."""

    def __init__(self, durable: Durable, questions: Questions) -> None:
        self._durable = durable
        self._questions = questions

    async def CallContext(self, request: pb.CallContextRequest, context: Any) -> pb.CallContextResponse:  # noqa: N802
        """See the proto."""
        call = request.call
        run, step_id = self._under_way(call.author)
        if call.HasField("tool_call"):
            return pb.CallContextResponse(answer=await self._tool_call(run.id, call))
        # Who asks is what is stored of the run, not what the message says.
        whom = run.context
        call.swarm_id = whom.swarm_id
        call.author.tenant, call.author.user_id, call.author.step_id = whom.tenant, whom.user_id, step_id
        return pb.CallContextResponse(answer=await self._questions.ask(call))

    async def _tool_call(self, run_id: str, call: bb.ContextCall) -> bb.ContextAnswer:
        """Answered once it is in the journal (R7): only then is the call made."""
        command = report_command(call.author.attempt_id, call.tool_call)
        reply = await self._durable.router.command(run_id, command)
        if reply.failure is not None:
            raise FailureError(reply.failure)
        return bb.ContextAnswer(call_id=call.call_id, tool_call_stored=bb.ToolCallStored())

    def _under_way(self, author: bb.ContextAuthor) -> tuple[Run, str]:
        entity = self._durable.host.entities.get(author.run_id)
        if entity is None or entity.closing or not self._durable.instance.alive:
            text = f"run {author.run_id[:60]} is not owned here now"
            raise FailureError(failure("UNAVAILABLE", text, component="context", operation="call_context"))
        run: Run = entity.state
        step = current(run, author.attempt_id)
        if step is None:
            text = f"attempt {author.attempt_id[:200]} is not under way any more"
            raise FailureError(failure("STALE", text, component="context", operation="call_context"))
        return run, step.id
