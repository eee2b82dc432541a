"""What follows in a plan of several runs once something has ended (B17): the rules for steps of a flow (docs/flows.md), with one run at a time.

In the plan's order the first run is looked at whose needs are all decided. It is skipped, fails by an expression, is a choice, or is asked for; then the next one is looked
at, until one runs or none is left. Every decision is an event with its reason, so that a successor never decides again what was decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import dumps, loads
from tierflow_runtime.values import NO_ALLOCATION, Allocation, BlobRef, Failure, Micros, Payload

from tierflow_coordinator.core import events, ledger, states
from tierflow_coordinator.core.plan import (
    COMPLETED,
    DECIDED,
    FAILED,
    PENDING,
    SKIPPED,
    FlowChoice,
    Plan,
    PlannedRun,
    Standing,
)
from tierflow_coordinator.core.plan_scope import PlanScope, hindered
from tierflow_coordinator.core.plan_texts import asks_for_status, bare, evaluated, holds, value_template
from tierflow_coordinator.core.swarm import Swarm

LARGEST: Final = 1 << 20
"""Bytes of an input or output that a plan puts together."""

Emit: TypeAlias = Callable[[events.SwarmEvent], None]


class TooLargeError(ExpressionError):
    """A value that a plan puts together is larger than it may be."""


def go_on(swarm: Swarm, plan: Plan, emit: Emit, now: Micros, *, first_run: str = "", retried: bool = False) -> None:
    """Decides what follows, where nothing runs: more of the plan, a pause that was waited for, or the end.

    Args:
        swarm: The swarm, which `emit` changes.
        plan: Its plan.
        emit: Takes each event.
        now: The moment.
        first_run: The id of the first run, where the swarm begins.
        retried: A failed run that comes first is asked for in its next generation.
    """
    if swarm.ended or swarm.run_open or swarm.state == states.PAUSED:
        return
    if swarm.state == states.PAUSING:
        reason, actor = _by(swarm)
        emit(events.SwarmStateChanged(from_=swarm.state, to=states.PAUSED, reason=reason, actor=actor))
        return
    while (planned := _next(plan)) is not None:
        made = _decided(swarm, plan, planned)
        if isinstance(made, events.PlanDecided):
            emit(made)
        elif swarm.state == states.STOPPING:
            emit(_stopped(swarm))
            return
        else:
            standing = plan.standings[planned.id]
            run_id = first_run or _run_id(swarm, planned.id, standing.made, now)
            emit(
                _request(
                    planned,
                    made,
                    run_id,
                    standing if retried else None,
                    ledger.next_grant(swarm.allocation, swarm.usage),
                )
            )
            return
    emit(_end(swarm, plan))


def _request(
    planned: PlannedRun,
    made: tuple[FlowChoice, Payload | None],
    run_id: str,
    before: Standing | None,
    grant: Allocation | None,
) -> events.RunRequested:
    """A run; or the next generation of the one that failed before."""
    again = before is not None and bool(before.run_id)
    return events.RunRequested(
        run_id=before.run_id if before is not None and again else run_id,
        generation=before.generation + 1 if before is not None and again else 1,
        planned=planned.id,
        flow=made[0],
        input=made[1],
        reason=f"its condition is true: {bare(planned.condition)}" if planned.condition else "",
        grant=grant,
    )


def _by(swarm: Swarm) -> tuple[str, str]:
    """Why it was told what it was told last, and by whom."""
    return ("", "") if swarm.order is None else (swarm.order.reason, swarm.order.actor)


def _next(plan: Plan) -> PlannedRun | None:
    for planned in plan.runs:
        if plan.standings[planned.id].state == PENDING and all(
            plan.standings[need].state in DECIDED for need in planned.needs
        ):
            return planned
    return None


def _decided(swarm: Swarm, plan: Plan, planned: PlannedRun) -> events.PlanDecided | tuple[FlowChoice, Payload | None]:
    """What becomes of a run whose turn it is; its flow and input where it is to run."""
    always = asks_for_status(planned.condition)
    if (skipped := _not_chosen(plan, planned, always=always)) is not None:
        return skipped
    if not always:
        reason, passed_by = hindered(swarm, planned)
        if reason:
            return events.PlanDecided(planned=planned.id, state=SKIPPED, reason=reason, unchosen_by=passed_by)
    scope = PlanScope(swarm, planned)
    field = "if"
    try:
        if planned.condition and not holds(planned.condition, scope):
            reason = f"its condition is false: {bare(planned.condition)}"
            return events.PlanDecided(planned=planned.id, state=SKIPPED, reason=reason)
        field = "switch"
        if planned.is_choice:
            return _choice(planned, scope)
        field = "flow"
        flow = _flow(planned, scope)
        field = "input"
        return flow, _input(swarm, planned, scope)
    except ExpressionError as error:
        return events.PlanDecided(
            planned=planned.id,
            state=FAILED,
            reason=f"{field}: {error}",
            failure=_failure(error, f"Run {planned.id} of the plan, {field}: {error}"),
        )


def _not_chosen(plan: Plan, planned: PlannedRun, *, always: bool) -> events.PlanDecided | None:
    """Its choice has not named it; or could not be made, which is left to what follows from its failure unless the run always takes place."""
    choice = next((each for each in plan.runs if planned.id in each.named), None)
    if choice is None:
        return None
    standing = plan.standings[choice.id]
    made = standing.state == COMPLETED
    if planned.id in standing.chosen or not (made or always):
        return None
    return events.PlanDecided(
        planned=planned.id,
        state=SKIPPED,
        reason=f"{choice.id} has not chosen it: {standing.reason}",
        unchosen_by=choice.id if made else standing.unchosen_by,
    )


def _choice(planned: PlannedRun, scope: PlanScope) -> events.PlanDecided:
    """The first case that is true; cases after it are not looked at."""
    case, chosen, reason = None, planned.default, "no case is true"
    for index, each in enumerate(planned.cases):
        if holds(each.condition, scope):
            case, chosen, reason = index, each.then, f"case {index} is true: {bare(each.condition)}"
            break
    output = dumps({"case": case, "chosen": list(chosen)})
    return events.PlanDecided(planned=planned.id, state=COMPLETED, reason=reason, chosen=chosen, output=output)


def _flow(planned: PlannedRun, scope: PlanScope) -> FlowChoice:
    if not planned.naming:
        return planned.flows[0]
    name = evaluated(planned.naming, scope)
    for flow in planned.flows:
        if name in (flow.name, f"{flow.name}@{flow.version}"):
            return flow
    known = ", ".join(flow.name for flow in planned.flows)
    raise ExpressionError(f"{_shown(name)} is not among {known}, in ${{{{ {bare(planned.naming)} }}}}")


def _shown(value: Any) -> str:
    text = dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _input(swarm: Swarm, planned: PlannedRun, scope: PlanScope) -> Payload | None:
    if planned.input is None or isinstance(planned.input, BlobRef):
        return planned.input or swarm.input
    text = _filled(planned.input, scope)
    if isinstance(text, str) and not text.lstrip().startswith("{"):
        raise ExpressionError("the input is not a JSON object")
    return text


def _filled(source: str, scope: PlanScope) -> Payload | None:
    """A value with its expressions filled in. One that is nothing but a reference is handed on as it is, large or small."""
    template = value_template(loads(source), _never)
    plain = template.expressions[0].plain if template.whole else None
    if plain is not None and isinstance(found := scope.whole(plain.name, plain.path), BlobRef):
        return found
    text = template.resolve_json(scope)
    if len(text.encode()) > LARGEST:
        raise TooLargeError(f"it has more than {LARGEST} bytes; hand a large value on whole")
    return text


def _never(_path: Any, problem: str) -> None:
    raise ExpressionError(problem)


def _run_id(swarm: Swarm, planned_id: str, made: int, now: Micros) -> str:
    """A UUIDv7 of this moment that follows from what is known: nothing is asked of chance here."""
    digest = hashlib.sha256(f"{swarm.swarm_id}/{planned_id}/{made}".encode()).digest()
    number = int.from_bytes(digest[:10], "big")
    number = (now // 1000 & (1 << 48) - 1) << 80 | 0x7 << 76 | (number >> 62 & 0xFFF) << 64 | number & (1 << 62) - 1
    digits = f"{number | 0b10 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def allocation_of(swarm: Swarm, run_id: str) -> Allocation:
    """What a run of the plan may use: all that the other runs have left. Its time is bounded by the swarm's deadline."""
    plan = swarm.plan
    if plan is None or swarm.allocation == NO_ALLOCATION:
        return swarm.allocation
    left = ledger.returned(swarm.allocation, plan.used(without=run_id))
    return Allocation(
        credits=left.credits,
        memory_bytes=left.memory_bytes,
        concurrent_steps=left.concurrent_steps,
        steps=left.steps,
        tool_calls=left.tool_calls,
        tokens=left.tokens,
        depth=left.depth,
    )


