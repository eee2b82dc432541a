"""Puts the parts together: one object per process of a stateful tier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_durable.audit_trail import AuditTrail
from tierflow_durable.checkpoints import Checkpoints
from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database
from tierflow_durable.dead_letters import DeadLetters
from tierflow_durable.departed import Publisher
from tierflow_durable.host import Host
from tierflow_durable.ids import uuid7
from tierflow_durable.instance import Instance
from tierflow_durable.machine import Hooks, Machine
from tierflow_durable.packing import Message
from tierflow_durable.reading import Reader
from tierflow_durable.relay import Relay
from tierflow_durable.retention import DAY, Retention
from tierflow_durable.routing import PeerServicer, Router
from tierflow_durable.writer import Fenced, Writer

log = get_log(__name__)

CLOSE_TIMEOUT = 3.0
"""Seconds for which a loop that was cancelled may take to end."""

TEND_EVERY = 3600.0
TEND_AGAIN = 60.0
"""Seconds between rounds of retention; after one that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableOptions:
    """Where entities are stored and as whom this process owns them.

    Attributes:
        schema: The tier's schema.
        database_url: Where it is.
        name: Stable over restarts, unique within the tier.
        address: At which peers reach this process.
        lease: Seconds.
        heartbeat: Seconds.
        keep_days: Days for which ended entities are kept.
        pool_size: Most connections for reads.
    """

    schema: str
    database_url: str
    name: str
    address: str
    lease: float = 10.0
    heartbeat: float = 2.0
    keep_days: int = 30
    pool_size: int = 6


class Durable:
    """The durable entities of one tier in this process: `host` decides, `reader` reads, `router` brings commands to their owner."""

    def __init__(
        self,
        machine: Machine[Any, Any, Any],
        hooks: Hooks[Any, Any, Any],
        options: DurableOptions,
        *,
        publisher: Publisher | None,
        on_fenced: Callable[[str], None],
    ) -> None:
        self.instance_id = uuid7()
        self._on_fenced = on_fenced
        self.database = Database(options.database_url, options.schema, pool_size=options.pool_size)
        self.clock = DatabaseClock()
        # Positions start at the moment: they grow slower than microseconds pass, so that they are about in order over all instances (for the BRIN index).
        self._first_position = self.clock.now()
        self.instance = Instance(
            self.database,
            self.clock,
            instance_id=self.instance_id,
            name=options.name,
            address=options.address,
            lease=options.lease,
            heartbeat=options.heartbeat,
        )
        self.relay = Relay(
            self.database,
            publisher,
            kind=machine.kind,
            instance_id=self.instance_id,
            first_position=self._first_position,
        )

        def writer_of(**callbacks: Any) -> Writer:
            return Writer(
                self.database,
                self.clock,
                self.instance_id,
                first_position=self._first_position,
                transaction_timeout=options.lease * 0.8,
                **callbacks,
            )

        self.host: Host[Any, Any, Any] = Host(
            machine=machine,
            hooks=hooks,
            database=self.database,
            clock=self.clock,
            instance=self.instance,
            writer_of=writer_of,
            relay=self.relay,
        )
        self.reader: Reader[Any] = Reader(self.host)
        self.checkpoints = Checkpoints(self.host)
        self.router: Router[Any, Any] = Router(self.host, self.reader)
        self.peer_servicer = PeerServicer(self.host, self.router)
        self.retention = Retention(self.database, self.clock, keep_days=options.keep_days)
        self.publisher = publisher
        self.audit = AuditTrail(self.database, self.clock)
        self.dead_letters = DeadLetters(self.database, self.clock, keep=options.keep_days * DAY)
        self.instance.backend_pid = lambda: self.host.writer.backend_pid
        self.instance.check_database = self.host.writer.check_last
        self.instance.on_fenced_peer = self.host.owning.poke
        self.relay.on_undeliverable = self._undeliverable
        self._loops: list[asyncio.Task[None]] = []
        self._fenced = False

    @property
    def ready(self) -> bool:
        """Whether this instance may take work: the database is there, the lease is good, it is not draining."""
        here, instance = self.host, self.instance
        reachable = here.writer.healthy and instance.reachable and instance.alive
        return reachable and not here.draining and not self._fenced

    def _undeliverable(self, message: Message, refusal: FailureError) -> None:
        self.host.spawn(self.dead_letters.note_events(message, refusal.failure))

    async def start(self) -> None:
        """Registers the instance, fences an older incarnation of its name, and starts the loops. Raises what asyncpg raises when the database is away."""
        await self.host.writer.open()
        await self.retention.prepare()
        await self.instance.register(self._first_position)
        for replaced in self.instance.replaced:
            self.host.hooks.replaces(replaced)
        loops = {
            "writer": self.host.writer.run, "lease": self.instance.run, "adoption": self.host.owning.run_adoption, "due": self.host.owning.run_due,
            "timers": self.host.timers.run, "relay": self.relay.run, "tending": self._tend,
        }  # fmt: skip
        for name, loop in loops.items():
            task = asyncio.get_running_loop().create_task(self._guard(loop), name=f"durable {name}")
            self._loops.append(task)
        self.host.owning.poke()

    async def _guard(self, loop: Callable[[], Any]) -> None:
        """A loop that ends takes the process with it: half an engine must not go on (rule R12)."""
        try:
            await loop()
        except Fenced as fenced:
            self._fence(str(fenced))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, this process may not go on as if nothing had happened
            log.error("a loop of the durable library failed", error=error)
            self._fence(f"{type(error).__name__}: {error}")

    def _fence(self, why: str) -> None:
        if not self._fenced:
            self._fenced = True
            self._on_fenced(why)

    async def _tend(self) -> None:
        while True:
            done = await self.retention.tend()
            await asyncio.sleep(TEND_EVERY if done else TEND_AGAIN)

    def stream_met(self, created: str) -> None:
        """There is an event stream, made at that moment: where it does not have what is in the journal, it gets it (rule R20)."""
        self.host.spawn(self.relay.fill(created, self.clock.now))

    async def drain(self, timeout: float) -> None:
        """Hands every entity over, publishes what is committed, and leaves. What cannot be done in time is left to the peers."""
        try:
            async with asyncio.timeout(timeout):
                await self.host.hand_over()
                relayed = await self.relay.flush(min(5.0, timeout / 2))
                await self.instance.leave()
                if relayed:  # The fence is closed, nothing more is committed: what is beyond the watermark after all is left to the peers (rule R19).
                    await self.database.fetch("drop_watermark", id=self.instance_id)
        except Exception as error:  # noqa: BLE001 - the lease runs out and a peer takes over: nothing is lost, only slower
            log.warning("drain was cut short", extra={"error": f"{type(error).__name__}: {error}"})

    async def close(self) -> None:
        """Stops the loops and closes the sessions."""
        for task in self._loops:
            task.cancel()
        if self._loops:
            # A call to a database that has fallen silent is given up later than that.
            await asyncio.wait(self._loops, timeout=CLOSE_TIMEOUT)
        await self.host.close()
        await self.router.close()
        await self.host.writer.close()
        await self.instance.close()
        await self.database.close()
