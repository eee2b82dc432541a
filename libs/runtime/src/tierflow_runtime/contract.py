"""The contract of the three execution requests, checked at the boundary before any row, reservation or event exists (A5).

A check lists everything that is wrong, each with the path of its field. A well-formed step request passes in a few microseconds: what is expensive is only
done where a cheap look was not enough.
"""

from __future__ import annotations

from typing import Final

from tierflow_contracts.coordinator.v1.swarm_pb2 import FlowPlan, SwarmExecutionRequest, SwarmInput
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest

from tierflow_runtime.coded import CodedViolation
from tierflow_runtime.contract_basics import check_not_negative, check_text, check_uuid
from tierflow_runtime.contract_parts import check_allocation, check_context, check_flow_ref, check_options
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, FailureError, Micros, Violation

MOST_FLOWS: Final = 1000
MOST_AGENTS: Final = 1000
LONGEST_GOAL: Final = 65_536
_CHOSEN_BY_SERVER: Final = ("swarm_id", "run_id", "step_id", "attempt_id")

__all__ = ["CodedViolation", "check_run_request", "check_step_request", "check_swarm_request", "refusal", "refuse_if"]


def check_step_request(request: StepExecutionRequest, now: Micros | None = None) -> list[Violation]:
    """What is wrong with a request for an attempt; empty where nothing is.

    Args:
        request: The request.
        now: The present moment, for deadlines that come without time remaining; None reads the clock where it is needed.
    """
    found: list[Violation] = []
    _check_envelope(request, found, now)
    context = request.context
    if request.HasField("context"):
        check_uuid("context.run_id", context.run_id, found, required=True)
        check_uuid("context.swarm_id", context.swarm_id, found)
        for name, value in (
            ("step_id", context.step_id),
            ("attempt_id", context.attempt_id),
            ("idempotency_key", context.idempotency_key),
        ):
            if not value:
                found.append(Violation(field=f"context.{name}", description="required"))
        if not context.attempt:
            found.append(Violation(field="context.attempt", description="required; attempts count from 1"))
        if not context.epoch:
            found.append(Violation(field="context.epoch", description="required; epochs count from 1"))
    if request.HasField("input"):
        given = request.input
        check_text("input.handler", given.handler, found, required=True)
        check_text("input.grant_token", given.grant_token, found, longest=4096)
        check_payload("input.input", given.input, found)
        if given.HasField("last_heartbeat"):
            check_payload("input.last_heartbeat", given.last_heartbeat, found)
    return found


def check_run_request(request: RunExecutionRequest, now: Micros | None = None) -> list[Violation]:
    """What is wrong with a request for a run; empty where nothing is. Arguments as in `check_step_request`."""
    found: list[Violation] = []
    _check_envelope(request, found, now)
    context = request.context
    if request.HasField("context"):
        for name, value in (("tenant", context.tenant), ("user_id", context.user_id)):
            if not value:
                found.append(Violation(field=f"context.{name}", description="required"))
        check_uuid("context.swarm_id", context.swarm_id, found, required=True)
        check_uuid("context.run_id", context.run_id, found, required=True)
        if context.run_id and context.run_id == context.parent_id:
            found.append(Violation(field="context.parent_id", description="is the run itself"))
        if context.attempt_id and not context.parent_id:  # A run that is a step brings its result to its parent.
            found.append(Violation(field="context.parent_id", description="required: the run is a step of another"))
    if request.HasField("input"):
        given = request.input
        check_flow_ref("input.flow", given.flow if given.HasField("flow") else None, found)
        check_payload("input.input", given.input, found, must_be_object=True)
    return found


def check_swarm_request(request: SwarmExecutionRequest, now: Micros | None = None) -> list[Violation]:
    """What is wrong with a client's request for a swarm; empty where nothing is. Arguments as in `check_step_request`."""
    found: list[Violation] = []
    if request.HasField("context"):
        context = request.context
        check_context(context, found, now)
        chosen = [name for name in _CHOSEN_BY_SERVER if getattr(context, name)]
        found.extend(
            Violation(field=f"context.{name}", description="is chosen by the server; leave it empty") for name in chosen
        )
    if request.HasField("allocation"):
        check_allocation(request.allocation, found)
    if request.HasField("options"):
        check_options(request.options, found)
    if request.HasField("input"):
        _check_swarm_input(request.input, found)
    else:
        found.append(Violation(field="input", description="required"))
    return found


