"""What attempts ask of their swarm's context, as it comes up from the orchestrators: any coordinator answers for any swarm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_durable.durable import Durable
from tierflow_runtime.errors import failure, public
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import failure_to_proto

from tierflow_coordinator.contexts import Author, Contexts
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.links import Link

AT_ONCE: Final = 64


class AttemptCalls:
    """Answers calls on the stream on which they came. An answer that is lost with its stream is asked for again, with the same command id."""

    def __init__(self, contexts: Contexts, durable: Durable) -> None:
        self._contexts = contexts
        self._durable = durable
        self._slots = asyncio.Semaphore(AT_ONCE)

    def heard(self, link: Link, call: bb.ContextCall) -> None:
        """A call has come."""
        self._durable.host.spawn(self._answer(link, call))

    async def _answer(self, link: Link, call: bb.ContextCall) -> None:
        answer = bb.ContextAnswer(call_id=call.call_id)
        try:
            async with self._slots:
                await self._check(call)
                field, found = await self._performed(call)
            getattr(answer, field).CopyFrom(found)
        except FailureError as error:
            answer.failure.CopyFrom(failure_to_proto(public(error.failure)))
        link.put("context_answers", answer)

    async def _check(self, call: bb.ContextCall) -> None:
        """An attempt sees its own user's swarm only."""
        author = call.author

        def owned(swarm: Swarm) -> bool:
            return (swarm.context.tenant, swarm.context.user_id) == (author.tenant, author.user_id)

        if not await self._durable.reader.view(call.swarm_id, owned):
            raise FailureError(failure("NOT_FOUND", f"There is no swarm {call.swarm_id}.", component="context"))

    async def _performed(self, call: bb.ContextCall) -> tuple[str, Any]:
        kind = call.WhichOneof("kind")
        perform = _KINDS.get(kind or "")
        if perform is None:
            raise FailureError(failure("UNSUPPORTED", "This build does not know what the attempt asks."))
        author = Author(call.author.user_id, call.author.run_id, call.author.step_id)
        return await perform(self._contexts, call, author)


async def _read_context(contexts: Contexts, call: bb.ContextCall, _author: Author) -> tuple[str, Any]:
    return "context", await contexts.context(call.swarm_id)


async def _update_context(contexts: Contexts, call: bb.ContextCall, author: Author) -> tuple[str, Any]:
    return "context", await contexts.update(call.swarm_id, call.update_context, author)


async def _read(contexts: Contexts, call: bb.ContextCall, _author: Author) -> tuple[str, Any]:
    return "entries", await contexts.read(call.swarm_id, call.read)


async def _list(contexts: Contexts, call: bb.ContextCall, _author: Author) -> tuple[str, Any]:
    return "entries", await contexts.listed(call.swarm_id, call.list)


async def _write(contexts: Contexts, call: bb.ContextCall, author: Author) -> tuple[str, Any]:
    return "written", await contexts.write(call.swarm_id, call.write, author)


_KINDS: Final[dict[str, Callable[[Contexts, bb.ContextCall, Author], Awaitable[tuple[str, Any]]]]] = {
    "read_context": _read_context,
    "update_context": _update_context,
    "read": _read,
    "list": _list,
    "write": _write,
}
