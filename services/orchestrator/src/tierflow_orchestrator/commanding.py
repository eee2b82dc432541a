"""Commands to runs, as they come in over the wire and as they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_flow import Flow
from tierflow_runtime import wire
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_basics import sound_timestamp
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.errors import public
from tierflow_runtime.ledger import DIMENSIONS
from tierflow_runtime.values import Failure, FailureError, Options, Payload, RetryPolicy, Violation

from tierflow_orchestrator.checks import sound_texts, violated
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.payloads import INLINE_BYTES
from tierflow_orchestrator.core.turn import Reply

MOST_BREAKPOINTS = 1000
MOST_SUPERSEDED = 16
_NUMBERS = ("concurrency", "concurrent_steps", *DIMENSIONS)

Said: TypeAlias = dict[str, str]
"""Command id, actor, reason."""
FindFlow: TypeAlias = Callable[[pb.CommandRunRequest], Awaitable[Flow]]


async def command_of(request: pb.CommandRunRequest, command_id: str, find: FindFlow) -> commands.RunCommand:
    """The command that a request means. Raises FailureError INVALID_REQUEST, and what finding a flow raises."""
    said = {"command_id": command_id, "actor": request.actor, "reason": request.reason}
    if request.command == pb.RUN_COMMAND_MIGRATE:
        flow = await find(request)
        return commands.Migrate(**said, definition=flow.canonical, only_check=request.validate_only)
    make = _MAKERS.get(request.command)
    if make is None:
        raise violated("command", "is not a command to a run", "command_run")
    return make(request, said)


def _pause(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    interrupt = request.pause_mode == pb.PAUSE_MODE_INTERRUPT
    return commands.Pause(**said, interrupt=interrupt, supersedes=_earlier(request))


def _resume(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    return commands.Resume(**said, supersedes=_earlier(request))


def _earlier(request: pb.CommandRunRequest) -> tuple[str, ...]:
    if len(request.supersedes) > MOST_SUPERSEDED:
        raise violated("supersedes", f"are more than {MOST_SUPERSEDED}", "command_run")
    sound_texts(**{f"supersedes[{index}]": text for index, text in enumerate(request.supersedes)})
    return tuple(request.supersedes)


def _retry(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    changes = request.changes
    deadline = wire.micros(changes.deadline) if changes.HasField("deadline") else None
    return commands.Retry(
        **said, generation=request.generation, deadline=deadline, funds=_funds(changes), supersedes=_earlier(request)
    )


def _funds(changes: Any) -> dict[str, int]:
    """What is granted to a new generation."""
    return {name: max(0, getattr(changes, name)) for name in DIMENSIONS if changes.HasField(name)}


def _skip(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    if not request.step_id:
        raise violated("step_id", "must not be empty", "command_run")
    sound_texts(step_id=request.step_id)
    return commands.Skip(**said, step_id=request.step_id, output=_output(request))


def _output(request: pb.CommandRunRequest) -> Payload | None:
    if not request.HasField("output"):
        return None
    found: list[Violation] = []
    check_payload("output", request.output, found)
    refuse_if(found, "orchestrator", "command_run")
    payload = wire.payload_from_proto(request.output)
    if isinstance(payload, str) and len(payload.encode()) > INLINE_BYTES:
        raise violated("output", f"has more than {INLINE_BYTES} bytes", "command_run")
    if payload is not None and not isinstance(payload, str):
        raise violated("output", "must be inline: a stored value is not taken", "command_run")
    return payload


def _step(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    sound_texts(step_id=request.step_id)
    return commands.StepOnce(**said, step_id=request.step_id)


def _breakpoints(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    if len(request.breakpoints) > MOST_BREAKPOINTS:
        raise violated("breakpoints", f"are more than {MOST_BREAKPOINTS}", "command_run")
    sound_texts(**{f"breakpoints[{index}]": text for index, text in enumerate(request.breakpoints)})
    return commands.SetBreakpoints(**said, breakpoints=tuple(request.breakpoints))


def _update(request: pb.CommandRunRequest, said: Said) -> commands.RunCommand:
    changes: Any = request.changes
    found = [
        Violation(field=f"changes.{name}", description="must not be negative")
        for name in _NUMBERS
        if changes.HasField(name) and getattr(changes, name) < 0
    ]
    sound_timestamp("changes.deadline", changes.deadline, found)
    policy = _retry_policy(changes, found)
    refuse_if(found, "orchestrator", "command_run")
    numbers: dict[str, Any] = {
        name: getattr(changes, name) if changes.HasField(name) else None for name in (*_NUMBERS, "expected_version")
    }
    return commands.Update(
        command_id=said["command_id"],
        actor=said["actor"],
        reason=said["reason"],
        **numbers,
        deadline=wire.micros(changes.deadline) if changes.HasField("deadline") else None,
        failure_policy=wire.FAILURE_POLICIES.name(changes.failure_policy),
        retry=policy,
    )


def _retry_policy(changes: pb.RunChanges, found: list[Violation]) -> RetryPolicy | None:
    if changes.failure_policy and not wire.FAILURE_POLICIES.knows(changes.failure_policy):
        found.append(Violation(field="changes.failure_policy", description="is not a failure policy"))
    if not changes.HasField("retry"):
        return None
    policy = wire.retry_policy_from_proto(changes.retry, Options().retry or RetryPolicy())
    if not 1 <= policy.max_attempts <= 1000 or policy.initial_delay < 0 or policy.factor < 1 or policy.max_delay < 0:
        found.append(
            Violation(
                field="changes.retry", description="has at least 1 attempt, a factor of at least 1, no negative delay"
            )
        )
    if not 0 <= policy.jitter <= 1:
        found.append(Violation(field="changes.retry.jitter", description="must be 0 to 1"))
    return policy


_MAKERS: dict[int, Callable[[pb.CommandRunRequest, Said], commands.RunCommand]] = {
    pb.RUN_COMMAND_PAUSE: _pause,
    pb.RUN_COMMAND_RESUME: _resume,
    pb.RUN_COMMAND_CANCEL: lambda request, said: commands.Cancel(**said),
    pb.RUN_COMMAND_RETRY: _retry,
    pb.RUN_COMMAND_SKIP: _skip,
    pb.RUN_COMMAND_STEP: _step,
    pb.RUN_COMMAND_SET_BREAKPOINTS: _breakpoints,
    pb.RUN_COMMAND_UPDATE: _update,
}


def answer_of(run_id: str, command_id: str, reply: Reply) -> pb.CommandRunResponse:
    """What a run has answered. Raises FailureError where it has refused."""
    if reply.failure is not None and reply.failure.code != "STALE":
        raise FailureError(reply.failure)
    answer = pb.CommandRunResponse(
        run_id=run_id,
        command_id=command_id,
        applied=reply.applied,
        state=wire.RUN_STATES.number(reply.state),
        failure=_shown(reply.failure),
        version=reply.version,
        generation=reply.generation,
    )
    if reply.difference is not None:
        d = reply.difference
        answer.difference.CopyFrom(
            pb.FlowDifference(
                from_hash=d.from_hash,
                to_hash=d.to_hash,
                from_version=d.from_version,
                to_version=d.to_version,
                added=d.added,
                removed=d.removed,
                changed=d.changed,
            )
        )
    return answer


def _shown(refused: Failure | None) -> Any:
    return None if refused is None else wire.failure_to_proto(public(refused))