def refusal(violations: list[Violation], component: str = "", operation: str = "") -> Failure:
    """The failure with which a request is refused: one, with all its violations.

    The code is INVALID_REQUEST, unless all that is wrong is of one more telling kind (PAYLOAD_TOO_LARGE, DEADLINE_EXCEEDED).
    """
    codes = {violation.code if isinstance(violation, CodedViolation) else "" for violation in violations}
    code = (codes.pop() if len(codes) == 1 else "") or "INVALID_REQUEST"
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    message = f"{first.field}: {first.description}{more}"
    return failure(code, message, component=component, operation=operation, violations=tuple(violations))


def refuse_if(violations: list[Violation], component: str = "", operation: str = "") -> None:
    """Raises FailureError with the `refusal` where there are violations."""
    if violations:
        raise FailureError(refusal(violations, component, operation))


def _check_envelope(
    request: StepExecutionRequest | RunExecutionRequest, found: list[Violation], now: Micros | None
) -> None:
    """The four parts: all there, and the three that are shared are sound."""
    has = request.HasField
    if has("context"):
        check_context(request.context, found, now)
    if has("allocation"):
        check_allocation(request.allocation, found)
    if has("options"):
        check_options(request.options, found)
    found.extend(
        Violation(field=name, description="required")
        for name in ("context", "input", "allocation", "options")
        if not has(name)
    )


def _check_swarm_input(given: SwarmInput, found: list[Violation]) -> None:
    plan = given.WhichOneof("plan")
    if plan == "flow":
        _check_flow_plan("input.flow", given.flow, found)
    elif plan == "fixed":
        flows = given.fixed.flows
        if not given.fixed.runs and not 1 <= len(flows) <= MOST_FLOWS:
            found.append(
                Violation(
                    field="input.fixed.flows", description=f"has {len(flows)} flows; 1 to {MOST_FLOWS} are allowed"
                )
            )
        for index, flow in enumerate(flows[:MOST_FLOWS]):
            _check_flow_plan(f"input.fixed.flows[{index}]", flow, found)
    elif plan == "goal":
        check_text("input.goal.goal", given.goal.goal, found, required=True, longest=LONGEST_GOAL)
        check_payload("input.goal.input", given.goal.input, found, must_be_object=True)
    else:
        found.append(Violation(field="input.plan", description="required: one of flow, fixed, goal"))
    _check_team(given, found)


def _check_flow_plan(path: str, plan: FlowPlan, found: list[Violation]) -> None:
    check_flow_ref(f"{path}.flow", plan.flow if plan.HasField("flow") else None, found)
    check_payload(f"{path}.input", plan.input, found, must_be_object=True)


def _check_team(given: SwarmInput, found: list[Violation]) -> None:
    agents = given.available_agents
    if len(agents) > MOST_AGENTS:
        found.append(
            Violation(
                field="input.available_agents",
                description=f"has {len(agents)} agents; at most {MOST_AGENTS} are allowed",
            )
        )
    seen: set[str] = set()
    for index, agent in enumerate(agents[:MOST_AGENTS]):
        path = f"input.available_agents[{index}]"
        check_text(f"{path}.agent_id", agent.agent_id, found, required=True)
        if agent.agent_id in seen:
            found.append(Violation(field=f"{path}.agent_id", description=f"{agent.agent_id!r} is there twice"))
        seen.add(agent.agent_id)
        for position, capability in enumerate(agent.capabilities):
            check_text(f"{path}.capabilities[{position}]", capability, found, required=True)
        check_not_negative(f"{path}.max_concurrent_tasks", agent.max_concurrent_tasks, found)
        check_not_negative(f"{path}.current_load", agent.current_load, found)
    if given.HasField("team_configuration"):
        check_not_negative("input.team_configuration.max_agents", given.team_configuration.max_agents, found)
        check_payload(
            "input.team_configuration.settings", given.team_configuration.settings, found, must_be_object=True
        )
