"""Watching: a swarm's own events and its runs', composed, as they are committed; resumable at any message (R22, H26)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import grpc
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_durable.durable import Durable
from tierflow_durable.reading import JournalRow
from tierflow_runtime.afterwards import end_all
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros
from tierflow_runtime.wire import timestamp

from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.places import Place

log = get_log(__name__)

MOST_QUEUED: Final = 256
"""Messages that wait for a watcher which does not read; beyond, its sources wait."""

RUN_FIRST: Final = 2.0
"""Seconds for which the end of a swarm's run waits for the run's own events, which come from Tier 2. It is there first: what it tells of is not kept back for long."""

RETRY_FIRST: Final = 0.05
RETRY_MOST: Final = 2.0


class Channels(Protocol):
    """Where Tier 2 is reached."""

    async def channel(self) -> grpc.aio.Channel:
        """A channel to any orchestrator, waiting a little for the first. Raises FailureError UNAVAILABLE."""
        ...


class ProgressSource(Protocol):
    """Where progress comes from; it may be away, and what it loses is lost."""

    async def listen(self, tenant: str, swarm_id: str, heard: Callable[[event_pb2.EventBatch], None]) -> Any:
        """Calls back with each batch of progress until the returned `close()` is called."""
        ...


class Watches:
    """Makes watches, and ends them when the process drains."""

    def __init__(
        self,
        durable: Durable,
        channels: Channels,
        *,
        now: Callable[[], Micros],
        progress: ProgressSource | None = None,
        idle_after: float = 5.0,
    ) -> None:
        self._durable = durable
        self._channels = channels
        self._now = now
        self._progress = progress
        self._idle_after = idle_after
        self.draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.count = 0

    def drain(self) -> None:
        """Ends every watch: the client resumes at another instance."""
        if not self.draining.done():
            self.draining.set_result(None)

    def source_of(self, swarm: Swarm) -> event_pb2.EventSource:
        """The head of a swarm's batches."""
        context = swarm.context
        return event_pb2.EventSource(
            kind="swarm",
            entity_id=swarm.swarm_id,
            tenant=context.tenant,
            user_id=context.user_id,
            swarm_id=swarm.swarm_id,
            trace_id=context.trace_id,
            correlation_id=context.correlation_id,
        )

    async def watch(self, request: api.WatchSwarmRequest) -> AsyncIterator[api.WatchSwarmResponse]:
        """The messages of one watch, READY first. The caller may see the swarm: that was checked before.

        Raises:
            FailureError: INVALID_REQUEST (token), NOT_FOUND, UNAVAILABLE when this instance drains.
        """
        place = Place.of(request.resume_token)
        swarm: Swarm = await self._durable.reader.view(request.swarm_id, lambda state: state)
        watch = _Watch(
            self._durable, self._channels, swarm, self.source_of(swarm), place, now=self._now, idle=self._idle_after
        )
        self.count += 1
        listening = None
        try:
            if request.include_progress and self._progress is not None:
                listening = await self._progress.listen(swarm.context.tenant, swarm.swarm_id, watch.heard_progress)
            yield api.WatchSwarmResponse(ready=api.WatchReady(after_seq=place.swarm_seq), resume_token=place.token())
            watch.start()
            while (message := await watch.next(self.draining)) is not None:
                yield message
        finally:
            self.count -= 1
            if listening is not None:
                await listening.close()
            await watch.close()


