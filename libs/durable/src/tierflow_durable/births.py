"""New entities: prepared, decided once, stored; and what becomes of those that were not the first (rules R3, R8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, FailureError

from tierflow_durable.entity import Birth, Created, Entity

if TYPE_CHECKING:
    from tierflow_durable.host import Host


class Births:
    """Makes entities for a host."""

    def __init__(self, host: Host[Any, Any, Any]) -> None:
        self._host = host

    def create(self, entity_id: str, command: Any, birth: Birth) -> None:
        """Makes an entity, at once where nothing has to be waited for."""
        host = self._host
        if host.draining:  # What was born now would be handed over to nobody, and its events published by nobody.
            birth.on_done(FailureError(_draining()))
            return
        known = host.entities.get(entity_id)
        if known is not None:
            host.when_committed(known, lambda: birth.on_done(Created(entity_id, created=False)))
            return
        if host.owning.is_loading(entity_id):
            birth.on_done(Created(entity_id, created=False))
            return
        entity: Entity[Any] = Entity(entity_id, host.machine.fresh(entity_id))
        entity.birth = birth
        try:
            if host.hooks.prepare_now(entity.state, None, command):
                self._decide(entity, command, birth)
                return
        except FailureError as error:
            birth.on_done(error)
            return
        host.spawn(self._prepare(entity, command, birth))

    async def _prepare(self, entity: Entity[Any], command: Any, birth: Birth) -> None:
        host = self._host
        try:
            await host.hooks.prepare(entity.state, None, command)
            await host.provide_missing(entity.state, command)
            if entity.id in host.entities or host.draining:
                self.create(entity.id, command, birth)
            else:
                self._decide(entity, command, birth)
        except FailureError as error:
            birth.on_done(error)

    def _decide(self, entity: Entity[Any], command: Any, birth: Birth) -> None:
        host = self._host
        entity.busy = True
        try:
            birth.reply = host.apply(entity, command)
            host.register(entity)
            host.hooks.settle(entity)
        finally:
            entity.busy = False

    def lost(self, entity: Entity[Any]) -> None:
        """Another create was faster: drop this copy and attach to the winner."""
        birth = entity.birth
        self._host.forget(entity, "lost")
        if birth is not None:
            self._host.spawn(self._attach(entity.id, birth))

    async def _attach(self, entity_id: str, birth: Birth) -> None:
        request = birth.request
        try:
            if request is None:
                birth.on_done(Created(entity_id, created=False))
                return
            row = await self._host.database.fetchrow(
                "request_winner", tenant=request.tenant, request_id=request.request_id
            )
        except FailureError as error:
            birth.on_done(error)
            return
        if row is None:
            birth.on_done(Created(entity_id, created=False))
        elif bytes(row["body_hash"]) != request.body_hash:
            birth.on_done(FailureError(_reused(request.request_id)))
        else:
            birth.on_done(Created(str(row["entity_id"]), created=False))


def _draining() -> Failure:
    message = "this instance is draining; ask another"
    return failure("UNAVAILABLE", message, component="durable", operation="create")


def _reused(request_id: str) -> Failure:
    return failure(
        "REQUEST_ID_REUSED",
        f"request_id {request_id!r} was used before with another body: send the same body, or choose a new request_id",
        component="durable",
        operation="create",
    )
