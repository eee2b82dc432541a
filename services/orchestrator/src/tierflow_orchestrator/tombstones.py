"""Cancels that come before their runs: each leaves a run that is cancelled from its beginning, and that refuses the request that comes later (rule R29)."""

from __future__ import annotations

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.durable import Durable
from tierflow_durable.entity import Created
from tierflow_runtime import wire
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_parts import check_context
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, Micros, Violation

from tierflow_orchestrator.checks import out_of_time
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.turn import Reply

REFUSAL: Failure = failure(
    "CANCELLED", "the run was cancelled before its request came", component="orchestrator", operation="start_run"
)


def check_burial(request: pb.CommandRunRequest) -> None:
    """Whether the context that a cancel brings is one of the run that it cancels. Raises FailureError INVALID_REQUEST.

    Whether its id may still be new is seen when it is (`bury`): a run that exists may be as old as it likes.
    """
    context = request.context
    found: list[Violation] = []
    check_context(context, found, None)
    if context.run_id != request.run_id:
        found.append(Violation(field="context.run_id", description="is not the run that is to be cancelled"))
    missing = [name for name in ("tenant", "user_id", "swarm_id") if not getattr(context, name)]
    found.extend(Violation(field=f"context.{name}", description="required") for name in missing)
    refuse_if(found, "orchestrator", "command_run")


async def bury(
    durable: Durable, request: pb.CommandRunRequest, cancel: commands.Cancel, *, keep: Micros
) -> Reply | None:
    """The reply to a cancel of a run that does not exist; None where it has come meanwhile. Raises FailureError."""
    now = durable.clock.now()
    refuse_if(out_of_time("run_id", request.run_id, now, keep), "orchestrator", "command_run")
    context = wire.context_from_proto(request.context, now)
    created: Created = await durable.host.create(request.run_id, commands.Bury(context=context, cancel=cancel))
    reply: Reply | None = created.reply if created.created else None
    return reply


async def is_buried(durable: Durable, run_id: str, state: str) -> bool:
    """Whether a run that exists, in this state, is a tombstone. Raises FailureError."""
    return state == "CANCELLED" and bool(await durable.reader.view(run_id, lambda run: run.buried))
