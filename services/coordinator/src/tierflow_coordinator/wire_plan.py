"""Plans of several runs between core and protobuf: in requests, in the journal, as they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tierflow_contracts.common.v1 import flow_pb2, plan_pb2
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime.errors import public
from tierflow_runtime.filling import fill_allocation, fill_payload
from tierflow_runtime.values import Failure, Payload
from tierflow_runtime.wire import (
    OUTCOMES,
    STEP_STATES,
    allocation_from_proto,
    failure_from_proto,
    failure_to_proto,
    payload_from_proto,
)

from tierflow_coordinator.core import events
from tierflow_coordinator.core.plan import Case, FlowChoice, Plan, PlannedRun, Standing

CONTINUE: Final = "continue"


def planned_from_proto(message: plan_pb2.PlannedRun) -> PlannedRun:
    """A run of a plan, as it was given or as it is stored."""
    flows = message.among or ([message.flow] if message.HasField("flow") else [])
    return PlannedRun(
        id=message.id,
        flows=tuple(_flow(each) for each in flows),
        naming=message.flow.name if message.among else "",
        input=_payload(message, "input"),
        needs=tuple(message.needs),
        condition=getattr(message, "if"),
        cases=tuple(Case(condition=getattr(case, "if"), then=tuple(case.then)) for case in message.switch),
        default=tuple(message.default),
        tolerate=message.on_error == CONTINUE,
    )


def planned_to_proto(planned: PlannedRun) -> plan_pb2.PlannedRun:
    """The same, stored."""
    message = plan_pb2.PlannedRun(
        id=planned.id,
        needs=planned.needs,
        default=planned.default,
        on_error=CONTINUE if planned.tolerate else "",
        switch=[_case(case) for case in planned.cases],
        among=[_ref(flow) for flow in planned.flows] if planned.naming else [],
    )
    setattr(message, "if", planned.condition)
    if planned.naming:
        message.flow.name = planned.naming
    elif planned.flows:
        message.flow.CopyFrom(_ref(planned.flows[0]))
    fill_payload(message.input, planned.input)
    return message


def fill_created(message: ev.SwarmCreated, event: events.SwarmCreated) -> None:
    """The plan of a swarm that was accepted."""
    message.plan.extend(planned_to_proto(each) for each in event.plan)
    message.plan_output = event.plan_output


def plan_of(messages: Iterable[plan_pb2.PlannedRun]) -> tuple[PlannedRun, ...]:
    """The runs of a stored plan."""
    return tuple(planned_from_proto(each) for each in messages)


def fill_requested(message: ev.RunRequested, event: events.RunRequested) -> None:
    """A run was asked for."""
    message.run_id = event.run_id
    message.generation = event.generation
    if event.grant is not None:
        fill_allocation(message.grant, event.grant)
    if event.planned:
        message.planned, message.reason = event.planned, event.reason
        if event.flow is not None:
            message.flow.CopyFrom(_ref(event.flow))
        fill_payload(message.input, event.input)


def requested_from_proto(message: ev.RunRequested) -> events.RunRequested:
    """The same, read."""
    grant = allocation_from_proto(message.grant) if message.HasField("grant") else None
    if not message.planned:
        return events.RunRequested(run_id=message.run_id, generation=message.generation, grant=grant)
    return events.RunRequested(
        run_id=message.run_id,
        generation=message.generation,
        planned=message.planned,
        flow=_flow(message.flow) if message.HasField("flow") else None,
        input=_payload(message, "input"),
        reason=message.reason,
        grant=grant,
    )


def fill_decided(message: ev.PlanDecided, event: events.PlanDecided) -> None:
    """A decision about a plan."""
    decision = message.decision
    decision.id, decision.reason = event.planned, event.reason
    decision.state = STEP_STATES.number(event.state)
    decision.chosen.extend(event.chosen)
    decision.unchosen_by = event.unchosen_by
    fill_payload(decision.output, event.output)
    if event.failure is not None:
        decision.failure.CopyFrom(failure_to_proto(event.failure))


def decided_from_proto(message: ev.PlanDecided) -> events.PlanDecided:
    """The same, read."""
    decision = message.decision
    return events.PlanDecided(
        planned=decision.id,
        state=STEP_STATES.name(decision.state),
        reason=decision.reason,
        failure=_failure(decision),
        output=_payload(decision, "output"),
        chosen=tuple(decision.chosen),
        unchosen_by=decision.unchosen_by,
    )


def shown(plan: Plan, *, ended: bool) -> list[plan_pb2.PlannedRunStatus]:
    """What became of each run, for people; where the swarm has ended, what was not looked at is cancelled."""
    return [_status(each.id, plan.standings[each.id], ended=ended) for each in plan.runs]


def _status(planned_id: str, standing: Standing, *, ended: bool) -> plan_pb2.PlannedRunStatus:
    undone = ended and standing.state in ("PENDING", "RUNNING")
    message = plan_pb2.PlannedRunStatus(
        id=planned_id,
        state=STEP_STATES.number("CANCELLED" if undone else standing.state),
        reason=standing.reason,
        run_id=standing.run_id,
        outcome=OUTCOMES.number(standing.outcome),
        generation=standing.generation,
        chosen=standing.chosen,
        unchosen_by=standing.unchosen_by,
    )
    if standing.flow is not None:
        message.flow.CopyFrom(_ref(standing.flow))
    if standing.failure is not None:
        message.failure.CopyFrom(failure_to_proto(public(standing.failure)))
    return message


def _case(case: Case) -> plan_pb2.PlannedCase:
    message = plan_pb2.PlannedCase(then=case.then)
    setattr(message, "if", case.condition)
    return message


def _flow(ref: flow_pb2.FlowRef) -> FlowChoice:
    return FlowChoice(name=ref.name, version=ref.version, hash=ref.hash)


def _ref(flow: FlowChoice) -> flow_pb2.FlowRef:
    return flow_pb2.FlowRef(name=flow.name, version=flow.version, hash=flow.hash)


def _payload(message: Any, field: str) -> Payload | None:
    return payload_from_proto(getattr(message, field)) if message.HasField(field) else None


def _failure(message: plan_pb2.PlannedRunStatus) -> Failure | None:
    return failure_from_proto(message.failure) if message.HasField("failure") else None
