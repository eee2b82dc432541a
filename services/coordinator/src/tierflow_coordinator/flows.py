"""Flows as admission needs them: their identity, their input schema, whether they could run now. Asked of Tier 2, kept for a while.

A flow's content never changes under its hash, so what is kept is only ever out of date about living executors, and, for "the newest version", about later
registrations: that is kept for a second only. One question at a time goes to Tier 2 for each flow, however many swarms wait for the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import grpc
import msgspec
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.schema import Schema, compile_schema
from tierflow_runtime.security import TENANT_KEY
from tierflow_runtime.values import Allocation, Context, Failure, FailureError, Violation
from tierflow_runtime.wire import allocation_to_proto, context_to_proto, violation_from_proto

KEEP: Final = 30.0
KEEP_NEWEST: Final = 1.0
REFRESH_AFTER: Final = 15.0
CALL_TIMEOUT: Final = 5.0
MOST_KEPT: Final = 4096
SOURCE_PATH: Final = "input.flow.flow.source"


class CheckedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that Tier 2 has checked. `hash` is empty for one that is not registered."""

    name: str
    version: str
    hash: str
    schema: Schema | None
    """Of its input; None takes any object."""
    missing_handlers: tuple[str, ...] = ()

    def require_handlers(self) -> None:
        """Refuses a flow that could not run now.

        Raises:
            FailureError: HANDLER_NOT_FOUND, naming them.
        """
        if self.missing_handlers:
            names = ", ".join(self.missing_handlers)
            raise FailureError(
                failure(
                    "HANDLER_NOT_FOUND",
                    f"No living executor offers: {names}. Start one with: tierflow executor --handlers YOUR_PACKAGE",
                    component="flows",
                    operation="check",
                    violations=tuple(
                        Violation(field="input.flow.flow", description=f"no living executor offers handler {name!r}")
                        for name in self.missing_handlers
                    ),
                )
            )


class Channels(Protocol):
    """Where Tier 2 is reached."""

    async def channel(self) -> grpc.aio.Channel:
        """A channel to any orchestrator, waiting a little for the first. Raises FailureError UNAVAILABLE."""
        ...


class _Kept:
    __slots__ = ("at", "flow", "until")

    def __init__(self, flow: CheckedFlow, at: float, keep: float) -> None:
        self.flow = flow
        self.at = at
        self.until = at + keep


