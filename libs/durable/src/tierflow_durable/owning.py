"""Taking entities into memory: loading from the journal, adoption from fenced instances, those that are due, and claims (rules R11 to R16)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import msgspec
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_durable.chain import is_sound
from tierflow_durable.database import LONGEST_STATEMENT
from tierflow_durable.entity import Entity
from tierflow_durable.machine import UnknownRecord

if TYPE_CHECKING:
    from tierflow_durable.host import Host

log = get_log(__name__)

PAGE = 1000
ADOPT_AT_ONCE = 100
DUE_AT_ONCE = 500
LOOK_EVERY = 0.5
"""Seconds between looks for what has come due, and for what was claimed without an answer."""
MOST_ADOPTIONS = 3
"""An entity adopted more often without progress is suspected of killing its owners (rule R13)."""
MOST_SUSPICIONS = 6
"""An entity adopted more often is set aside, in whatever company it was."""
SPREAD = 250_000
"""Microseconds between suspects that come back one after the other."""
SPREAD_MOST = 60_000_000
LEFT_FOR = 10_000_000
"""Microseconds after which what this build cannot read is due again, for an instance that can."""


class Loader:
    """Builds states from what is stored."""

    def __init__(self, host: Host[Any, Any, Any]) -> None:
        self._host = host
        self.damaged_snapshots = 0
        """Snapshots that could not be used since the start: the journal was read instead."""

    async def load(self, entity_id: str) -> Entity[Any] | None:
        """The entity as it is stored, in memory but not registered; None where there is none. Raises FailureError while the database is away."""
        host = self._host
        entity: Entity[Any] = Entity(entity_id, host.machine.fresh(entity_id))
        fresh = not await self._load_snapshot(entity)
        while True:
            rows = await host.database.fetch_patiently("journal_of", id=entity_id, after=entity.seq, limit=PAGE)
            for row in rows:
                entity.journal_bytes += len(row["data"])
                entity.chain = bytes(row["chain"] or entity.chain)
                for seq, time, event in host.machine.decode(row["data"]):
                    if fresh:
                        await self.prepare(entity, event)
                        fresh = False
                    host.machine.evolve(entity.state, event, time)
                    entity.seq, entity.last_time = seq, time
            if len(rows) < PAGE:
                break
        if fresh:
            return None
        entity.committed_seq = entity.seq
        await host.provide_missing(entity.state, None)
        return entity

    async def _load_snapshot(self, entity: Entity[Any]) -> bool:
        """Begins with the stored snapshot; False where there is none that can be used (K6)."""
        found = await self._host.database.fetch_patiently("snapshots_of", ids=[entity.id])
        if not found:
            return False
        state = self._state_of(found[0], entity.id)
        if state is None:
            return False
        entity.chain = bytes(found[0]["chain"] or entity.chain)
        entity.state = state
        entity.seq = found[0]["seq"]
        entity.snapshot_bytes = len(found[0]["data"])
        await self.prepare(entity, None)
        return True

    def _state_of(self, row: Any, entity_id: str) -> Any | None:
        """The state in a stored snapshot; None where it was changed, or is of another version than this build reads: the journal has it all."""
        problem = "" if is_sound(row) else "is not as it was written"
        if not problem:
            try:
                return self._host.machine.load(row["data"])
            except msgspec.DecodeError as error:
                problem = f"cannot be read by this build: {error}"
        self.damaged_snapshots += 1
        log.error(f"a snapshot {problem}; the journal is read instead", entity_id=entity_id, seq=row["seq"])
        return None

    async def prepare(self, entity: Entity[Any], first: Any) -> None:
        """Gives a state that is being built what it needs from outside; `first` is its first event, None where it comes from a snapshot."""
        if not self._host.hooks.prepare_now(entity.state, first, None):
            await self._host.hooks.prepare(entity.state, first, None)


class Owning:
    """The loops that bring entities to this instance."""

    def __init__(self, host: Host[Any, Any, Any]) -> None:
        self._host = host
        self._poke = asyncio.Event()
        self.stopped = False
        self.adopted = 0
        self._unloaded: dict[str, int] = {}
        """Owned by this instance, but not yet in memory, with their adoptions: loading them is tried until it works."""
        self._loading: dict[str, asyncio.Future[Entity[Any] | None]] = {}
        self._doubted_until = 0.0
        """A claim got no answer: until then (on the loop's clock) it may be carried out, and looks are taken for what it may have claimed."""
        self._next_look = 0.0
        self._strays: set[str] = set()
        self._sifted: Set[str] = frozenset()
        """Suspects that are being let go at the moment."""

    def poke(self) -> None:
        """Looks for fenced owners at once."""
        self._poke.set()

    async def run_adoption(self) -> None:
        """Adopts what fenced instances owned, until no entity names a fenced owner (rule R11), and relays what they left."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), 2.0)
            self._poke.clear()
            if self.stopped:
                continue
            try:
                for row in await self._host.database.fetch("fenced_owners"):
                    await self._adopt_all(str(row["id"]))
                await self._host.relay.relay_departed()
            except FailureError as error:
                log.info("adoption waits", reason=str(error))

    async def _adopt_all(self, fenced: str) -> None:
        while not self.stopped:
            adopted = await self._claimed("adopt", limit=ADOPT_AT_ONCE, **{"from": fenced})
            if not adopted:
                return
            log.warning("adopting entities of a fenced instance", count=len(adopted), fenced_instance_id=fenced)
            self._host.hooks.replaces(fenced)
            self.adopted += len(adopted)
            suspects = {entity_id: count for entity_id, count in adopted.items() if count > MOST_ADOPTIONS}
            self._unloaded.update({entity_id: adopted[entity_id] for entity_id in adopted.keys() - suspects.keys()})
            if suspects:
                await self._sift(suspects)
            await self._load_claimed()

    async def _claimed(self, query: str, /, **values: Any) -> dict[str, int]:
        """Makes this instance the owner of entities: their ids, with their adoptions. Without an answer it may have become that all the same."""
        try:
            rows = await self._host.database.fetch(query, me=self._host.instance.id, **values)
        except BaseException:  # Whoever asked may have gone, too: the statement may be carried out all the same.
            self._doubt()
            raise
        return {str(row["id"]): row["adoptions"] for row in rows}

    async def _sift(self, suspects: dict[str, int]) -> None:
        """Suspects of killing their owners: one that comes alone is set aside; among several the innocent are told by coming back one after the other."""
        spread = [entity_id for entity_id, count in suspects.items() if len(suspects) > 1 and count <= MOST_SUSPICIONS]
        self._sifted = suspects.keys()
        try:
            for entity_id in suspects.keys() - set(spread):
                await self.quarantine(entity_id, f"adopted {suspects[entity_id]} times without progress")
            if spread:
                log.warning("entities that were adopted too often come back one by one", count=len(spread))
                step, now = min(SPREAD, SPREAD_MOST // len(spread)), self._host.clock.now()
                moments = [now + step * number for number in range(1, len(spread) + 1)]
                await self._host.database.fetch("put_off", me=self._host.instance.id, ids=spread, moments=moments)
        except FailureError:
            self._doubt()  # Those that are still this instance's are found and loaded when the database is back.
            raise
        finally:
            self._sifted = frozenset()

    async def run_due(self) -> None:
        """Claims parked entities whose time has come (rule R15), and loads what could not be loaded before."""
        host = self._host
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self.stopped or not host.instance.alive:
                continue
            try:
                await self._recount()
                self._unloaded.update(await self._claimed("due", now=host.clock.now(), limit=DUE_AT_ONCE))
                await self._load_claimed()
            except FailureError as error:
                log.info("waking waits", reason=str(error))

    async def _load_claimed(self) -> None:
        for entity_id in list(self._unloaded):
            if entity_id in self._unloaded:  # Else somebody else has taken it meanwhile, and it may have ended since.
                with contextlib.suppress(UnknownRecord):  # it is left to others, who know it
                    await self.take(entity_id, self._unloaded[entity_id])

    def _doubt(self) -> None:
        """A statement without an answer is carried out late or never: as long as its session may live."""
        self._doubted_until = asyncio.get_running_loop().time() + LONGEST_STATEMENT + 3 * LOOK_EVERY

    async def _recount(self) -> None:
        """After a claim without an answer: what names this instance as its owner, and was not in memory at two looks in turn, is loaded."""
        now = asyncio.get_running_loop().time()
        if now >= self._doubted_until:
            self._strays = set()
        if now >= self._doubted_until or now < self._next_look:
            return
        host = self._host
        rows = await host.database.fetch("owned", me=host.instance.id)
        found = {str(row["id"]): row["adoptions"] for row in rows}
        missing = found.keys() - host.entities.keys() - self._unloaded.keys() - self._sifted
        for entity_id in missing & self._strays:
            log.warning("an entity was claimed without an answer", entity_id=entity_id)
            self._unloaded[entity_id] = found[entity_id]
        self._strays = missing
        self._next_look = now + (LOOK_EVERY if missing else 2 * LOOK_EVERY)

    def is_loading(self, entity_id: str) -> bool:
        """Whether it is owned here and on its way into memory: it exists."""
        return entity_id in self._unloaded

    async def take(self, entity_id: str, adoptions: int, *, held: int = 0) -> Entity[Any] | None:
        """Loads an entity that this instance has just become the owner of, and carries out what may not have been done (rule R16).

        `held` commands are on their way to it: see `Entity.held`.
        """
        self._unloaded[entity_id] = adoptions
        loading = self._loading.get(entity_id)
        if loading is None:
            loading = self._loading[entity_id] = asyncio.ensure_future(self._load(entity_id, adoptions, held))
            loading.add_done_callback(lambda _: self._loading.pop(entity_id, None))
        entity = await asyncio.shield(loading)
        self._unloaded.pop(entity_id, None)
        return entity

    async def _load(self, entity_id: str, adoptions: int, held: int) -> Entity[Any] | None:
        host = self._host
        while True:
            entity = await self._loaded(entity_id)
            present = host.entities.get(entity_id)
            if present is None:
                break
            if present.birth is None:
                return present
            # Somebody asked to create it just before it was known to be here: that copy loses against the stored one (rule R3).
            await asyncio.wait({present.wait_released()})
        if entity is None:
            await self.quarantine(entity_id, "its journal is empty")
            return None
        entity.adopted = adoptions > 0
        entity.held = held
        host.register(entity)
        entity.header = host.machine.header(entity.state)
        host.hooks.opened(entity)
        host.touch(entity)
        return entity

    async def _loaded(self, entity_id: str) -> Entity[Any] | None:
        """The entity as it is stored. Raises UnknownRecord where it holds what this build does not know: then it is let go, and soon due again."""
        try:
            return await self._host.loader.load(entity_id)
        except UnknownRecord as error:
            unknown = error
        log.warning("an entity is left to a newer version", entity_id=entity_id, reason=str(unknown))
        moment = self._host.clock.now() + LEFT_FOR
        await self._host.database.fetch("put_off", me=self._host.instance.id, ids=[entity_id], moments=[moment])
        self._unloaded.pop(entity_id, None)
        raise unknown

    async def quarantine(self, entity_id: str, why: str) -> None:
        """Sets an entity aside for an operator: only its header is kept in view (rule R13)."""
        log.error("an entity is quarantined", entity_id=entity_id, reason=why)
        state = "SUSPENDED" if self._host.machine.kind == "run" else "PAUSED"
        await self._host.database.fetch("quarantine", me=self._host.instance.id, id=entity_id, state=state)

    async def claim(self, entity_id: str, owner: str | None) -> Entity[Any] | None:
        """Takes an entity that nobody, or a fenced instance, owns (rule R14), for a command: whoever brings that lowers `held` again.

        None where somebody else was faster. Raises FailureError QUARANTINED.
        """
        host = self._host
        claimed = await self._claimed("claim", id=entity_id, **{"from": owner})
        if not claimed:
            return None
        if owner is not None:
            host.hooks.replaces(owner)
        entity = await self.take(entity_id, claimed[entity_id], held=1)
        if entity is None:
            raise FailureError(
                failure(
                    "QUARANTINED",
                    f"{host.machine.kind} {entity_id} was set aside; an operator decides",
                    component="durable",
                    operation="claim",
                )
            )
        return entity
