"""Flows: stored by their content, found by name and version, compiled once per process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from tierflow_contracts.common.v1 import flow_pb2
from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database, Viewer
from tierflow_durable.machine import UnknownRecord
from tierflow_durable.sqlfile import Statement, statement
from tierflow_flow import Flow, FlowError, from_canonical, parse
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError, Violation

MOST_COMPILED = 1000
"""Compiled flows kept in memory."""


def _query(name: str) -> Statement:
    return statement(name, "flows.sql", "tierflow_orchestrator")


class Flows:
    """The flows of all tenants."""

    def __init__(self, database: Database, clock: DatabaseClock) -> None:
        self.database = self._database = database
        self._clock = clock
        self._compiled: OrderedDict[str, Flow] = OrderedDict()

    def cached(self, flow_hash: str) -> Flow | None:
        """The compiled flow, if it is in memory."""
        flow = self._compiled.get(flow_hash)
        if flow is not None:
            self._compiled.move_to_end(flow_hash)
        return flow

    async def get(self, flow_hash: str) -> Flow:
        """The compiled flow. Raises FailureError FLOW_NOT_FOUND, DATABASE_UNAVAILABLE; UnknownRecord where a newer version stored it, with what this one does not have."""
        flow = self.cached(flow_hash)
        if flow is not None:
            return flow
        row = await self._database.fetchrow(_query("get_flow"), hash=flow_hash)
        if row is None:
            raise _not_found(f"with the hash {flow_hash}")
        try:
            return self._keep(await asyncio.to_thread(from_canonical, row["definition"]))
        except FlowError as error:
            raise UnknownRecord(f"the flow with the hash {flow_hash}") from error

    def _keep(self, flow: Flow) -> Flow:
        self._compiled[flow.hash] = flow
        while len(self._compiled) > MOST_COMPILED:
            self._compiled.popitem(last=False)
        return flow

    async def compile(self, source: flow_pb2.FlowSource) -> Flow:
        """Parses and checks a flow; stores nothing. Raises FailureError FLOW_INVALID with every problem."""
        form = source.WhichOneof("text")
        if form is None:
            raise FailureError(
                failure(
                    "INVALID_REQUEST",
                    "the flow's text is missing",
                    component="flows",
                    operation="compile",
                    violations=(Violation(field="source", description="set yaml or json"),),
                )
            )
        try:
            return self._keep(await asyncio.to_thread(parse, getattr(source, form), form))
        except FlowError as error:
            raise FailureError(
                failure(
                    "FLOW_INVALID",
                    f"the flow has {len(error.problems)} problem{'s' if len(error.problems) != 1 else ''}: {error.problems[0].path}: {error.problems[0].description}",
                    component="flows",
                    operation="compile",
                    violations=tuple(
                        Violation(field=p.path, description=p.description, line=p.line) for p in error.problems
                    ),
                )
            ) from error

    async def register(self, tenant: str, source: flow_pb2.FlowSource, *, anonymous: bool) -> tuple[Flow, bool]:
        """Checks and stores a flow. Returns it, and whether it is new. Raises FailureError FLOW_INVALID, ALREADY_EXISTS, DATABASE_UNAVAILABLE."""
        flow = await self.compile(source)
        new = await self.store(flow)
        if anonymous:
            return flow, new
        now = self._clock.now()
        named = await self._database.fetch_patiently(
            _query("put_version"), tenant=tenant, name=flow.name, version=flow.version, hash=flow.hash, created_at=now
        )
        if not named:
            row = await self._database.fetchrow(
                _query("get_version"), tenant=tenant, name=flow.name, version=flow.version
            )
            if row is not None and row["hash"] != flow.hash:
                raise FailureError(
                    failure(
                        "ALREADY_EXISTS",
                        f"flow {flow.name!r} version {flow.version!r} is registered with another content: give it a new version",
                        component="flows",
                        operation="register",
                        violations=(
                            Violation(field="source.version", description="a registered version never changes"),
                        ),
                    )
                )
        return flow, bool(named)

    async def store(self, flow: Flow) -> bool:
        """Stores a compiled flow by its content; whether it is new. Raises FailureError DATABASE_UNAVAILABLE."""
        new = await self._database.fetch_patiently(
            _query("put_flow"), hash=flow.hash, name=flow.name, version=flow.version, description=flow.description, definition=flow.canonical,
            handlers=list(flow.handlers), steps=len(flow.steps), created_at=self._clock.now(),
        )  # fmt: skip
        return bool(new)

    async def find(self, tenant: str, ref: flow_pb2.FlowRef) -> Flow:
        """The flow that a reference names or brings along. Raises FailureError FLOW_NOT_FOUND, FLOW_INVALID, DATABASE_UNAVAILABLE."""
        if ref.HasField("source"):
            return await self.compile(ref.source)
        if ref.hash:
            return await self.get(ref.hash)
        if not ref.name:
            raise FailureError(
                failure(
                    "INVALID_REQUEST",
                    "no flow is named",
                    component="flows",
                    operation="find",
                    violations=(Violation(field="flow", description="set name, hash or source"),),
                )
            )
        if ref.version:
            row = await self._database.fetchrow(
                _query("get_version"), tenant=tenant, name=ref.name, version=ref.version
            )
        else:
            row = await self._database.fetchrow(_query("get_newest"), tenant=tenant, name=ref.name)
        if row is None:
            raise _not_found(f"named {ref.name!r}" + (f" in version {ref.version!r}" if ref.version else ""))
        return await self.get(row["hash"])

    async def list(self, tenant: str, name: str, page_size: int, page_token: str) -> tuple[list[flow_pb2.Flow], str]:
        """One page of registered flows by name and version, and the token of the next."""
        after_name, _, after_version = page_token.partition("\n")
        rows = await self._database.fetch_seen(
            Viewer(tenant),
            _query("list_flows"),
            tenant=tenant,
            only=name,
            after_name=after_name,
            after_version=after_version,
            limit=page_size + 1,
        )
        flows = [
            flow_pb2.Flow(
                name=row["name"],
                version=row["version"],
                hash=row["hash"],
                description=row["description"],
                handlers=row["handlers"],
                steps=row["steps"],
            )
            for row in rows[:page_size]
        ]
        token = f"{flows[-1].name}\n{flows[-1].version}" if len(rows) > page_size else ""
        return flows, token


def flow_to_proto(flow: Flow) -> flow_pb2.Flow:
    """A compiled flow as a message."""
    return flow_pb2.Flow(
        name=flow.name, version=flow.version, hash=flow.hash, definition_json=flow.canonical, description=flow.description, handlers=flow.handlers,
        steps=len(flow.steps),
    )  # fmt: skip


def _not_found(which: str) -> FailureError:
    return FailureError(
        failure(
            "FLOW_NOT_FOUND",
            f"there is no flow {which}: register it, or send it along as source",
            component="flows",
            operation="find",
        )
    )
