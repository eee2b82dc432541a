"""Everything that can go wrong: one entry per code of `tierflow.common.v1.ErrorCode`, with its gRPC status, whether a retry can help, and what to do.

This table is the only mapping between failures and gRPC. docs/errors.md is made from it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from grpc import StatusCode


class CodeInfo(msgspec.Struct, frozen=True, gc=False):
    """What the catalogue says of a code. `reason` is what callers find in `google.rpc.ErrorInfo.reason`; no two codes share one."""

    code: str
    status: StatusCode
    retryable: bool
    meaning: str
    hint: str

    @property
    def reason(self) -> str:
        """The code itself: distinct by construction, so that equal statuses stay distinguishable (Lesson 34)."""
        return self.code


_INVALID = StatusCode.INVALID_ARGUMENT
_PRECONDITION = StatusCode.FAILED_PRECONDITION
_EXHAUSTED = StatusCode.RESOURCE_EXHAUSTED
_UNAVAILABLE = StatusCode.UNAVAILABLE
_LATE = StatusCode.DEADLINE_EXCEEDED

_ENTRIES: Final = (
    CodeInfo(
        "INVALID_REQUEST",
        _INVALID,
        False,
        "The request breaks the contract.",
        "Correct every field that is listed and send it again.",
    ),
    CodeInfo(
        "FLOW_INVALID",
        _INVALID,
        False,
        "The flow is not valid.",
        "Correct every problem that is listed; CheckFlow shows them without starting anything.",
    ),
    CodeInfo(
        "FLOW_NOT_FOUND",
        StatusCode.NOT_FOUND,
        False,
        "No flow has that name, version or hash.",
        "Register the flow, or name one that ListFlows shows.",
    ),
    CodeInfo(
        "HANDLER_NOT_FOUND",
        _PRECONDITION,
        True,
        "No living executor offers the handler.",
        "Start an executor that offers it; ListExecutors shows what is offered.",
    ),
    CodeInfo(
        "INPUT_INVALID",
        _INVALID,
        False,
        "The input does not match the input schema.",
        "Correct the values that are listed.",
    ),
    CodeInfo(
        "OUTPUT_INVALID",
        _PRECONDITION,
        True,
        "The output does not match the output schema.",
        "Correct the handler or its schema; a retry helps where outputs vary.",
    ),
    CodeInfo(
        "EXPRESSION_FAILED",
        _INVALID,
        False,
        "An expression could not be evaluated.",
        "Look at the step named: does what the expression reads exist when it runs?",
    ),
    CodeInfo(
        "NOT_FOUND",
        StatusCode.NOT_FOUND,
        False,
        "It does not exist, or is not the caller's.",
        "Check the id and the tenant of the credential.",
    ),
    CodeInfo(
        "ALREADY_EXISTS",
        StatusCode.ALREADY_EXISTS,
        False,
        "A thing of that id exists already.",
        "Use the existing one, or another id or version.",
    ),
    CodeInfo(
        "REQUEST_ID_REUSED",
        StatusCode.ALREADY_EXISTS,
        False,
        "The request_id was used before with another body.",
        "Use a new request_id for a new request; repeat the same body to repeat one.",
    ),
    CodeInfo(
        "STATE_CONFLICT",
        _PRECONDITION,
        False,
        "The command does not apply in the present state.",
        "Read the state and decide again.",
    ),
    CodeInfo(
        "NOT_OWNER",
        StatusCode.ABORTED,
        True,
        "Another instance owns the entity.",
        "Read the owner again; clients never see this.",
    ),
    CodeInfo(
        "FENCED",
        _UNAVAILABLE,
        True,
        "The instance lost its lease and is about to exit.",
        "Try again: a peer takes over. Repeated fencing means a stalled host or database.",
    ),
    CodeInfo(
        "DEADLINE_EXCEEDED",
        _LATE,
        False,
        "The absolute deadline of the work has passed.",
        "Submit it with a later deadline.",
    ),
    CodeInfo(
        "TIMEOUT",
        _LATE,
        True,
        "The attempt ran longer than its timeout and was stopped.",
        "Raise the step's timeout if the work is rightly that long.",
    ),
    CodeInfo(
        "HEARTBEAT_TIMEOUT",
        _LATE,
        True,
        "The attempt gave no sign of life in time.",
        "Call context.heartbeat() in the handler, or raise heartbeat_timeout.",
    ),
    CodeInfo(
        "SCHEDULE_TIMEOUT",
        _LATE,
        True,
        "The attempt found no slot in time.",
        "Add executors or slots; GetQueue shows the backlog.",
    ),
    CodeInfo(
        "CANCELLED",
        StatusCode.CANCELLED,
        False,
        "The work was cancelled.",
        "Nothing: somebody asked for it; the events say who.",
    ),
    CodeInfo("HANDLER_FAILED", StatusCode.UNKNOWN, True, "The handler raised an error.", "Look at the attempt's logs."),
    CodeInfo(
        "HANDLER_REJECTED",
        _PRECONDITION,
        False,
        "The handler refused the work for good.",
        "Look at its message; the same input will be refused again.",
    ),
    CodeInfo(
        "RATE_LIMITED", _EXHAUSTED, True, "A rate limit was reached.", "Wait for retry_after and send less at once."
    ),
    CodeInfo("QUEUE_FULL", _EXHAUSTED, True, "The queue is full.", "Wait for retry_after; add capacity if it lasts."),
    CodeInfo(
        "TENANT_LIMIT",
        _EXHAUSTED,
        True,
        "The tenant or user has as much under way as it may have.",
        "Wait until some of it has ended, or raise the limit.",
    ),
    CodeInfo(
        "BUDGET_EXHAUSTED",
        _EXHAUSTED,
        False,
        "The budget has too little left.",
        "Top it up, then resume; a resume alone refills nothing.",
    ),
    CodeInfo(
        "MEMORY_EXCEEDED",
        _EXHAUSTED,
        False,
        "The attempt used more memory than it was granted and was stopped.",
        "Raise allocation.memory_bytes or make the step smaller.",
    ),
    CodeInfo(
        "PAYLOAD_TOO_LARGE",
        _EXHAUSTED,
        False,
        "A value is larger than may be sent inline.",
        "Store it as a blob and send the reference.",
    ),
    CodeInfo(
        "MESSAGE_TOO_LARGE",
        _EXHAUSTED,
        False,
        "A gRPC message is larger than the limit.",
        "Send less in one message; store large values as blobs.",
    ),
    CodeInfo(
        "EXECUTOR_LOST",
        _UNAVAILABLE,
        True,
        "The executor of the attempt is gone and its result with it.",
        "See whether executors are killed or out of memory; on_lost decides what follows.",
    ),
    CodeInfo(
        "UNAVAILABLE",
        _UNAVAILABLE,
        True,
        "The service asked is not reachable now.",
        "Try again; check its health if it lasts.",
    ),
    CodeInfo(
        "DATABASE_UNAVAILABLE",
        _UNAVAILABLE,
        True,
        "The database is not reachable now.",
        "Work goes on when it is back; check it if it lasts.",
    ),
    CodeInfo(
        "EVENTS_UNAVAILABLE",
        _UNAVAILABLE,
        True,
        "The event stream is not reachable now.",
        "Only watching suffers; check NATS if it lasts.",
    ),
    CodeInfo(
        "CONNECTION_FAILED",
        _UNAVAILABLE,
        True,
        "A connection to an outside system could not be made or broke.",
        "Check the address and the network.",
    ),
    CodeInfo(
        "CONNECTION_TIMEOUT",
        _LATE,
        True,
        "An outside system did not answer in time.",
        "Check that system; raise the call's timeout if it is rightly slow.",
    ),
    CodeInfo(
        "UPSTREAM_ERROR",
        StatusCode.UNKNOWN,
        False,
        "An outside system answered with an error of its own.",
        "Look at its answer; whether a retry helps is said in the failure.",
    ),
    CodeInfo(
        "PERMISSION_DENIED",
        StatusCode.PERMISSION_DENIED,
        False,
        "The caller may not do this.",
        "Ask for the role that the message names.",
    ),
    CodeInfo(
        "UNAUTHENTICATED",
        StatusCode.UNAUTHENTICATED,
        False,
        "The caller's credential is missing or not valid.",
        "Get a new credential.",
    ),
    CodeInfo(
        "APPROVAL_REJECTED",
        StatusCode.ABORTED,
        False,
        "A person or a timeout rejected the approval.",
        "Read the reason; submit again if it was a timeout.",
    ),
    CodeInfo(
        "CIRCUIT_OPEN",
        _UNAVAILABLE,
        True,
        "The circuit breaker for the target is open.",
        "Wait for retry_after; check the target.",
    ),
    CodeInfo(
        "MAX_RETRIES_EXCEEDED",
        StatusCode.ABORTED,
        False,
        "All attempts were used.",
        "The cause is the last failure: correct that, then retry the run.",
    ),
    CodeInfo(
        "COMPENSATION_FAILED",
        StatusCode.ABORTED,
        False,
        "A compensating step failed.",
        "Undo by hand what the failure names.",
    ),
    CodeInfo(
        "QUARANTINED",
        _PRECONDITION,
        False,
        "It was adopted repeatedly without progress.",
        "Find out why its owners died, then resume or cancel it.",
    ),
    CodeInfo(
        "SCHEMA_VERSION",
        _PRECONDITION,
        False,
        "The database schema is not of the version this build needs.",
        "Run the service's `migrate` command, or the matching build.",
    ),
    CodeInfo(
        "CONFIGURATION",
        _PRECONDITION,
        False,
        "A setting is missing or not valid.",
        "Correct the variable that is named.",
    ),
    CodeInfo(
        "STALE",
        StatusCode.ABORTED,
        False,
        "The message is addressed to something past; it was ignored.",
        "Nothing: what it is about has moved on.",
    ),
    CodeInfo(
        "INTERNAL",
        StatusCode.INTERNAL,
        False,
        "A defect in Tierflow or in a plug-in.",
        "Search the logs for the error id and report it.",
    ),
    CodeInfo(
        "STEP_FAILED",
        StatusCode.ABORTED,
        False,
        "A step failed and the failure policy ends the run.",
        "The cause is the step's failure: correct that, then retry the run.",
    ),
    CodeInfo(
        "UNSUPPORTED",
        StatusCode.UNIMPLEMENTED,
        False,
        "The contract has the feature, this build does not offer it.",
        "Leave the feature out, or use a build that has it.",
    ),
    CodeInfo(
        "LOOP_EXHAUSTED",
        StatusCode.ABORTED,
        False,
        "A loop needs more iterations than it may have.",
        "Find out why its condition did not come true, or raise its max.",
    ),
    CodeInfo(
        "VERSION_CONFLICT",
        StatusCode.ABORTED,
        False,
        "What was to be changed has another version than was expected.",
        "Read it again, decide again, and send the version that was read.",
    ),
    CodeInfo(
        "HISTORY_DAMAGED",
        StatusCode.DATA_LOSS,
        False,
        "The stored history is not as it was written.",
        "See where with VerifySwarm; restore the database from before that.",
    ),
)

CATALOGUE: Final[dict[str, CodeInfo]] = {entry.code: entry for entry in _ENTRIES}
"""Code (name without prefix) to what is known of it, in the order of the contract."""

_HANDLERS_OWN: Final = CATALOGUE["HANDLER_FAILED"]


def info(code: str) -> CodeInfo:
    """The entry of a code; a code that is not in the catalogue is a handler's own and counts as HANDLER_FAILED."""
    return CATALOGUE.get(code, _HANDLERS_OWN)


def grpc_status(code: str) -> StatusCode:
    """The gRPC status with which a failure of this code leaves."""
    return info(code).status
