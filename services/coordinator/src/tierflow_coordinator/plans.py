"""Admission of plans of several runs: everything that is wrong at once, before anything is stored (A5, B17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import orjson
from tierflow_contracts.common.v1 import flow_pb2, payload_pb2, plan_pb2
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_expressions.holes import OPEN
from tierflow_runtime.contract_parts import check_flow_ref
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.errors import failure
from tierflow_runtime.payloads import payload_from_proto
from tierflow_runtime.values import Failure, FailureError, Payload, Violation

from tierflow_coordinator.core.plan import FlowChoice, PlannedRun
from tierflow_coordinator.core.plan_checks import MOST_RUNS, Checked
from tierflow_coordinator.flows import CheckedFlow, Flows
from tierflow_coordinator.wire_plan import CONTINUE, planned_from_proto

AT: Final = "input.fixed"


def several(given: swarm_pb2.FixedPlan) -> Sequence[plan_pb2.PlannedRun]:
    """The runs of a plan. Flows in order are runs that wait for the one before."""
    if not given.flows:
        return given.runs
    return [
        plan_pb2.PlannedRun(
            id=f"run{number}",
            flow=flow.flow,
            input=flow.input if flow.HasField("input") else None,
            needs=[f"run{number - 1}"] if number > 1 else [],
        )
        for number, flow in enumerate(given.flows, 1)
    ]


def shape_problems(given: swarm_pb2.FixedPlan) -> tuple[tuple[PlannedRun, ...], list[Violation]]:
    """The plan, and what is wrong with it as far as it alone tells."""
    found = _message_problems(given)
    if found:
        return (), [_of_flows(each, given) for each in found]
    output = _inline(given.output) if given.HasField("output") else ""
    checked = Checked([planned_from_proto(message) for message in several(given)], output)
    wrong = [Violation(field=f"{AT}.{where}", description=what) for where, what in checked.problems]
    return checked.runs, [_of_flows(each, given) for each in wrong]


def _message_problems(given: swarm_pb2.FixedPlan) -> list[Violation]:
    """What is wrong with the message, whatever its texts say."""
    found: list[Violation] = []
    if given.flows and given.runs:
        found.append(Violation(field=AT, description="has flows and runs; it is one of the two"))
    check_payload(f"{AT}.input", given.input, found, must_be_object=True)
    check_payload(f"{AT}.output", given.output, found)
    for place, flow in enumerate(given.flows):  # The contract has checked the rest of them.
        if flow.HasField("reuse"):
            found.append(Violation(field=f"{AT}.flows[{place}].reuse", description="must not be set"))
    for place, message in enumerate(given.runs[:MOST_RUNS]):
        _check_message(f"{AT}.runs[{place}]", message, found)
    return found


def _check_message(at: str, message: plan_pb2.PlannedRun, found: list[Violation]) -> None:
    if message.HasField("flow") and not message.among:
        check_flow_ref(f"{at}.flow", message.flow, found)
        if OPEN in message.flow.name:
            found.append(
                Violation(field=f"{at}.flow.name", description="an expression needs `among`: the flows it may name")
            )
    elif message.among and (OPEN not in message.flow.name or message.flow.hash or message.flow.HasField("source")):
        found.append(
            Violation(field=f"{at}.flow.name", description="with `among` it is an expression that names one of them")
        )
    for number, ref in enumerate(message.among):
        check_flow_ref(f"{at}.among[{number}]", ref, found)
    check_payload(f"{at}.input", message.input, found)
    if message.on_error not in ("", CONTINUE):
        found.append(
            Violation(field=f"{at}.on_error", description=f"is {message.on_error[:50]!r}; expected {CONTINUE}")
        )


def _of_flows(violation: Violation, given: swarm_pb2.FixedPlan) -> Violation:
    """With the name of the field that the client has sent."""
    if not given.flows:
        return violation
    return msgspec.structs.replace(violation, field=violation.field.replace(f"{AT}.runs[", f"{AT}.flows["))


def _inline(message: payload_pb2.Payload) -> str:
    found = payload_from_proto(message)
    return found if isinstance(found, str) else ""


class Plans:
    """Plans, with their flows looked up."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    async def resolve(
        self, given: swarm_pb2.FixedPlan, runs: tuple[PlannedRun, ...], tenant: str, *, store: bool
    ) -> tuple[PlannedRun, ...]:
        """The plan with every flow that it may run, by hash. `store` registers flows that were brought along, once all is found right.

        Raises:
            FailureError: with the code of the first thing that is wrong, and all of them as violations; UNAVAILABLE.
        """
        messages = several(given)
        found: dict[tuple[int, int], CheckedFlow] = {}
        wrong: list[Failure] = []
        for place, message in enumerate(messages):
            for number, (field, ref) in enumerate(_refs(message)):
                at = _of_flows(Violation(field=f"{AT}.runs[{place}].{field}", description=""), given).field
                try:
                    flow = found[place, number] = await self._flows.check(ref, tenant)
                    flow.require_handlers()
                    _check_constant(flow, runs[place].input, given, at)
                except FailureError as error:
                    wrong.append(_placed(error.failure, at))
        if wrong:
            raise FailureError(_together(wrong))
        return await self._with_hashes(messages, runs, found, tenant, store=store)

    async def _with_hashes(
        self,
        messages: Sequence[plan_pb2.PlannedRun],
        runs: tuple[PlannedRun, ...],
        found: Mapping[tuple[int, int], CheckedFlow],
        tenant: str,
        *,
        store: bool,
    ) -> tuple[PlannedRun, ...]:
        resolved = []
        for place, (message, run) in enumerate(zip(messages, runs, strict=True)):
            flows = []
            for number, (_, ref) in enumerate(_refs(message)):
                flow = found[place, number]
                if store:
                    flow = await self._flows.register(ref, flow, tenant)
                flows.append(FlowChoice(name=flow.name, version=flow.version, hash=flow.hash))
            resolved.append(msgspec.structs.replace(run, flows=tuple(flows)))
        return tuple(resolved)


