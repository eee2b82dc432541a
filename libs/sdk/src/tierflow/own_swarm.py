"""The way of a handler to what its swarm shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierflow_contracts.common.v1.blackboard_pb2 import (
    BlackboardEntries,
    BlackboardList,
    BlackboardRead,
    BlackboardWrite,
    BlackboardWritten,
    ContextAnswer,
    ContextCall,
    ContextRead,
    ContextUpdate,
    SwarmContext,
)

from tierflow.errors import error_of

if TYPE_CHECKING:
    from tierflow.context import Port


class OwnSwarm:
    """The way of one attempt, through whoever runs it."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    async def _ask(self, call: ContextCall) -> ContextAnswer:
        answer = await self._port.call_context(call)
        if answer.HasField("failure"):
            raise error_of(answer.failure)
        return answer

    async def read(self, wanted: BlackboardRead) -> BlackboardEntries:
        """Keys with values."""
        return (await self._ask(ContextCall(read=wanted))).entries

    async def listed(self, wanted: BlackboardList) -> BlackboardEntries:
        """Keys without values."""
        return (await self._ask(ContextCall(list=wanted))).entries

    async def write(self, wanted: BlackboardWrite) -> BlackboardWritten:
        """Writes keys."""
        return (await self._ask(ContextCall(write=wanted))).written

    async def context(self) -> SwarmContext:
        """The context."""
        return (await self._ask(ContextCall(read_context=ContextRead()))).context

    async def update(self, wanted: ContextUpdate) -> SwarmContext:
        """Changes the context."""
        return (await self._ask(ContextCall(update_context=wanted))).context
