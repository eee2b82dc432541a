"""What chaos tests share: the flow, the load, the faults, and what is demanded afterwards."""

import asyncio
import pathlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tierflow import Client
from tierflow_testing.auditor import Report, audit
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

HERE = pathlib.Path(__file__).parent
STEPS = 10


def flow(steps: int = STEPS, seconds: float = 0.03) -> dict[str, Any]:
    """A chain of steps: echo, sleep and an effect that is noted, in turn. What is lost is tried again, at once and often."""
    made: dict[str, Any] = {}
    for number in range(steps):
        before = f"${{{{ steps.s{number - 1}.output.n }}}}" if number else "${{ input.n }}"
        if number % 3 == 1:
            made[f"p{number}"] = {"call": "sleep", "with": {"seconds": seconds}, "needs": [f"s{number - 1}"]}
            made[f"s{number}"] = {"call": "echo", "with": {"n": before}, "needs": [f"p{number}"]}
        elif number % 3 == 2:
            made[f"s{number}"] = {"call": "chaos.effect", "with": {"n": before, "seconds": seconds}}
        else:
            made[f"s{number}"] = {"call": "echo", "with": {"n": before}}
    return {
        "name": "chaos",
        "version": f"{steps}-{int(seconds * 1000)}",
        "defaults": {"retry": {"max_attempts": 50, "initial_delay": "50ms", "max_delay": "200ms"}, "timeout": "60s"},
        "steps": made,
        "output": {"n": f"${{{{ steps.s{steps - 1}.output.n }}}}"},
    }


def options(executions: pathlib.Path, **more: Any) -> dict[str, Any]:
    """Fields of `StackOptions`: executors that know our handlers, services that come back."""
    environment = {"PYTHONPATH": str(HERE), "CHAOS_EXECUTIONS": str(executions)}
    return {
        "handlers": ["chaos_handlers"],
        "executor_environment": environment,
        "supervised": True,
        "slots": 256,
        **more,
    }


@dataclass(slots=True)
class Fault:
    """One fault: what was done to whom, and the seconds until it served again."""

    name: str
    began: float
    back: float = 0.0


@dataclass(slots=True)
class Load:
    """Submits runs and waits for their ends, over whatever happens meanwhile."""

    client: Client
    flow: dict[str, Any]
    in_flight: int = 60
    done: int = 0
    submitted: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0

    async def run(self, count: int) -> None:
        """`count` runs; their outputs are checked."""
        slots = asyncio.Semaphore(self.in_flight)
        await asyncio.gather(*(self._one(number, slots) for number in range(self.submitted, self.submitted + count)))

    async def until(self, over: Callable[[], bool]) -> None:
        """Keeps `in_flight` runs under way until `over` says that it is enough; returns when all have ended."""

        async def again() -> None:
            while not over():
                await self._one(self.submitted, asyncio.Semaphore(1))

        await asyncio.gather(*(again() for _ in range(self.in_flight)))

    async def _one(self, number: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            self.submitted += 1
            began = time.monotonic()
            try:
                output = await self.client.run(self.flow, {"n": number})
                if output != {"n": number}:
                    self.wrong.append(f"{number}: {output}")
            except Exception as error:  # noqa: BLE001 - whatever a client is told, it is what this test is about
                self.wrong.append(f"{number}: {type(error).__name__}: {error}")
            self.longest = max(self.longest, time.monotonic() - began)
            self.done += 1


async def ready(client: Client) -> None:
    """Returns when a run succeeds: all tiers have met."""

    async def works() -> bool:
        try:
            await client.run(flow(1), {"n": 0})
        except Exception as error:
            raise AssertionError(str(error)) from error
        return True

    await eventually(works, 30, interval=0.1)


async def kill(service: ServiceProcess, *, timeout: float = 60.0) -> Fault:
    """SIGKILL; returns when the supervisor's new process serves."""
    fault = Fault(f"kill -9 {service.name}", time.monotonic())
    pid = service.pid
    await asyncio.to_thread(service.kill)
    await eventually(lambda: service.pid != pid and service.ready, timeout, message=f"{service.name} serves again")
    fault.back = time.monotonic() - fault.began
    return fault


async def lasts(seconds: float) -> None:
    """A fault lasts so long: nothing is waited for, the time itself is what is tried."""
    await asyncio.sleep(seconds)


async def at_random(
    services: Sequence[ServiceProcess], chance: random.Random, pause: tuple[float, float]
) -> list[Fault]:
    """Kills each service once, in random order, with random pauses before each."""
    faults = []
    for service in chance.sample(list(services), len(services)):
        await asyncio.sleep(chance.uniform(*pause))
        faults.append(await kill(service))
    return faults


async def examined(
    stack: Stack, executions: pathlib.Path | None, *, executors_lived: bool = False, patience: float = 60.0
) -> Report:
    """The auditor's report once everything has settled."""
    return await audit(
        stack.database_url,
        stack.nats.url,
        settled=True,
        executions=executions,
        executors_lived=executors_lived,
        patience=patience,
    )


async def under_load(load: Load, least: int, faults: Awaitable[list[Fault]]) -> list[Fault]:
    """Faults while at least `least` runs are done, and as long as the faults last."""
    over = asyncio.Event()

    async def happening() -> list[Fault]:
        try:
            return await faults
        finally:
            over.set()

    async def work() -> None:
        await load.run(least)
        await load.until(over.is_set)

    _, happened = await asyncio.gather(work(), happening())
    return happened


def complaints(stack: Stack, expected: Sequence[str] = ()) -> list[str]:
    """Errors in the services' logs: defects, not weather; ends with one of the `expected` codes are none."""
    return [
        f"{service.name}: {line}"
        for service in stack.services
        for line in service.lines()
        if line.get("level") == "error" and line.get("code") not in expected
    ]


async def serving(service: ServiceProcess, name: str = "") -> bool | None:
    """What a service's health says; None where nobody answers."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        try:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=name), timeout=1.0)
        except grpc.aio.AioRpcError:
            return None
    return bool(answer.status == HealthCheckResponse.SERVING)


async def until_health(services: Sequence[ServiceProcess], wanted: bool, timeout: float) -> float:
    """Seconds until the health of all these services says so."""
    began = time.monotonic()

    async def said() -> bool:
        answers = await asyncio.gather(*(serving(service) for service in services))
        return all(answer is wanted for answer in answers)

    await eventually(said, timeout, interval=0.1, message=f"health is {wanted}")
    return time.monotonic() - began
