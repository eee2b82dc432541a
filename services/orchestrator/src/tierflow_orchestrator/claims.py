"""What executors claim: an executor may be broken or hostile, and only what it may say of an attempt that was given to it counts (R23, R24)."""

from __future__ import annotations

from typing import Final

from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Failure, Violation

from tierflow_orchestrator import wire
from tierflow_orchestrator.core.commands import ReportResult
from tierflow_orchestrator.core.failures import made
from tierflow_orchestrator.core.turn import Reply

log = get_log(__name__)

REASONS: Final = ("foreign", "stale", "unsound", "overdue")
"""Of an attempt of another executor; of one that is over, or never was; not what the contract allows; not answered in time."""

MOST_LOGS: Final = 64 * 1024
"""Bytes of log lines that are kept of one attempt; executors of this project send half as much."""
MOST_TEXT: Final = 16 * 1024
"""Characters of a failure's message."""

COUNTED: Final = ("credits", "memory_bytes", "steps", "attempts", "tool_calls", "input_tokens", "output_tokens")


class Refusals:
    """How much was refused of what executors said, by reason."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)

    def note(self, reason: str, kind: str, executor: str, attempt_id: str) -> None:
        """Counts and logs it. What is stale is the rule after each broken connection, and no reason for a warning."""
        self.counts[reason] += 1
        say = log.debug if reason == "stale" else log.warning
        say(
            "a report of an executor is refused",
            reason=reason,
            report=kind,
            executor=executor[:200],
            attempt_id=attempt_id[:200],
        )

    def answered(self, executor: str, attempt_id: str, reply: Reply) -> None:
        """The run has answered a result; nothing to note where it has taken it."""
        if reply.failure is not None:
            reason = "foreign" if reply.failure.code == "PERMISSION_DENIED" else "stale"
            self.note(reason, "result", executor, attempt_id)


def claimed(executor: str, result: step_pb2.StepExecutionResult, refusals: Refusals) -> ReportResult:
    """What an executor reports, as a command; as a failed attempt where the contract does not allow what it brings."""
    wrong = unsound(result)
    if wrong is None:
        return wire.result_command(result, executor)
    attempt_id = result.context.attempt_id
    refusals.note("unsound", "result", executor, attempt_id)
    return ReportResult(attempt_id=attempt_id, state="FAILED", failure=wrong, executor_id=executor)


def unsound(result: step_pb2.StepExecutionResult) -> Failure | None:
    """The failure of an attempt whose result the contract does not allow: it ended, and nothing of what it brought is taken."""
    found = _violations(result)
    if not found:
        return None
    code = "PAYLOAD_TOO_LARGE" if any("at most" in each.description for each in found) else "OUTPUT_INVALID"
    message = "The executor reported what the contract does not allow: " + "; ".join(
        f"{each.field} {each.description}" for each in found[:5]
    )
    return made(code, message, "report", violations=tuple(found[:20]))


def _violations(result: step_pb2.StepExecutionResult) -> list[Violation]:
    found: list[Violation] = []
    for name in ("output", "last_heartbeat"):
        if result.HasField(name):
            check_payload(name, getattr(result, name), found)
    if result.HasField("failure"):
        _check_failure(result, found)
    if result.HasField("usage"):
        _check_usage(result, found)
    if result.logs and sum(len(line.text) for line in result.logs) > MOST_LOGS:
        found.append(Violation(field="logs", description=f"have more than {MOST_LOGS} characters"))
    return found


def _check_failure(result: step_pb2.StepExecutionResult, found: list[Violation]) -> None:
    failure = result.failure
    for name in ("message", "handler_code", "component", "operation", "detail"):
        text = getattr(failure, name)
        if len(text) > MOST_TEXT:
            found.append(Violation(field=f"failure.{name}", description=f"has more than {MOST_TEXT} characters"))
        elif "\0" in text:
            found.append(Violation(field=f"failure.{name}", description="holds a NUL character"))


def _check_usage(result: step_pb2.StepExecutionResult, found: list[Violation]) -> None:
    usage = result.usage
    found.extend(
        Violation(field=f"usage.{name}", description="must not be negative")
        for name in COUNTED
        if getattr(usage, name) < 0
    )
