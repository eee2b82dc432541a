"""The part of the public API that is about what a swarm shares: its context and its blackboard."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_durable.ids import uuid7
from tierflow_runtime.security import caller_of

from tierflow_coordinator import listing
from tierflow_coordinator.contexts import Author, Contexts
from tierflow_coordinator.core import commands
from tierflow_coordinator.reaching import Reaching


class Sharing(Reaching):
    """Checks who asks; `Contexts` does the rest."""

    _contexts: Contexts

    async def GetContext(  # noqa: N802 - named by the proto
        self, request: api.GetContextRequest, context: Any
    ) -> api.GetContextResponse:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context))
        return api.GetContextResponse(context=await self._contexts.context(request.swarm_id))

    async def UpdateContext(  # noqa: N802
        self, request: api.UpdateContextRequest, context: Any
    ) -> api.UpdateContextResponse:
        """See the proto."""
        author = await self._author(request, context)
        wanted = bb.ContextUpdate(
            expected_version=request.expected_version,
            changes=request.changes,
            reason=request.reason,
            command_id=request.command_id,
        )
        return api.UpdateContextResponse(context=await self._contexts.update(request.swarm_id, wanted, author))

    async def ReadBlackboard(  # noqa: N802
        self, request: api.ReadBlackboardRequest, context: Any
    ) -> api.ReadBlackboardResponse:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context))
        packed = request.accept_compressed
        wanted = bb.BlackboardRead(keys=request.keys, accept_compressed=packed, readable=not packed)
        found = await self._contexts.read(request.swarm_id, wanted)
        return api.ReadBlackboardResponse(entries=found.entries, revision=found.revision)

    async def ListBlackboard(  # noqa: N802
        self, request: api.ListBlackboardRequest, context: Any
    ) -> api.ListBlackboardResponse:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context))
        wanted = bb.BlackboardList(prefix=request.prefix, page_size=request.page_size, after_key=request.page_token)
        found = await self._contexts.listed(request.swarm_id, wanted)
        return api.ListBlackboardResponse(
            entries=found.entries,
            revision=found.revision,
            next_page_token=found.entries[-1].key if found.more else "",
        )

    async def WriteBlackboard(  # noqa: N802
        self, request: api.WriteBlackboardRequest, context: Any
    ) -> api.WriteBlackboardResponse:
        """See the proto."""
        author = await self._author(request, context)
        wanted = bb.BlackboardWrite(changes=request.changes, command_id=request.command_id)
        done = await self._contexts.write(request.swarm_id, wanted, author)
        return api.WriteBlackboardResponse(revision=done.revision, applied=done.applied)

    async def ListBlackboardHistory(  # noqa: N802
        self, request: api.ListBlackboardHistoryRequest, context: Any
    ) -> api.ListBlackboardHistoryResponse:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context))
        writes, more = await self._contexts.history(
            request.swarm_id,
            request.key,
            limit=request.limit,
            before=request.before_version,
            values=request.include_values,
        )
        return api.ListBlackboardHistoryResponse(writes=writes, more=more)

    async def CheckpointContext(  # noqa: N802
        self, request: api.CheckpointContextRequest, context: Any
    ) -> api.CheckpointContextResponse:
        """See the proto."""
        author = await self._author(request, context)
        listing.check_texts(command_id=request.command_id)
        made = await self._contexts.checkpoint(request.swarm_id, request.name, request.command_id, author)
        return api.CheckpointContextResponse(checkpoint=made)

    async def RestoreContext(  # noqa: N802
        self, request: api.RestoreContextRequest, context: Any
    ) -> api.RestoreContextResponse:
        """See the proto."""
        author = await self._author(request, context)
        listing.check_texts(command_id=request.command_id, reason=request.reason)
        command = commands.RestoreContext(
            command_id=request.command_id or uuid7(),
            actor=author.actor,
            name=request.name,
            expected=request.expected_revision if request.HasField("expected_revision") else None,
            reason=request.reason,
        )
        to, reply = await self._contexts.restore(request.swarm_id, command)
        return api.RestoreContextResponse(checkpoint=to, revision=reply.revision, keys_changed=reply.changed)

    async def _author(self, request: Any, context: Any) -> Author:
        """Who changes the swarm, if the caller may."""
        caller = caller_of(context)
        await self._visible(request.swarm_id, caller, hide=False)
        return Author(caller.user_id)
