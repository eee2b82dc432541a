"""Far more work than a system can do, offered by many clients at once; and what is measured of the system meanwhile and afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as rpc
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure_of
from tierflow_runtime.wire import failure_from_proto, micros

from tierflow_testing.stack import Stack

ANSWER_WITHIN = 5.0
"""Seconds within which a submission is accepted or refused, and a read answered, whatever the load."""
LONGEST_WAIT = 120.0


def flow(seconds: float, payload: int = 200) -> str:
    """A run of two steps of which one takes so long, with some bytes in each event."""
    return (
        f'name: overload\nversion: "{seconds}"\nsteps:\n  work: {{call: sleep, with: {{seconds: {seconds}}}}}\n'
        f"  say: {{call: echo, needs: work, with: {{canary: '${{{{ input.canary }}}}', filler: '{'x' * payload}'}}}}\noutput: {{canary: '${{{{ steps.say.output.canary }}}}'}}\n"
    )


@dataclass(slots=True)
class Figures:
    """What was seen. Times in seconds."""

    offered: int = 0
    accepted: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    without_time: int = 0
    """Refusals that do not say when to come back."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are neither an acceptance nor a typed refusal."""
    accepting: list[float] = field(default_factory=list)
    refusing: list[float] = field(default_factory=list)
    reading: dict[str, list[float]] = field(default_factory=dict)
    not_ready: int = 0
    memory: dict[str, list[int]] = field(default_factory=dict)
    """By service: resident bytes, sampled."""

    def p(self, name: str, share: float = 0.95) -> float:
        """The percentile of `accepting`, `refusing`, or of a read; 0 where there was none."""
        values = sorted(getattr(self, name) if name in ("accepting", "refusing") else self.reading.get(name, []))
        return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0

    def grown(self) -> dict[str, int]:
        """By service: MiB by which its memory exceeded its beginning at most."""
        return {name: (max(values) - values[0]) >> 20 for name, values in self.memory.items() if values}

    def summary(self) -> dict[str, Any]:
        """The figures, small."""
        return {
            "offered": self.offered,
            "accepted": len(self.accepted),
            "refused": dict(self.refused),
            "accept_p95_ms": round(self.p("accepting") * 1000),
            "refuse_p95_ms": round(self.p("refusing") * 1000),
            "read_p95_ms": {name: round(self.p(name) * 1000) for name in self.reading},
            "read_max_ms": {name: round(max(values) * 1000) for name, values in self.reading.items()},
            "grown_mib": self.grown(),
            "not_ready": self.not_ready,
        }


