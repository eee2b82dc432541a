"""What is shown of a run that somebody has steered."""

from __future__ import annotations

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_runtime import wire
from tierflow_runtime.lineage import fill_reuse
from tierflow_runtime.values import NO_USAGE, Usage

from tierflow_orchestrator.core.planning import Plan
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steer import Stop
from tierflow_orchestrator.core.step import Step

_STATES = {
    "OPEN": run_pb2.ATTEMPT_RECEIPT_STATE_OPEN,
    "CONFIRMED": run_pb2.ATTEMPT_RECEIPT_STATE_CONFIRMED,
    "UNCONFIRMED": run_pb2.ATTEMPT_RECEIPT_STATE_UNCONFIRMED,
    "ENDED": run_pb2.ATTEMPT_RECEIPT_STATE_ENDED,
}


def show_steering(message: run_pb2.Run, run: Run) -> None:
    """Fills in what a run has besides what all have."""
    message.context.generation = run.generation
    message.allocation.CopyFrom(wire.allocation_to_proto(run.allocation))
    message.options.CopyFrom(wire.options_to_proto(run.options))
    if run.deadline is not None:
        message.deadline.CopyFrom(wire.timestamp(run.deadline))
    steer = run.steer
    if steer is None:
        return
    message.version = steer.version
    message.breakpoints.extend(steer.breakpoints)
    if steer.reuse is not None:
        fill_reuse(message.reuse, steer.reuse)
    if steer.stop is not None:
        message.stop.CopyFrom(receipt(run, steer.stop))


def show_step(message: run_pb2.Step, step: Step) -> None:
    """The same for a step."""
    message.held = step.held
    message.reused_from = step.reused_from


def receipt(run: Run, stop: Stop) -> run_pb2.StopReceipt:
    """What became of what was in flight when the run was told to stop, and what was spent since (S6)."""
    return run_pb2.StopReceipt(
        asked_at=wire.timestamp(stop.asked_at),
        reason=stop.reason,
        actor=stop.actor,
        attempts=[
            run_pb2.AttemptReceipt(
                step_id=one.step_id,
                attempt_id=attempt_id,
                state=_STATES[one.state],
                usage=None if one.usage == NO_USAGE else wire.usage_to_proto(one.usage),
            )
            for attempt_id, one in stop.attempts.items()
        ],
        spent_since=wire.usage_to_proto(_since(run.usage, stop.before)),
        open=sum(one.state == "OPEN" for one in stop.attempts.values()),
    )


def _since(now: Usage, before: Usage) -> Usage:
    """What was added. Memory is the greatest seen, not a sum."""
    return Usage(
        credits=now.credits - before.credits,
        wall_time=now.wall_time - before.wall_time,
        cpu_time=now.cpu_time - before.cpu_time,
        memory_bytes=now.memory_bytes,
        steps=now.steps - before.steps,
        attempts=now.attempts - before.attempts,
        tool_calls=now.tool_calls - before.tool_calls,
        input_tokens=now.input_tokens - before.input_tokens,
        output_tokens=now.output_tokens - before.output_tokens,
        metrics={name: value - before.metrics.get(name, 0.0) for name, value in now.metrics.items()},
    )


def plan_shown(plan: Plan) -> pb.RerunPlan:
    """A plan as a message."""
    return pb.RerunPlan(
        executed=[
            pb.PlannedStep(
                step_id=one.step_id,
                reason=one.reason,
                attempts=one.attempts,
                duration=wire.duration(one.duration),
                usage=wire.usage_to_proto(one.usage),
            )
            for one in plan.executed
        ],
        reused=plan.reused,
        attempts=plan.attempts,
        duration=wire.duration(plan.duration),
        usage=wire.usage_to_proto(plan.usage),
        unknown=[one.step_id for one in plan.executed if not one.known],
    )
