"""What happens when a machine fails while it decides: the entity is built again from its journal and ended, or set aside (F27, F28)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_durable.entity import Entity

if TYPE_CHECKING:
    from tierflow_durable.host import Host

log = get_log(__name__)


class Mending:
    """Entities whose state in memory cannot be trusted any more."""

    def __init__(self, host: Host[Any, Any, Any]) -> None:
        self._host = host
        self._ids: set[str] = set()

    def broken(self, entity: Entity[Any], cause: Any, error: Exception) -> FailureError:
        """Takes an entity out of use after a defect; returns the error for the caller. What it had decided before is still committed.

        Args:
            entity: The entity.
            cause: The command that was being decided, or the event that was being acted on.
            error: The defect.
        """
        log.error("a defect in an entity", error=error, entity_id=entity.id, cause=type(cause).__name__)
        if self._host.entities.get(entity.id) is entity and not entity.closing:
            entity.closing = True
            self._host.spawn(self._mend(entity, type(error).__name__))
        return FailureError(_defect(type(error).__name__))

    async def _mend(self, entity: Entity[Any], kind: str) -> None:
        host = self._host
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.when_committed(entity, lambda: None if stored.done() else stored.set_result(None))
        await stored
        if host.entities.get(entity.id) is not entity:
            return  # It ended, or was let go, with the commit: it is nobody's to mend.
        host.forget(entity, "broken")
        if entity.id in self._ids:
            await host.owning.quarantine(entity.id, "it broke again after it was built anew")
            return
        self._ids.add(entity.id)
        try:
            again = await host.owning.take(entity.id, 0)
            if again is not None:
                host.apply(again, host.machine.abort_command(_defect(kind)))
        except FailureError as error:
            log.error("a broken entity cannot be ended", entity_id=entity.id, reason=str(error))
        finally:
            host.spawn(self._forget_later(entity.id))

    async def _forget_later(self, entity_id: str) -> None:
        await asyncio.sleep(60)
        self._ids.discard(entity_id)


def _defect(kind: str) -> Any:
    return failure(
        "INTERNAL",
        "a defect ended the execution; its id is in the logs",
        component="core",
        operation="decide",
        detail=kind,
    )
