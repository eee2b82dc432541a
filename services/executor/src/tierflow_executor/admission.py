"""Whether an attempt may and can run here. Business rules are Tier 2's: here it is the contract, the handler and the grant (B3)."""

from __future__ import annotations

from tierflow.registry import Registry
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_runtime import contract
from tierflow_runtime.values import Failure

from tierflow_executor.endings import attempt_failure


def refusal(registry: Registry, request: StepExecutionRequest) -> Failure | None:
    """Why an attempt must not or cannot run here; None where it can."""
    violations = contract.check_step_request(request)
    if violations:
        found = contract.refusal(violations)
        return attempt_failure(
            request, found.code, found.message, violations=found.violations, retryable=found.retryable
        )
    handler = registry.get(request.input.handler)
    if handler is None:
        return attempt_failure(request, "HANDLER_NOT_FOUND", f"this executor has no handler {request.input.handler!r}")
    if handler.side_effecting and not request.input.grant_token:
        text = f"{handler.name} changes the world outside and runs only with a grant of Tier 2's permission gate"
        return attempt_failure(request, "PERMISSION_DENIED", text)
    return None
