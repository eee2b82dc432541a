"""What a client can do with what a swarm shares."""

from __future__ import annotations

from tierflow_contracts.common.v1.blackboard_pb2 import (
    BlackboardEntries,
    BlackboardList,
    BlackboardRead,
    BlackboardWrite,
    BlackboardWritten,
    ContextUpdate,
    SwarmContext,
)
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api

from tierflow.blackboard import Blackboard, Item, item_of
from tierflow.calls import Calls
from tierflow.ids import new_id


class Sharing:
    """Part of `Client`."""

    _calls: Calls

    def blackboard(self, swarm_id: str) -> Blackboard:
        """The blackboard and the context of a swarm."""
        return Blackboard(_Public(self._calls, swarm_id))

    async def blackboard_history(
        self, swarm_id: str, key: str, *, limit: int = 20, before_version: int = 0, values: bool = True
    ) -> list[Item]:
        """What a key was, write by write, the newest first, at most 100."""
        request = api.ListBlackboardHistoryRequest(
            swarm_id=swarm_id, key=key, limit=limit, before_version=before_version, include_values=values
        )
        response: api.ListBlackboardHistoryResponse = await self._calls.call("ListBlackboardHistory", request)
        return [item_of(entry) for entry in response.writes]

    async def checkpoint_context(self, swarm_id: str, name: str) -> str:
        """Names what context and blackboard are now, to go back to; returns its hash."""
        request = api.CheckpointContextRequest(swarm_id=swarm_id, name=name, command_id=new_id())
        response: api.CheckpointContextResponse = await self._calls.call("CheckpointContext", request)
        return response.checkpoint.hash

    async def restore_context(
        self, swarm_id: str, name: str, *, expected_revision: int | None = None, reason: str = ""
    ) -> str:
        """Brings context and blackboard back to what has that name, as a new revision; returns its hash."""
        request = api.RestoreContextRequest(
            swarm_id=swarm_id, name=name, expected_revision=expected_revision, reason=reason, command_id=new_id()
        )
        response: api.RestoreContextResponse = await self._calls.call("RestoreContext", request)
        return response.checkpoint.hash


class _Public:
    """The way over the public API."""

    __slots__ = ("_calls", "_swarm_id")

    def __init__(self, calls: Calls, swarm_id: str) -> None:
        self._calls = calls
        self._swarm_id = swarm_id

    async def read(self, wanted: BlackboardRead) -> BlackboardEntries:
        request = api.ReadBlackboardRequest(
            swarm_id=self._swarm_id, keys=wanted.keys, accept_compressed=wanted.accept_compressed
        )
        found: api.ReadBlackboardResponse = await self._calls.call("ReadBlackboard", request)
        return BlackboardEntries(entries=found.entries, revision=found.revision)

    async def listed(self, wanted: BlackboardList) -> BlackboardEntries:
        request = api.ListBlackboardRequest(
            swarm_id=self._swarm_id, prefix=wanted.prefix, page_size=wanted.page_size, page_token=wanted.after_key
        )
        found: api.ListBlackboardResponse = await self._calls.call("ListBlackboard", request)
        return BlackboardEntries(entries=found.entries, revision=found.revision, more=bool(found.next_page_token))

    async def write(self, wanted: BlackboardWrite) -> BlackboardWritten:
        request = api.WriteBlackboardRequest(
            swarm_id=self._swarm_id, changes=wanted.changes, command_id=wanted.command_id
        )
        done: api.WriteBlackboardResponse = await self._calls.call("WriteBlackboard", request)
        return BlackboardWritten(revision=done.revision, applied=done.applied)

    async def context(self) -> SwarmContext:
        found: api.GetContextResponse = await self._calls.call(
            "GetContext", api.GetContextRequest(swarm_id=self._swarm_id)
        )
        return found.context

    async def update(self, wanted: ContextUpdate) -> SwarmContext:
        request = api.UpdateContextRequest(
            swarm_id=self._swarm_id,
            expected_version=wanted.expected_version,
            changes=wanted.changes,
            reason=wanted.reason,
            command_id=wanted.command_id,
        )
        found: api.UpdateContextResponse = await self._calls.call("UpdateContext", request)
        return found.context
