"""What can be asked of a run without telling it what to do: plans, queries, questions."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError


def _not_yet(operation: str) -> FailureError:
    return FailureError(failure("UNSUPPORTED", "this build does not offer it yet", operation=operation))


class Asking:
    """Part of the orchestrator's service."""

    async def PlanRerun(self, request: pb.PlanRerunRequest, context: Any) -> pb.PlanRerunResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("plan_rerun")

    async def QueryRun(self, request: pb.QueryRunRequest, context: Any) -> pb.QueryRunResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("query_run")

    async def AskRun(self, request: pb.AskRunRequest, context: Any) -> pb.AskRunResponse:  # noqa: N802
        """See the proto."""
        raise _not_yet("ask_run")
