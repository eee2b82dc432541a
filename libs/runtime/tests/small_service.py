"""A service for tests, started as a process: its servicer misbehaves on request, `TRY` says how its main does."""

# ruff: noqa: N802  # gRPC names its methods so

import asyncio
import os
import sys

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.errors import failure
from tierflow_runtime.security import caller_of
from tierflow_runtime.serving import Server, run_service
from tierflow_runtime.settings import StatefulSettings
from tierflow_runtime.supervision import Supervisor
from tierflow_runtime.values import Failure, FailureError

NAME = "tierflow.orchestrator.v1.OrchestratorService"


class Small(stubs.OrchestratorServiceServicer):
    """Answers by run id."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.hold = asyncio.Event()
        self.refusals: dict[str, Failure] = {}

    async def GetRun(self, request: pb.GetRunRequest, context: object) -> pb.GetRunResponse:
        self.seen.append(request.run_id)
        if refusal := self.refusals.get(request.run_id):
            raise FailureError(refusal)
        if request.run_id == "failure":
            cause = failure("TIMEOUT", "slow tool", tier=3, component="http.request", detail="10.0.0.7", attempt=2)
            raise FailureError(
                failure("STEP_FAILED", "step fetch failed", cause=cause, detail="internal", step_id="fetch")
            )
        if request.run_id == "defect":
            raise ValueError("SELECT secret FROM account")
        if request.run_id == "hold":
            await self.hold.wait()
        caller = caller_of(context)
        return pb.GetRunResponse(run={"owner": f"{caller.tenant}/{caller.user_id}"})

    async def WatchRun(self, request: pb.WatchRunRequest, context: object):
        yield pb.WatchRunResponse()
        if request.run_id == "defect":
            raise ValueError("SELECT secret FROM account")
        if request.run_id == "failure":
            raise FailureError(failure("NOT_FOUND", "no such run"))

    async def ListSteps(self, request: pb.ListStepsRequest, context: object) -> pb.ListStepsResponse:
        return pb.ListStepsResponse(next_page_token="x" * int(request.run_id))


async def main(settings: StatefulSettings, stop: asyncio.Event) -> None:
    """Serves until it is told to stop, unless TRY says otherwise."""
    server = Server(settings, tier=2, component="orchestrator")
    server.add(NAME, stubs.add_OrchestratorServiceServicer_to_server, Small())
    await server.start()
    attempt = os.environ.get("TRY", "")
    async with Supervisor() as supervisor:
        await server.announce_ready()
        if attempt == "fenced":
            raise FailureError(failure("FENCED", "the lease is gone"))
        if attempt == "schema":
            raise FailureError(failure("SCHEMA_VERSION", "the schema has version 3, this build needs 4"))
        if attempt == "defect":
            raise KeyError("missing")
        if attempt == "loop":
            supervisor.loop("heartbeat", crash)
        await stop.wait()
        if attempt == "stuck":
            await asyncio.Event().wait()
        await server.drain()


async def crash() -> None:
    """A loop that crashes."""
    raise OSError("gone")


if __name__ == "__main__":
    sys.exit(run_service(main, StatefulSettings, service="orchestrator"))