class Overload:
    """Clients that offer more than there is room for."""

    def __init__(self, stack: Stack, *, seconds_per_run: float, seed: int = 1) -> None:
        self.stack = stack
        self.figures = Figures()
        self._yaml = flow(seconds_per_run)
        self._chance = random.Random(seed)
        self._channels = [open_channel(service.address) for service in stack.coordinators for _ in range(4)]
        self._reads = open_channel(stack.address)
        self._idle: list[Any] = []
        self._over = False

    async def close(self) -> None:
        """Ends everything of this side."""
        for call in self._idle:
            call.cancel()
        for channel in (*self._channels, self._reads):
            await channel.close(None)

    # --- clients ---

    async def offer(self, clients: int, seconds: float, *, patient: bool = True) -> None:
        """So many clients submit one swarm after the other; who is refused comes back at the time that it was told (or, not patient, at once)."""
        self._over = False
        until = time.monotonic() + seconds
        watching = [asyncio.create_task(each) for each in (self._read(), self._sample())]
        try:
            await asyncio.gather(*(self._client(number, until, patient=patient) for number in range(clients)))
        finally:
            self._over = True
            await asyncio.gather(*watching)

    async def at_rate(self, each_second: float, seconds: float) -> None:
        """Submits so many swarms a second whatever is answered (an open loop): nobody waits for an answer before the next is asked for."""
        self._over = False
        watching = [asyncio.create_task(each) for each in (self._read(), self._sample())]
        stubs = [rpc.CoordinatorServiceStub(channel) for channel in self._channels]
        asked: list[asyncio.Task[float]] = []
        began = time.monotonic()
        try:
            while (now := time.monotonic() - began) < seconds:
                while len(asked) < now * each_second:  # What a busy machine has put off is made up for.
                    number = len(asked)
                    asked.append(asyncio.create_task(self._submit(stubs[number % len(stubs)], f"open-{number}")))
                await asyncio.sleep(1 / each_second)
            await asyncio.gather(*asked)
        finally:
            self._over = True
            await asyncio.gather(*watching)

    async def _client(self, number: int, until: float, *, patient: bool) -> None:
        stub = rpc.CoordinatorServiceStub(self._channels[number % len(self._channels)])
        await asyncio.sleep(self._chance.random() * 0.3)
        while time.monotonic() < until:
            wait = await self._submit(stub, f"{number}-{uuid7()}")
            await asyncio.sleep(wait * self._chance.uniform(1.0, 1.5) if patient else 0.0)

    async def _submit(self, stub: Any, canary: str) -> float:
        """Offers one swarm; the seconds to wait before the next."""
        figures = self.figures
        request = self.request(canary)
        figures.offered += 1
        began = time.monotonic()
        try:
            answer = await stub.SubmitSwarm(request, timeout=ANSWER_WITHIN)
        except grpc.aio.AioRpcError as error:
            took = time.monotonic() - began
            seen = failure_of(error)
            if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                figures.wrong.append(f"{error.code().name} {seen.code} after {took:.2f} s: {error.details()}")
                return 0.1
            figures.refused[seen.code] += 1
            figures.refusing.append(took)
            figures.without_time += seen.code == "QUEUE_FULL" and not seen.retry_after
            return (seen.retry_after or 100_000) / 1_000_000
        figures.accepting.append(time.monotonic() - began)
        figures.accepted.append(answer.swarm_id)
        return 0.0

    def request(self, canary: str) -> swarm_pb2.SwarmExecutionRequest:
        """One swarm."""
        request = swarm_pb2.SwarmExecutionRequest()
        request.input.flow.flow.source.yaml = self._yaml
        request.input.flow.input.json = f'{{"canary": "{canary}"}}'
        return request

    async def stuck_watchers(self, count: int, swarm_ids: Sequence[str]) -> None:
        """Watches that are opened and never read, on connections of their own as far as sensible."""
        stub = rpc.CoordinatorServiceStub(self._channels[0])
        for number in range(count):
            request = api.WatchSwarmRequest(swarm_id=swarm_ids[number % len(swarm_ids)], include_progress=True)
            call = stub.WatchSwarm(request)
            await call.read()
            self._idle.append(call)

    async def stuck_streams(self, count: int, each: int) -> None:
        """ExecuteSwarms streams that ask for much and read nothing."""
        for number in range(count):
            channel = open_channel(self.stack.coordinators[number % len(self.stack.coordinators)].address)
            self._channels.append(channel)
            call = rpc.CoordinatorServiceStub(channel).ExecuteSwarms()  # type: ignore[call-arg]
            batch = api.ExecuteSwarmsRequest(execute=[self._named(f"stuck-{number}-{index}") for index in range(each)])
            writing: Awaitable[Any] = call.write(batch)
            await asyncio.wait_for(writing, 10)
            self._idle.append(call)

    def _named(self, name: str) -> swarm_pb2.SwarmExecutionRequest:
        request = self.request(name)
        request.context.request_id = f"{name}-{uuid7()}"
        return request

    # --- looking ---

    async def _read(self) -> None:
        """Reads of every kind, again and again, and readiness."""
        stub = rpc.CoordinatorServiceStub(self._reads)
        reads: dict[str, Callable[[], Awaitable[Any]]] = {
            "GetQueue": lambda: stub.GetQueue(api.GetQueueRequest(), timeout=ANSWER_WITHIN),
            "GetSwarm": lambda: stub.GetSwarm(api.GetSwarmRequest(swarm_id=self._one()), timeout=ANSWER_WITHIN),
            "ListSwarms": lambda: stub.ListSwarms(api.ListSwarmsRequest(page_size=10), timeout=ANSWER_WITHIN),
            "GetRunQueue": lambda: stub.ListExecutors(api.ListExecutorsRequest(), timeout=ANSWER_WITHIN),
        }
        while not self._over:
            for name, read in reads.items():
                if name == "GetSwarm" and not self.figures.accepted:
                    continue
                began = time.monotonic()
                try:
                    await read()
                except grpc.aio.AioRpcError as error:
                    self.figures.wrong.append(f"{name}: {error.code().name} {error.details()}")
                self.figures.reading.setdefault(name, []).append(time.monotonic() - began)
            await self._check_ready()
            await asyncio.sleep(0.1)

    def _one(self) -> str:
        return self._chance.choice(self.figures.accepted)

    async def _check_ready(self) -> None:
        for service in self.stack.services:
            async with open_channel(service.address) as channel:
                began = time.monotonic()
                try:
                    answer = await health_pb2_grpc.HealthStub(channel).Check(
                        health_pb2.HealthCheckRequest(), timeout=ANSWER_WITHIN
                    )
                    self.figures.not_ready += answer.status != health_pb2.HealthCheckResponse.SERVING
                except grpc.aio.AioRpcError as error:
                    self.figures.wrong.append(f"health of {service.name}: {error.code().name}")
                self.figures.reading.setdefault("Health", []).append(time.monotonic() - began)

    async def _sample(self) -> None:
        while not self._over:
            self.sample()
            await asyncio.sleep(0.25)

    def sample(self) -> None:
        """Notes how much memory each service holds."""
        for service in self.stack.services:
            if service.running:
                self.figures.memory.setdefault(service.name, []).append(psutil.Process(service.pid).memory_info().rss)

    # --- afterwards ---

    async def finished(self, at_once: int = 50) -> Counter[str]:
        """Waits for everything that was accepted; how many ended in which state."""
        stub = rpc.CoordinatorServiceStub(self._reads)
        states: Counter[str] = Counter()
        limit = asyncio.Semaphore(at_once)

        async def one(swarm_id: str) -> None:
            async with limit:
                request = api.WaitSwarmRequest(swarm_id=swarm_id, timeout=Duration(seconds=int(LONGEST_WAIT)))
                ended = await stub.WaitSwarm(request, timeout=LONGEST_WAIT + 10)
                states[state_pb2.SwarmState.Name(ended.swarm.state)] += 1

        await asyncio.gather(*map(one, self.figures.accepted))
        return states

    async def alone(self, count: int = 20, share: float = 0.5) -> float:
        """The time within which that share of swarms is done, from submission to result, one after the other with nothing else under way."""
        stub = rpc.CoordinatorServiceStub(self._reads)
        took = []
        for _ in range(count):
            began = time.monotonic()
            answer = await stub.SubmitSwarm(self.request("alone"), timeout=ANSWER_WITHIN)
            await stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=60)
            took.append(time.monotonic() - began)
        return sorted(took)[min(count - 1, int(count * share))]


__all__ = ["Figures", "Overload", "failure_from_proto", "flow", "micros"]
