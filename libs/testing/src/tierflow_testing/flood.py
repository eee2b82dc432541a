"""A flood: swarms offered over a few streams at fixed moments, whatever is answered, by a client that costs next to nothing, so that what is measured is the system."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grpc.aio import EOF  # type: ignore[attr-defined]  # its stubs lack it
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as rpc
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.wire import failure_from_proto

EVERY: Final = 0.01
"""Seconds between two frames of a stream."""
MOST_ITEMS: Final = 256
"""To a frame."""

Build = Callable[[str], swarm_pb2.SwarmExecutionRequest]
"""Makes the request with that request id."""


@dataclass(slots=True)
class Tide:
    """What was seen of one flood. Times in seconds; those of answers and results count from the moment at which their swarm was due to be offered."""

    offered: int = 0
    seconds: float = 0.0
    """For how long it was offered."""
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By code."""
    without_time: int = 0
    """Refusals that do not say when to come back."""
    refusing: list[float] = field(default_factory=list)
    accepting: list[float] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)
    """Of each swarm that ended: when, from the flood's begin, and how long it took."""

    def rate(self, begin: float = 0.0, end: float | None = None) -> float:
        """Swarms that ended, per second, between two moments of the flood; until it was over where none is named."""
        until = self.seconds if end is None else end
        return sum(begin <= at < until for at, _ in self.ends) / (until - begin)

    def p(self, values: Sequence[float], share: float) -> float:
        """A percentile; 0 where there is nothing."""
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def summary(self) -> dict[str, Any]:
        """The figures, small."""
        took = [took for _, took in self.ends]
        return {
            "offered_per_s": round(self.offered / self.seconds, 1),
            "achieved_per_s": round(self.rate(), 1),
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "refuse_p95_ms": round(self.p(self.refusing, 0.95) * 1000),
            "accept_p95_ms": round(self.p(self.accepting, 0.95) * 1000),
            "p50_ms": round(self.p(took, 0.5) * 1000),
            "p99_ms": round(self.p(took, 0.99) * 1000),
        }


class Flood:
    """One flood over some streams to the coordinators at `addresses`. Every swarm is offered once."""

    def __init__(self, addresses: Sequence[str], build: Build, *, streams: int = 2) -> None:
        self.tide = Tide()
        self._build = build
        self._channels = [open_channel(addresses[number % len(addresses)]) for number in range(streams)]
        self._calls = [rpc.CoordinatorServiceStub(channel).ExecuteSwarms() for channel in self._channels]  # type: ignore[call-arg]
        self._due: dict[str, float] = {}
        """By request id: when it was due, as long as there is no answer."""
        self._under_way: dict[str, float] = {}
        """By swarm: when it was due."""
        self._early: dict[str, float] = {}
        """By swarm: when it ended, before it was known to be one of ours."""
        self._name = uuid7()
        self._began = 0.0

    async def offer(self, each_second: float, seconds: float) -> None:
        """Offers swarms at that rate; returns when the time is over, whatever is still under way."""
        self._began = time.perf_counter()
        for call in self._calls:
            asyncio.create_task(self._read(call)).add_done_callback(_seen)
        share = each_second / len(self._calls)
        await asyncio.gather(
            *(self._write(call, number, share, seconds) for number, call in enumerate(self._calls)),
        )
        self.tide.seconds = time.perf_counter() - self._began

    @property
    def open(self) -> int:
        """Swarms without an answer, and those accepted without an end."""
        return len(self._due) + len(self._under_way)

    async def close(self) -> None:
        """Ends the streams."""
        for call in self._calls:
            call.cancel()
        for channel in self._channels:
            await channel.close(None)

    async def _write(self, call: Any, stream: int, each_second: float, seconds: float) -> None:
        sent = 0
        while (now := time.perf_counter() - self._began) < seconds:
            due = int(now * each_second) - sent
            if due <= 0:
                await asyncio.sleep(EVERY)
                continue
            frame = api.ExecuteSwarmsRequest()
            for _ in range(min(due, MOST_ITEMS)):
                request_id = f"{self._name}-{stream}-{sent}"
                self._due[request_id] = sent / each_second
                frame.execute.append(self._build(request_id))
                sent += 1
            self.tide.offered += len(frame.execute)
            await call.write(frame)

    async def _read(self, call: Any) -> None:
        while (frame := await call.read()) is not EOF:
            now = time.perf_counter() - self._began
            for answer in frame.answers:
                self._answered(answer, now)
            for result in frame.results:
                due = self._under_way.pop(result.context.swarm_id, None)
                if due is None:
                    self._early[result.context.swarm_id] = now
                else:
                    self.tide.ends.append((now, now - due))

    def _answered(self, answer: api.SubmitSwarmAnswer, now: float) -> None:
        due = self._due.pop(answer.request_id)
        tide = self.tide
        if answer.WhichOneof("answer") == "refused":
            refusal = failure_from_proto(answer.refused)
            tide.refused[refusal.code] += 1
            tide.without_time += not refusal.retry_after
            tide.refusing.append(now - due)
            return
        tide.accepted += 1
        tide.accepting.append(now - due)
        swarm_id = answer.accepted.swarm_id
        if (at := self._early.pop(swarm_id, None)) is not None:
            tide.ends.append((at, at - due))
        else:
            self._under_way[swarm_id] = due


def _seen(reader: asyncio.Task[None]) -> None:
    """A stream that was broken, or ended from this side: what is missing shows in the counts."""
    if not reader.cancelled():
        reader.exception()