class _Watch:
    """One watch under way: tasks that read, one queue that the client is served from."""

    def __init__(
        self,
        durable: Durable,
        channels: Channels,
        swarm: Swarm,
        source: event_pb2.EventSource,
        place: Place,
        *,
        now: Callable[[], Micros],
        idle: float,
    ) -> None:
        self._durable = durable
        self._channels = channels
        self._swarm = swarm
        self._source = source
        self._read = place
        """How far was read."""
        self._sent = Place(place.swarm_seq, dict(place.run_seqs))
        """How far was sent: what tokens tell. The two differ by what is queued."""
        self._now = now
        self._idle = idle
        self._queue: asyncio.Queue[tuple[api.WatchSwarmResponse | None, str, int]] = asyncio.Queue(MOST_QUEUED)
        """Messages without token, with the entity and the sequence number up to which they tell of it."""
        self._early: deque[event_pb2.EventBatch] = deque(maxlen=MOST_QUEUED)
        """Progress that was heard while nothing was read of any run yet."""
        self._main: asyncio.Task[None] | None = None
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._finished: set[str] = set()
        """Runs of whose end the swarm knows: one that Tier 2 does not have never was."""

    def start(self) -> None:
        """Begins to read."""
        self._main = asyncio.create_task(self._read_all(), name=f"watch {self._swarm.swarm_id}")

    async def next(self, draining: asyncio.Future[None]) -> api.WatchSwarmResponse | None:
        """The next message, an idle notice where there is none for a while; None after the last. Raises FailureError."""
        getter = asyncio.ensure_future(self._queue.get())
        waiting: set[asyncio.Future[Any]] = {getter, draining}
        if self._main is not None:
            waiting.add(self._main)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=self._idle)
            if getter.done():
                return self._sending(*getter.result())
            if draining.done():
                raise FailureError(failure("UNAVAILABLE", "This instance is draining; resume at another."))
            if self._main is not None and self._main.done():
                self._main.result()
                return None
            idle = api.WatchIdle(time=timestamp(self._now()))
            return api.WatchSwarmResponse(idle=idle, resume_token=self._sent.token())
        finally:
            getter.cancel()

    def _sending(
        self, message: api.WatchSwarmResponse | None, entity_id: str, seq: int
    ) -> api.WatchSwarmResponse | None:
        if message is not None:
            if entity_id:
                self._sent.reached(entity_id, seq, of_swarm=entity_id == self._swarm.swarm_id)
            message.resume_token = self._sent.token()
        return message

    def heard_progress(self, batch: event_pb2.EventBatch) -> None:
        """Sends progress, where there is room: it may be lost. None comes before what a run says of its own beginning (H2)."""
        if not self._read.run_seqs:
            self._early.append(batch)
        elif not self._queue.full():
            self._queue.put_nowait((api.WatchSwarmResponse(progress=batch), "", 0))

    async def close(self) -> None:
        """Ends the reading."""
        await end_all(task for task in (self._main, *self._runs.values()) if task is not None)

    async def _read_all(self) -> None:
        for run_id in self._swarm.run_ids if self._read.swarm_seq else ():
            self._watch_run(run_id)
        async for item in self._durable.reader.watch(self._swarm.swarm_id, self._read.swarm_seq, idle_after=self._idle):
            if isinstance(item, JournalRow):
                await self._send_swarm_events(item)
        self._finished.update(self._runs)
        await asyncio.gather(*self._runs.values())
        await self._queue.put((None, "", 0))

    async def _send_swarm_events(self, row: JournalRow) -> None:
        events = [
            event for event in event_pb2.EventBatch.FromString(row.data).events if event.seq > self._read.swarm_seq
        ]
        if not events:
            return
        for event in events:
            if event.HasField("run_finished"):
                await self._run_first(event.run_finished.run_id)
        await self._send_gap(self._swarm.swarm_id, self._read.swarm_seq, events[0].seq)
        self._read.swarm_seq = events[-1].seq
        batch = event_pb2.EventBatch(source=self._source, events=events)
        await self._queue.put((api.WatchSwarmResponse(batch=batch), self._swarm.swarm_id, events[-1].seq))
        for event in events:
            if event.HasField("run_requested"):
                self._watch_run(event.run_requested.run_id)

    async def _run_first(self, run_id: str) -> None:
        """What the run says of itself comes before what its swarm says of its end, unless Tier 2 is away."""
        self._finished.add(run_id)
        if (task := self._runs.get(run_id)) is not None:
            await asyncio.wait([task], timeout=RUN_FIRST)

    def _watch_run(self, run_id: str) -> None:
        if run_id not in self._runs or self._runs[run_id].done():  # a later generation of it
            self._runs[run_id] = asyncio.create_task(self._read_run(run_id), name=f"watch run {run_id}")

    async def _read_run(self, run_id: str) -> None:
        """A run's events from Tier 2, from wherever it is read, until its terminal event."""
        delay = RETRY_FIRST
        while True:
            try:
                if await self._run_stream(run_id):
                    return
                delay = RETRY_FIRST
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND and run_id in self._finished:
                    return  # Refused, or cancelled before it was taken: it never was.
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    log.info("a run cannot be watched now", run_id=run_id, status=error.code().name)
            except FailureError as error:
                log.info("a run cannot be watched now", run_id=run_id, code=error.failure.code)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    async def _run_stream(self, run_id: str) -> bool:
        """One stream of a run's events; returns whether it came to its end."""
        stub = stubs.OrchestratorServiceStub(await self._channels.channel())
        after = self._read.run_seqs.get(run_id, 0)
        async for message in stub.WatchRun(orchestrator.WatchRunRequest(run_id=run_id, after_seq=after)):
            if message.HasField("batch"):
                await self._send_run_events(run_id, message.batch)
        return True

    async def _send_run_events(self, run_id: str, batch: event_pb2.EventBatch) -> None:
        after = self._read.run_seqs.get(run_id, 0)
        events = [event for event in batch.events if event.seq > after]
        if not events:
            return
        await self._send_gap(run_id, after, events[0].seq)
        self._read.run_seqs[run_id] = events[-1].seq
        message = api.WatchSwarmResponse(batch=event_pb2.EventBatch(source=batch.source, events=events))
        await self._queue.put((message, run_id, events[-1].seq))
        while self._early:
            self.heard_progress(self._early.popleft())

    async def _send_gap(self, entity_id: str, after: int, first: int) -> None:
        if first > after + 1:
            gap = api.WatchGap(entity_id=entity_id, from_seq=after, to_seq=first)
            await self._queue.put((api.WatchSwarmResponse(gap=gap), entity_id, first - 1))
