"""A session of fuzzing: calls by the thousand, and after each lot a look at whether everything is still as it should be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tierflow_testing.fuzzing.accounts import Accounts
from tierflow_testing.fuzzing.calls import Case, Outcome, complaint, make_call
from tierflow_testing.fuzzing.cases import make_case
from tierflow_testing.fuzzing.world import World
from tierflow_testing.processes import ServiceProcess

AT_ONCE = 8
_RPC = re.compile(r"((?:^ *//[^\n]*\n)+) *rpc (\w+)\(", re.MULTILINE)
_STATUS = re.compile(r"\b(OK|[A-Z]+(?:_[A-Z]+)*)\b")
_CODES = frozenset(code.name for code in grpc.StatusCode)


def documented(protos: Path) -> dict[str, frozenset[str]]:
    """By method as gRPC addresses it: the statuses that the comment above it names after `Status:`."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted(protos.rglob("*_service.proto")):
        text = path.read_text()
        package = re.search(r"^package (\S+);", text, re.MULTILINE)
        for service in re.finditer(r"^service (\w+) \{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            for comment, name in _RPC.findall(service[2]):
                said = comment.partition("Status:")[2]
                named = frozenset(word for word in _STATUS.findall(said) if word in _CODES)
                found[f"/{package[1] if package else ''}.{service[1]}/{name}"] = named
    return found


@dataclass(slots=True)
class Finding:
    """Something that must not be: what, and the calls of which one did it."""

    what: str
    cases: Sequence[Case]

    def __str__(self) -> str:
        return "\n".join([self.what, *(str(case) for case in self.cases[:12])])


@dataclass(slots=True)
class Session:
    """Fuzzing of one running system.

    Attributes:
        world: The system, opened.
        seed: Where all chance comes from.
        services: Its processes: they must live and log no defect.
        documented: By method: statuses that its contract names.
    """

    world: World
    seed: str
    services: Sequence[ServiceProcess]
    documented: Mapping[str, frozenset[str]]
    accounts: Accounts = field(default_factory=Accounts)
    findings: list[Finding] = field(default_factory=list)
    calls: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    _pids: dict[str, int] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)

    async def lot(self, tier: str, method: MethodDescriptor, numbers: Iterable[int], at_once: int = AT_ONCE) -> None:
        """Calls of one method, several at once, and a look around afterwards."""
        cases = [make_case(self.world, self.seed, tier, method, number) for number in numbers]
        limit = asyncio.Semaphore(at_once)

        async def one(case: Case) -> Outcome:
            async with limit:
                return await make_call(self.world.channels[tier], case)

        for outcome in await asyncio.gather(*map(one, cases)):
            self._take(outcome)
        await self.look_around(cases)

    def _take(self, outcome: Outcome) -> None:
        self.calls += 1
        self.statuses[outcome.status] = self.statuses.get(outcome.status, 0) + 1
        self.accounts.take(outcome)
        if wrong := complaint(outcome, self.documented):
            self.findings.append(Finding(wrong, [outcome.case]))

    async def look_around(self, cases: Sequence[Case] = ()) -> None:
        """Every process lives, says that it serves, and has logged no defect; a swarm completes."""
        for service in self.services:
            if not service.running or service.pid != self._pids.setdefault(service.name, service.pid):
                self.findings.append(Finding(f"{service.name} has died", cases))
        self._read_logs(cases)
        for tier, channel in self.world.channels.items():
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    self.findings.append(Finding(f"the {tier} does not serve", cases))
            except grpc.aio.AioRpcError as error:
                self.findings.append(Finding(f"the {tier} does not answer: {error.code().name}", cases))
        try:
            await self.world.canary()
        except (grpc.aio.AioRpcError, AssertionError) as error:
            self.findings.append(Finding(f"a sound swarm does not complete any more: {error}", cases))

    def _read_logs(self, cases: Sequence[Case]) -> None:
        for service in self.services:
            lines = service.lines()
            new, self._read[service.name] = lines[self._read.get(service.name, 0) :], len(lines)
            for line in new:
                if line.get("level") == "error":
                    self.findings.append(Finding(f"{service.name} has logged a defect: {_short(line)}", cases))


def _short(line: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key}={str(value)[-1500:]}" for key, value in line.items() if key not in ("level", "time", "logger")
    )