def _refs(message: plan_pb2.PlannedRun) -> list[tuple[str, flow_pb2.FlowRef]]:
    """The flows that it may run, with their fields."""
    if message.among:
        return [(f"among[{number}]", ref) for number, ref in enumerate(message.among)]
    return [("flow", message.flow)] if message.HasField("flow") else []


def _check_constant(flow: CheckedFlow, own: Payload | None, given: swarm_pb2.FixedPlan, at: str) -> None:
    """An input without expressions, the plan's where the run has none of its own, is compared with the flow's schema now; others are, once they are filled in.

    Raises:
        FailureError: INPUT_INVALID.
    """
    text = _constant(own, given)
    if flow.schema is None or not text:
        return
    where = f"{AT}.input" if own is None else f"{at.rsplit('.', 1)[0]}.input"
    violations = flow.schema.violations(orjson.loads(text), at=where)
    if violations:
        raise FailureError(
            failure(
                "INPUT_INVALID", f"{violations[0].field}: {violations[0].description}", violations=tuple(violations)
            )
        )


def _constant(own: Payload | None, given: swarm_pb2.FixedPlan) -> str:
    """What a run gets, where that is known already; empty where it is not."""
    if own is not None:
        return own if isinstance(own, str) and OPEN not in own else ""
    return "" if given.input.WhichOneof("kind") == "ref" else _inline(given.input) or "{}"


def _placed(found: Failure, at: str) -> Failure:
    """A failure about a flow, with the place of that flow in the plan."""
    violations = tuple(
        msgspec.structs.replace(each, field=each.field.replace("input.flow.flow", at, 1)) for each in found.violations
    ) or (Violation(field=at, description=found.message),)
    return msgspec.structs.replace(found, violations=violations)


def _together(wrong: Sequence[Failure]) -> Failure:
    violations = tuple(violation for each in wrong for violation in each.violations)
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return msgspec.structs.replace(
        wrong[0], message=f"{violations[0].field}: {wrong[0].message}{more}", violations=violations
    )