class Flows:
    """Flows by reference, checked by Tier 2."""

    def __init__(
        self,
        channels: Channels,
        *,
        spawn: Callable[[str, Coroutine[Any, Any, None]], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._channels = channels
        self._spawn = spawn
        self._clock = clock or asyncio.get_running_loop().time
        self._kept: dict[str, _Kept] = {}
        self._asked: dict[str, asyncio.Future[CheckedFlow]] = {}
        self.questions = 0
        """Questions put to Tier 2 so far."""

    def known(self, ref: flow_pb2.FlowRef, tenant: str) -> CheckedFlow | None:
        """The flow, where nothing need be asked: the hot path. None otherwise."""
        key = _key(ref, tenant)
        kept = self._kept.get(key)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.until or kept.flow.missing_handlers:
            return None
        if now - kept.at >= REFRESH_AFTER and key not in self._asked:
            self._ask(key, ref, tenant)
        return kept.flow

    async def check(self, ref: flow_pb2.FlowRef, tenant: str) -> CheckedFlow:
        """The flow, asked of Tier 2 where it is not known well enough. Stores nothing, a source included.

        Raises:
            FailureError: FLOW_NOT_FOUND, FLOW_INVALID with every problem under `input.flow.flow.source`, UNAVAILABLE.
        """
        known = self.known(ref, tenant)
        if known is not None:
            return known
        key = _key(ref, tenant)
        # Shielded: the question is everybody's, not of the one caller who may leave.
        return await asyncio.shield(self._asked.get(key) or self._ask(key, ref, tenant))

    async def register(self, ref: flow_pb2.FlowRef, checked: CheckedFlow, tenant: str) -> CheckedFlow:
        """Stores a flow that came as source, after it was checked; others are returned as they are.

        Raises:
            FailureError: as `check`, and ALREADY_EXISTS.
        """
        if checked.hash or not ref.HasField("source"):
            return checked
        stub = stubs.FlowServiceStub(await self._channels.channel())
        try:
            answer = await stub.RegisterFlow(
                orchestrator.RegisterFlowRequest(source=ref.source, anonymous=True),
                timeout=CALL_TIMEOUT,
                metadata=_metadata(tenant),
            )
        except grpc.RpcError as error:
            raise FailureError(_under_source(failure_of(error))) from error
        flow = msgspec.structs.replace(
            checked, name=answer.flow.name, version=answer.flow.version, hash=answer.flow.hash
        )
        self._keep(_key(ref, tenant), flow, KEEP)
        return flow

    def forget_newest(self, name: str, tenant: str) -> None:
        """A version was registered: what is the newest is asked again."""
        self._kept.pop(f"{tenant}/{name}@", None)

    def _ask(self, key: str, ref: flow_pb2.FlowRef, tenant: str) -> asyncio.Future[CheckedFlow]:
        future: asyncio.Future[CheckedFlow] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._asked[key] = future
        copy = flow_pb2.FlowRef()
        copy.CopyFrom(ref)
        self._spawn(f"check flow {ref.name or ref.hash}", self._answer(key, copy, tenant, future))
        return future

    async def _answer(self, key: str, ref: flow_pb2.FlowRef, tenant: str, future: asyncio.Future[CheckedFlow]) -> None:
        try:
            flow = await self._check(ref, tenant)
            newest = not (ref.hash or ref.version or ref.HasField("source"))
            self._keep(key, flow, KEEP_NEWEST if newest else KEEP)
            if not future.done():
                future.set_result(flow)
        except FailureError as error:
            if not future.done():
                future.set_exception(error)
        finally:
            self._asked.pop(key, None)
            if not future.done():
                future.cancel()

    async def preflight(self, ref: flow_pb2.FlowRef, context: Context, allocation: Allocation) -> None:
        """Whether a run of the flow could begin now, for this user and with these limits.

        Raises:
            FailureError: with the code of the first thing that is missing, and all of them as violations; UNAVAILABLE.
        """
        stub = stubs.FlowServiceStub(await self._channels.channel())
        request = orchestrator.CheckFlowRequest(
            flow=ref, context=context_to_proto(context), allocation=allocation_to_proto(allocation)
        )
        try:
            answer = await stub.CheckFlow(request, timeout=CALL_TIMEOUT, metadata=_metadata(context.tenant))
        except grpc.RpcError as error:
            raise FailureError(failure_of(error)) from error
        unmet = [each for each in answer.check.unmet if each.refuses]
        if unmet:
            more = f" (and {len(unmet) - 1} more)" if len(unmet) > 1 else ""
            found = tuple(
                Violation(
                    field=f"input.flow.flow.{each.field}" if each.field.startswith("steps.") else each.field,
                    description=f"{each.description}; {each.hint}",
                )
                for each in unmet
            )
            message = f"{unmet[0].description}: {unmet[0].hint}{more}"
            raise FailureError(
                failure(unmet[0].code, message, component="flows", operation="preflight", violations=found)
            )

    async def _check(self, ref: flow_pb2.FlowRef, tenant: str) -> CheckedFlow:
        self.questions += 1
        stub = stubs.FlowServiceStub(await self._channels.channel())
        try:
            answer = await stub.CheckFlow(
                orchestrator.CheckFlowRequest(flow=ref), timeout=CALL_TIMEOUT, metadata=_metadata(tenant)
            )
        except grpc.RpcError as error:
            raise FailureError(failure_of(error)) from error
        check = answer.check
        if check.problems:
            problems = tuple(violation_from_proto(problem) for problem in check.problems)
            raise FailureError(
                _under_source(
                    failure(
                        "FLOW_INVALID",
                        f"{problems[0].field}: {problems[0].description}"
                        + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
                        component="flows",
                        operation="check",
                        violations=problems,
                    )
                )
            )
        # A source that only was checked is not stored under its hash yet.
        return CheckedFlow(
            name=check.flow.name,
            version=check.flow.version,
            hash="" if ref.HasField("source") else check.flow.hash,
            schema=compile_schema(answer.input_schema_json) if answer.input_schema_json else None,
            missing_handlers=tuple(check.missing_handlers),
        )

    def _keep(self, key: str, flow: CheckedFlow, keep: float) -> None:
        if len(self._kept) >= MOST_KEPT:
            now = self._clock()
            self._kept = {name: kept for name, kept in self._kept.items() if kept.until > now}
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        now = self._clock()
        self._kept[key] = _Kept(flow, now, keep)
        if flow.hash and key != flow.hash:
            self._kept[flow.hash] = _Kept(flow, now, KEEP)


def _key(ref: flow_pb2.FlowRef, tenant: str) -> str:
    """What is kept under: a content belongs to nobody, names are a tenant's own."""
    if ref.HasField("source"):
        return "source:" + hashlib.sha256(ref.source.SerializeToString(deterministic=True)).hexdigest()
    return ref.hash or f"{tenant}/{ref.name}@{ref.version}"


def _metadata(tenant: str) -> tuple[tuple[str, str], ...]:
    return ((TENANT_KEY, tenant),)


def _under_source(found: Failure) -> Failure:
    """Problems of a flow's text, under the path that the text has in a swarm's request."""
    if found.code not in ("FLOW_INVALID", "INVALID_REQUEST"):
        return found
    violations = tuple(
        msgspec.structs.replace(
            violation,
            field=f"{SOURCE_PATH}.{violation.field.removeprefix('source.')}" if violation.field else SOURCE_PATH,
        )
        for violation in found.violations
    )
    return msgspec.structs.replace(found, violations=violations)


def _seen(future: asyncio.Future[CheckedFlow]) -> None:
    """A refresh that failed has nobody who waits for it: the next swarm asks again."""
    if not future.cancelled():
        future.exception()
