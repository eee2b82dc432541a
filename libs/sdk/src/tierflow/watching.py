"""Following a swarm live: typed events, resumed by token over broken connections, without gap or repeat."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import WatchSwarmRequest, WatchSwarmResponse
from tierflow_contracts.events.v1 import event_pb2

from tierflow.errors import Unavailable, call_error, invalid

FIRST_DELAY, MAX_DELAY = 0.05, 2.0
_MARK = "|"

OpenWatch: TypeAlias = Callable[[WatchSwarmRequest], "grpc.aio.UnaryStreamCall[WatchSwarmRequest, WatchSwarmResponse]"]


@dataclass(frozen=True, slots=True)
class Event:
    """One fact about a swarm, a run or a step."""

    type: str
    """What happened, such as `step_completed`: the name of its field in `tierflow.events.v1.Event`."""
    seq: int
    """Place in the history of the swarm or run, from 1, without gaps; 0 for progress, which has no place."""
    time: datetime
    entity_id: str
    """The swarm or run whose history it is in."""
    swarm_id: str
    run_id: str
    """Empty for the swarm's own events."""
    step_id: str
    attempt: int
    message: Message
    """What is known of it: the message of that field."""
    resume_token: str
    """Hand it to `watch` to go on after this event."""

    @property
    def data(self) -> dict[str, Any]:
        """The message as plain JSON values."""
        return MessageToDict(self.message, preserving_proto_field_name=True)


@dataclass(frozen=True, slots=True)
class Gap:
    """History is missing here: it was compacted before it was read."""

    entity_id: str
    from_seq: int
    """The last sequence number before the gap."""
    to_seq: int
    """The first after it."""
    resume_token: str


class Watch:
    """One watch of one swarm, over as many connections as it takes. Iterate over it; it ends when the swarm has ended and everything of it was told."""

    def __init__(
        self, open_watch: OpenWatch, address: str, swarm_id: str, *, resume_token: str, progress: bool, patience: float
    ) -> None:
        self._open = open_watch
        self._address = address
        self._swarm_id = swarm_id
        self._progress = progress
        self._patience = patience
        self._token, self._seen = _parse(resume_token)
        self.connections = 0
        """How often it has been connected."""
        self.after_seq: int | None = None
        """The swarm's sequence number that it began after; known once the first event has come."""

    async def __aiter__(self) -> AsyncIterator[Event | Gap]:
        """Raises NotFound, PermissionDenied or InvalidRequest (token); `Unavailable` only where nobody can be reached for the client's patience."""
        loop = asyncio.get_running_loop()
        delay, down_since = FIRST_DELAY, None
        while True:
            stream = self._open(
                WatchSwarmRequest(swarm_id=self._swarm_id, resume_token=self._token, include_progress=self._progress)
            )
            try:
                async for response in stream:
                    delay, down_since = FIRST_DELAY, None
                    for item in self._items(response):
                        yield item
                    self._token = response.resume_token or self._token
                return  # the other side has said all there is: a stream that breaks or drains ends with an error
            except grpc.aio.AioRpcError as broken:
                error = call_error(broken, self._address)
                if not isinstance(error, Unavailable) and broken.code() not in (
                    grpc.StatusCode.INTERNAL,
                    grpc.StatusCode.UNKNOWN,
                ):
                    raise error from broken
                down_since = down_since if down_since is not None else loop.time()
                if loop.time() - down_since >= self._patience:
                    raise error from broken
            finally:
                stream.cancel()
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, MAX_DELAY)

    def _items(self, response: WatchSwarmResponse) -> Iterator[Event | Gap]:
        kind = response.WhichOneof("kind")
        if kind == "batch":
            yield from self._events(response.batch, response.resume_token)
        elif kind == "progress":
            source = response.progress.source
            for event in response.progress.events:
                yield _event(event, source, self._token)
        elif kind == "gap":
            gap = response.gap
            self._seen[gap.entity_id] = max(self._seen.get(gap.entity_id, 0), gap.to_seq - 1)
            yield Gap(gap.entity_id, gap.from_seq, gap.to_seq, response.resume_token)
        elif kind == "ready":
            self.connections += 1
            if self.after_seq is None:
                self.after_seq = response.ready.after_seq

    def _events(self, batch: event_pb2.EventBatch, token: str) -> Iterator[Event]:
        source = batch.source
        last = batch.events[-1].seq if batch.events else 0
        for event in batch.events:
            if event.seq <= self._seen.get(source.entity_id, 0):
                continue  # a repeat: allowed where the watch has changed its source
            self._seen[source.entity_id] = event.seq
            # Within a batch the place is the token before it and what of the batch has been seen.
            yield _event(
                event,
                source,
                token if event.seq == last else f"{self._token}{_MARK}{source.entity_id}{_MARK}{event.seq}",
            )


def _parse(token: str) -> tuple[str, dict[str, int]]:
    """A token as `Event.resume_token` gives it: the server's, and perhaps what was seen of the batch after it."""
    if _MARK not in token:
        return token, {}
    try:
        before, entity_id, seq = token.rsplit(_MARK, 2)
        return before, {entity_id: int(seq)}
    except ValueError as error:
        raise invalid("resume_token", "is not a token that a watch has given") from error


def _event(event: event_pb2.Event, source: event_pb2.EventSource, token: str) -> Event:
    kind = event.WhichOneof("payload") or "unknown"
    return Event(
        type=kind,
        seq=event.seq,
        time=event.time.ToDatetime(UTC),
        entity_id=source.entity_id,
        swarm_id=source.swarm_id,
        run_id=source.run_id,
        step_id=event.step_id,
        attempt=event.attempt,
        message=getattr(event, kind) if kind != "unknown" else event,
        resume_token=token,
    )
