"""Messaging: one NATS connection per process, its streams, and the publisher on it.

NATS carries events and wake-ups only (rule R21): a service starts without it, goes on without it, and connects for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from tierflow_runtime.acknowledgements import new_client
from tierflow_runtime.logs import get_log
from tierflow_runtime.publisher import ACK_TIMEOUT, IN_FLIGHT, Ack, EventPublisher
from tierflow_runtime.standing import Standing, ensured, remade
from tierflow_runtime.subjects import PROGRESS_SUBJECTS, RELIABLE_SUBJECTS, EntitySubjects, class_of, subjects_of

__all__ = [
    "EVENTS",
    "PROGRESS",
    "Ack",
    "EntitySubjects",
    "EventPublisher",
    "Messaging",
    "StreamLimits",
    "StreamMade",
    "class_of",
    "subjects_of",
]

log = get_log(__name__)

EVENTS: Final = "TIERFLOW_EVENTS"
PROGRESS: Final = "TIERFLOW_PROGRESS"
DEDUPLICATION_SECONDS: Final = 30
_RETRY_SECONDS: Final = 1.0
LOOK_EVERY: Final = 10.0
"""Seconds between looks at the streams, whether or not something hints at a change."""
STUCK_AFTER: Final = 30.0
"""Seconds without any acknowledgement, while messages are sent, after which the stream is made anew if it says that it cannot be written: whoever restarts NATS when
its health says so is faster, and keeps what it holds."""


class StreamLimits(NamedTuple):
    """How much the streams keep. What leaves them is still in the journals."""

    events_bytes: int = 1024**3
    events_seconds: int = 72 * 3600
    progress_bytes: int = 64 * 1024**2
    progress_seconds: int = 300
    replicas: int = 1


DEFAULT_LIMITS: Final = StreamLimits()


class StreamMade(NamedTuple):
    """A stream that this process has not seen before: made by it or found, empty or not."""

    name: str
    created: str
    made_here: bool
    """Whether this process made it; of several that did so in the same moment, each says so."""
    lost: bool
    """Whether it takes the place of one that this process knew, or lacks what was acknowledged: what is gone is filled again by the relay."""


class Messaging:
    """The connection. `run` is a loop for a supervisor; everything else may be called before it is connected."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        limits: StreamLimits = DEFAULT_LIMITS,
        on_stream: Callable[[StreamMade], Awaitable[None]] | None = None,
        in_flight: int = IN_FLIGHT,
        ack_timeout: float = ACK_TIMEOUT,
        look_every: float = LOOK_EVERY,
        stuck_after: float = STUCK_AFTER,
    ) -> None:
        """Prepares; nothing is connected yet.

        Args:
            url: Of the server, or several separated by commas.
            name: Of this process, as NATS shows it.
            limits: Of the streams, where this process makes them.
            on_stream: Called for each stream of events that is new to this process; on the event loop, after publishing to it works.
            in_flight: See `EventPublisher`.
            ack_timeout: See `EventPublisher`.
            look_every: See `LOOK_EVERY`.
            stuck_after: See `STUCK_AFTER`.
        """
        self._look_every = look_every
        self._stuck_after = stuck_after
        self._servers = [part.strip() for part in url.split(",")]
        self._name = name
        self._limits = limits
        self._on_stream = on_stream
        self._check = asyncio.Event()
        self._up = asyncio.Event()
        self._client: Client | None = None
        self._created: dict[str, str] = {}
        self.publisher = EventPublisher(in_flight=in_flight, ack_timeout=ack_timeout, stream_missing=self._check.set)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client | None:
        """The connection for those who subscribe; None before the first one and after the last. Only the publisher publishes on it."""
        return self._client

    async def wait_connected(self) -> None:
        """Waits until there is a connection with its streams."""
        await self._up.wait()

    async def run(self) -> None:
        """Connects, keeps the connection and its streams, until cancelled."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self.publisher.run(), name="event publisher")
            try:
                while True:
                    await self._connection()
                    await asyncio.sleep(_RETRY_SECONDS)
            finally:
                publishing.cancel()

    async def _connection(self) -> None:
        """One connection, from its beginning to its end for good; nats-py itself reconnects in between."""
        closed = asyncio.Event()
        client = new_client()
        self._client = client
        try:
            await self._connect(client, closed)
            await self.publisher.connected(client)
            log.info("connected to NATS", server=_server(client))
            await self._keep(client, closed)
        except (NatsError, OSError) as error:
            log.warning("no connection to NATS; it is tried again", reason=f"{type(error).__name__}: {error}")
        finally:
            self._lost()
            await _close(client)
            self._client = None

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        async def on_disconnected() -> None:
            log.warning("disconnected from NATS; events wait in the journal")
            self._lost()

        async def on_reconnected() -> None:
            log.info("connected to NATS again", server=_server(client))
            self.publisher.resumed(client)
            self._check.set()

        async def on_closed() -> None:
            closed.set()
            self._check.set()

        async def on_error(error: Exception) -> None:
            say = log.debug if client.is_connected or warned else log.warning
            warned.append(error)
            del warned[1:]
            say("no connection to NATS; events wait in the journal", reason=f"{type(error).__name__}: {error}")

        warned: list[Exception] = []

        await client.connect(
            servers=self._servers,
            name=self._name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=8 * 1024 * 1024,
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_reconnected,
            closed_cb=on_closed,
        )

    async def _keep(self, client: Client, closed: asyncio.Event) -> None:
        """Sees to the streams now and whenever something hints that one is missing, until the connection is closed for good."""
        self._check.set()
        while not closed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._check.wait(), self._look_every)
            self._check.clear()
            if closed.is_set() or not client.is_connected:
                continue
            try:
                await self._ensure_streams(client.jetstream(timeout=5))
                self._up.set()
            except (NatsError, OSError) as error:
                log.warning(
                    "the streams could not be made ready; it is tried again", reason=f"{type(error).__name__}: {error}"
                )
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._check.set)
            _heed_cancel()

    async def _ensure_streams(self, context: JetStreamContext) -> None:
        for config in stream_configs(self._limits):
            name = str(config.name)
            acknowledged = self.publisher.last_word.seq if name == EVENTS else 0
            standing = await ensured(context, config)
            known = self._created.get(name)
            if known == standing.created and name == EVENTS and self._seems_stuck:
                await asyncio.sleep(random.uniform(0, self._stuck_after / 10))  # one of all processes does it
                standing = await remade(context, config, known) or standing
            if known != standing.created:
                await self._met(name, standing, lost=known is not None)
            elif standing.last_seq < acknowledged:
                log.error("a stream has lost its end", stream=name, acknowledged=acknowledged, last=standing.last_seq)
                # As good as another stream: what it has lost is in the journals.
                ends = standing._replace(created=f"{standing.created} ends {standing.last_seq}")
                await self._met(name, ends, lost=True, known_as=standing.created)

    async def _met(self, name: str, standing: Standing, *, lost: bool, known_as: str = "") -> None:
        """A stream is new, or has lost something."""
        self._created[name] = known_as or standing.created
        if lost:
            log.warning("a stream has lost its data", stream=name, made_here=standing.made_here)
        if name != EVENTS:
            return
        self.publisher.last_word.forget()
        if self._on_stream is not None:
            await self._on_stream(StreamMade(name, standing.created, standing.made_here, lost=lost))

    @property
    def _seems_stuck(self) -> bool:
        return self.publisher.last_word.refused_for > self._stuck_after

    def _lost(self) -> None:
        self._up.clear()
        self.publisher.disconnected()


def stream_configs(limits: StreamLimits) -> tuple[StreamConfig, StreamConfig]:
    """The two streams: reliable events, and progress."""
    events = StreamConfig(
        name=EVENTS,
        description="Lifecycle, steps, tools, approvals and audit of swarms and runs; a projection of the journals.",
        subjects=list(RELIABLE_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=limits.events_seconds,
        max_bytes=limits.events_bytes,
        num_replicas=limits.replicas,
        duplicate_window=DEDUPLICATION_SECONDS,
        allow_direct=True,
    )
    progress = StreamConfig(
        name=PROGRESS,
        description="The last progress of each step.",
        subjects=list(PROGRESS_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.MEMORY,
        discard=DiscardPolicy.OLD,
        max_age=limits.progress_seconds,
        max_bytes=limits.progress_bytes,
        max_msgs_per_subject=1,
        num_replicas=1,
        duplicate_window=1,
        allow_direct=True,
    )
    return events, progress


def _heed_cancel() -> None:
    """Raises the cancel that `asyncio.wait_for`, with which nats-py waits, loses when the answer comes in the same moment (until Python 3.12)."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError


async def _close(client: Client) -> None:
    try:
        await asyncio.wait_for(client.close(), 2.0)
    except (NatsError, OSError, TimeoutError) as error:
        log.debug("closing the connection to NATS", reason=f"{type(error).__name__}: {error}")


def _server(client: Client) -> str:
    url = client.connected_url
    return url.netloc.rpartition("@")[2] if url is not None else ""