# --- the end ---


def _end(swarm: Swarm, plan: Plan) -> events.SwarmEnded:
    failed = next((each for each in plan.runs if plan.standings[each.id].state == FAILED and not each.tolerate), None)
    if failed is not None:
        return _failed(swarm, plan.standings[failed.id].failure)
    try:
        output = _output(swarm, plan)
    except ExpressionError as error:
        return _failed(swarm, _failure(error, f"The plan's output: {error}"))
    return events.SwarmEnded(
        from_=swarm.state, to=states.COMPLETED, outcome=_outcome(plan), output=output, usage=swarm.usage
    )


def _failed(swarm: Swarm, failure: Failure | None) -> events.SwarmEnded:
    return events.SwarmEnded(from_=swarm.state, to=states.FAILED, outcome="FAILURE", failure=failure, usage=swarm.usage)


def _stopped(swarm: Swarm) -> events.SwarmEnded:
    reason, actor = _by(swarm)
    return events.SwarmEnded(
        from_=swarm.state, to=states.STOPPED, outcome="CANCELLED", usage=swarm.usage, reason=reason, actor=actor
    )


def _outcome(plan: Plan) -> str:
    """As well as the worst of the runs that took place; what was skipped on purpose takes nothing away."""
    outcomes = {each.outcome for each in plan.standings.values()}
    if "PARTIAL" in outcomes or any(each.state == FAILED for each in plan.standings.values()):
        return "PARTIAL"
    return "DEGRADED" if "DEGRADED" in outcomes else "SUCCESS"


def _output(swarm: Swarm, plan: Plan) -> Payload | None:
    scope = PlanScope(swarm)
    if plan.output:
        return _filled(plan.output, scope)
    needed = {need for each in plan.runs for need in each.needs}
    leaves = [each.id for each in plan.runs if each.id not in needed and not each.is_choice]
    return _filled(dumps({name: _leaf(name, plan.standings[name].output) for name in leaves}), scope)


def _leaf(name: str, output: Payload | None) -> Any:
    """What stands for a run in an output that nobody has worded: its output, or where that is stored."""
    if isinstance(output, BlobRef):
        return {"ref": {"sha256": output.sha256, "size": output.size, "media_type": output.media_type}}
    return "${{ runs." + name + ".output }}"


def _failure(error: ExpressionError, message: str) -> Failure:
    code = "PAYLOAD_TOO_LARGE" if isinstance(error, TooLargeError) else "EXPRESSION_FAILED"
    return Failure(code=code, message=message, tier=1, component="plan", operation="decide")
