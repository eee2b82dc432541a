"""Admission: everything that is checked before anything is stored (A5). What passes becomes one command for a new swarm."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import orjson
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.ids import uuid7
from tierflow_durable.machine import RequestKey
from tierflow_runtime.contract import check_swarm_request, refuse_if
from tierflow_runtime.errors import failure
from tierflow_runtime.lineage import reuse_from_proto
from tierflow_runtime.payloads import payload_from_proto
from tierflow_runtime.security import Caller, own_or_refuse
from tierflow_runtime.tracecontext import child_traceparent, span_id_of
from tierflow_runtime.values import BlobRef, Context, FailureError, Micros, Options, Payload, Violation
from tierflow_runtime.wire import allocation_from_proto, context_from_proto, options_from_proto

from tierflow_coordinator import plans
from tierflow_coordinator.admitted import Admitted as Admitted
from tierflow_coordinator.core import commands
from tierflow_coordinator.flows import CheckedFlow, Flows

INPUT_PATH: Final = "input.flow.input"
RETRY_AFTER: Final[Micros] = 1_000_000
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class Admission:
    """Checks requests for swarms."""

    def __init__(
        self,
        flows: Flows,
        *,
        clock: Callable[[], Micros],
        read_blob: Callable[[BlobRef], Awaitable[bytes]],
        full: Callable[[], str],
        new_trace: Callable[[], str],
    ) -> None:
        self._flows = flows
        self._plans = plans.Plans(flows)
        self._clock = clock
        self._read_blob = read_blob
        self._full = full
        self._new_trace = new_trace

    def admit_now(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, labels: Mapping[str, str] = NO_LABELS
    ) -> Admitted | None:
        """The hot path: admits a request of which everything needed is known; None where that takes asking. `labels` are the engine's own.

        Raises:
            FailureError: as `admit`.
        """
        now = self._clock()
        self._check(request, caller, now)
        plan = request.input.flow
        flow = self._flows.known(plan.flow, caller.tenant)
        if flow is None or not flow.hash or plan.input.WhichOneof("kind") == "ref":
            return None
        payload = payload_from_proto(plan.input)
        _check_input(flow, payload)
        return self._admitted(request, caller, flow, payload, now, labels)

    async def admit(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, labels: Mapping[str, str] = NO_LABELS
    ) -> Admitted:
        """Admits a request, or says everything that is wrong with it. Stores no swarm; a flow that came as source is registered, last of all.

        Raises:
            FailureError: INVALID_REQUEST, PERMISSION_DENIED, UNSUPPORTED, DEADLINE_EXCEEDED, QUEUE_FULL, FLOW_NOT_FOUND, FLOW_INVALID,
                HANDLER_NOT_FOUND, INPUT_INVALID, NOT_FOUND (a stored input), UNAVAILABLE.
        """
        now = self._clock()
        self._check(request, caller, now)
        if request.input.HasField("fixed"):
            return await self._admit_plan(request, caller, now, labels)
        plan = request.input.flow
        flow = await self._flows.check(plan.flow, caller.tenant)
        payload = payload_from_proto(plan.input)
        _check_input(flow, payload, await self._read_blob(payload) if isinstance(payload, BlobRef) else None)
        flow.require_handlers()
        if not request.options.validate_only:
            flow = await self._flows.register(plan.flow, flow, caller.tenant)
        admitted = self._admitted(request, caller, flow, payload, now, labels)
        if request.options.validate_only:
            await self._flows.preflight(plan.flow, admitted.command.context, admitted.command.allocation)
        return admitted

    async def _admit_plan(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, now: Micros, labels: Mapping[str, str]
    ) -> Admitted:
        """A plan of several runs. Raises FailureError as `admit`."""
        given = request.input.fixed
        runs, _ = plans.shape_problems(given)
        runs = await self._plans.resolve(given, runs, caller.tenant, store=not request.options.validate_only)
        named = CheckedFlow(name=given.name, version="", hash="", schema=None)
        payload = payload_from_proto(given.input) if given.HasField("input") else None
        admitted = self._admitted(request, caller, named, payload, now, labels)
        output = payload_from_proto(given.output) if given.HasField("output") else None
        command = msgspec.structs.replace(
            admitted.command, plan=runs, plan_output=output if isinstance(output, str) else ""
        )
        return msgspec.structs.replace(admitted, command=command)

    async def foresee(self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller) -> None:
        """Whether such a request could be admitted at some time: the flow is there, and takes the input. Its handlers may still come; stores nothing.

        Raises:
            FailureError: as `admit`.
        """
        own_or_refuse(caller, request.context.tenant, request.context.user_id)
        plan = request.input.flow
        flow = await self._flows.check(plan.flow, caller.tenant)
        payload = payload_from_proto(plan.input)
        _check_input(flow, payload, await self._read_blob(payload) if isinstance(payload, BlobRef) else None)

    def _check(self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, now: Micros) -> None:
        """What the request alone tells."""
        found = check_swarm_request(request, now)
        plan = request.input.WhichOneof("plan")
        if plan == "fixed":
            found.extend(plans.shape_problems(request.input.fixed)[1])
        refuse_if(found, "admission", "check")
        own_or_refuse(caller, request.context.tenant, request.context.user_id)
        if plan == "goal":
            raise FailureError(
                failure(
                    "UNSUPPORTED",
                    f"input.{plan}: this build has no planner; send input.flow or input.fixed.",
                    component="admission",
                    operation="check",
                    violations=(Violation(field=f"input.{plan}", description="is not offered by this build"),),
                )
            )
        if why := self._full():
            raise FailureError(
                failure(
                    "QUEUE_FULL",
                    why,
                    component="admission",
                    operation="check",
                    retry_after=RETRY_AFTER,
                )
            )

    def _admitted(
        self,
        request: swarm_pb2.SwarmExecutionRequest,
        caller: Caller,
        flow: CheckedFlow,
        payload: Payload | None,
        now: Micros,
        labels: Mapping[str, str],
    ) -> Admitted:
        plan = request.input.flow
        given = context_from_proto(request.context, now)
        options = options_from_proto(request.options)
        allocation = allocation_from_proto(request.allocation)
        swarm_id, run_id = uuid7(now), uuid7(now)
        trace = given.traceparent or self._new_trace()
        if labels:
            given = msgspec.structs.replace(given, labels={**given.labels, **labels})
        context = msgspec.structs.replace(
            given,
            tenant=caller.tenant,
            user_id=caller.user_id,
            roles=caller.roles,
            swarm_id=swarm_id,
            root_id=given.root_id or swarm_id,
            deadline=_deadline(given, options, allocation.wall_time, now),
            # The swarm's span: what works for it hangs below.
            traceparent=child_traceparent(trace, span_id_of(swarm_id)),
            generation=1,
        )
        return Admitted(
            command=commands.CreateSwarm(
                context=context,
                run_id=run_id,
                flow_hash=flow.hash,
                flow_name=flow.name,
                flow_version=flow.version,
                input=payload,
                allocation=allocation,
                options=options,
                reuse=reuse_from_proto(plan.reuse) if plan.HasField("reuse") else None,
            ),
            request_key=request_key(request, caller),
            parent_traceparent=given.traceparent,
        )


def request_key(request: swarm_pb2.SwarmExecutionRequest, caller: Caller) -> RequestKey | None:
    """The key under which a repetition of the request is known (rule R8); None where the client chose no request id.

    The body is everything but what differs from try to try: the trace, and the time remaining. The user belongs to it: an id that another user of the tenant has
    used is refused, not shared.
    """
    context = request.context
    if not context.request_id:
        return None
    if context.traceparent or context.tracestate or context.HasField("time_remaining"):
        body = swarm_pb2.SwarmExecutionRequest()
        body.CopyFrom(request)
        for field in ("traceparent", "tracestate", "time_remaining"):
            body.context.ClearField(field)
    else:
        body = request
    digest = hashlib.blake2b(body.SerializeToString(deterministic=True), digest_size=32)
    digest.update(caller.user_id.encode())
    return RequestKey(tenant=caller.tenant, request_id=context.request_id, body_hash=digest.digest())


def _check_input(flow: CheckedFlow, payload: Payload | None, content: bytes | None = None) -> None:
    """Refuses an input that does not match the flow's schema.

    Raises:
        FailureError: INPUT_INVALID, with the path of everything that does not match.
    """
    if flow.schema is None and content is None:
        return  # The contract has seen that an inline input is an object.
    text = content if content is not None else payload
    try:
        value = {} if text is None or isinstance(text, BlobRef) else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _input_invalid([Violation(field=INPUT_PATH, description=f"is not JSON: {error}")]) from error
    if not isinstance(value, dict):
        raise _input_invalid([Violation(field=INPUT_PATH, description="is not a JSON object")])
    if flow.schema is not None and (found := flow.schema.violations(value, at=INPUT_PATH)):
        raise _input_invalid(found)


def _input_invalid(found: list[Violation]) -> FailureError:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return FailureError(
        failure(
            "INPUT_INVALID",
            f"{found[0].field}: {found[0].description}{more}",
            component="admission",
            operation="check",
            violations=tuple(found),
        )
    )


def _deadline(given: Context, options: Options, wall_time: Micros | None, now: Micros) -> Micros | None:
    """When all of it must be over: the client's deadline, shortened by timeout and wall time, which count from the start."""
    start = max(now, options.not_before or now)
    limits = [given.deadline, *(start + length for length in (options.timeout, wall_time) if length is not None)]
    return min((limit for limit in limits if limit is not None), default=None)
