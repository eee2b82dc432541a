"""Puts the orchestrator together, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tierflow_contracts.common.v1 import peer_service_pb2_grpc
from tierflow_contracts.executor.v1 import executor_service_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_durable.durable import Durable, DurableOptions
from tierflow_durable.migrations import check_version
from tierflow_durable.outlet import Outlet
from tierflow_runtime.afterwards import end_all
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.messaging import Messaging, StreamMade
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.serving import Server
from tierflow_runtime.telemetry import setup_telemetry
from tierflow_runtime.values import FailureError

from tierflow_orchestrator import blobs, contexts, service
from tierflow_orchestrator.children import Children
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.dead_letters import Letters
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.engine import Engine
from tierflow_orchestrator.flows import Flows
from tierflow_orchestrator.gauges import publish_metrics
from tierflow_orchestrator.machine import RunMachine
from tierflow_orchestrator.policy import PolicyFile
from tierflow_orchestrator.prerequisites import Prerequisites
from tierflow_orchestrator.sessions import Sessions
from tierflow_orchestrator.settings import PACKAGES, SCHEMA, OrchestratorSettings
from tierflow_orchestrator.spans import RunSpans
from tierflow_orchestrator.starting import Starting

log = get_log(__name__)

READINESS_EVERY = 0.5


async def check_database(settings: OrchestratorSettings) -> None:
    """Raises FailureError SCHEMA_VERSION or CONFIGURATION: a service does not start on a database that is not there or not right (I16)."""
    try:
        await check_version(settings.database_url, SCHEMA, *PACKAGES)
    except FailureError:
        raise
    except Exception as error:
        # Whatever asyncpg raises when it cannot look: the operator is told in one line.
        message = f"TIERFLOW_DATABASE_URL: the database cannot be used: {error or type(error).__name__}; start Postgres, or correct the address"
        raise FailureError(
            failure("CONFIGURATION", message, component="app", operation="start", detail=str(error))
        ) from error


def _policy(settings: OrchestratorSettings) -> PolicyFile | None:
    return PolicyFile(settings.policy_file) if settings.policy_file is not None else None


async def main(settings: OrchestratorSettings, stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains. Raises FailureError FENCED when another instance has taken over."""
    policy = _policy(settings)
    await check_database(settings)
    telemetry = setup_telemetry("tierflow-orchestrator", settings)
    fenced: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_stream(made: StreamMade) -> None:
        durable.stream_met(made.created)

    messaging = (
        Messaging(settings.nats_url, f"orchestrator-{settings.instance_name}", on_stream=on_stream)
        if settings.nats_url
        else None
    )
    server = Server(settings, tier=2, component="orchestrator", telemetry=telemetry)
    spans = RunSpans(telemetry)
    engine = Engine(spans=spans, messaging=messaging)
    engine.policy = policy
    options = DurableOptions(
        schema=SCHEMA,
        database_url=settings.database_url,
        name=settings.instance_name,
        address=settings.advertised(settings.port),
        lease=settings.lease_seconds,
        heartbeat=settings.heartbeat_seconds,
        keep_days=settings.keep_days,
    )
    durable = Durable(
        RunMachine(),
        engine,
        options,
        publisher=Outlet(messaging) if messaging is not None else None,
        on_fenced=lambda why: None if fenced.done() else fenced.set_result(why),
    )
    flows = Flows(durable.database, durable.clock)
    dispatcher = Dispatcher(
        settings.executors, engine, lambda: durable.instance.alive, lost_after=settings.executor_lost_seconds
    )
    engine.connect(durable.host, durable.router, dispatcher, flows)
    sessions = Sessions(
        durable,
        lambda: pb.OrchestratorInfo(
            instance_id=durable.instance_id, name=settings.instance_name, address=server.address
        ),
    )
    prerequisites = Prerequisites(dispatcher, lambda: None if policy is None else policy.current)
    starting = Starting(durable, flows, dispatcher, settings, prerequisites)
    runs = service.OrchestratorService(durable, starting, dispatcher, sessions, flows)
    children = engine.children = Children(
        durable, start=starting.start, command=runs.command, traceparent=spans.attempt_traceparent
    )
    letters = Letters(durable)

    def ended(run: Run) -> None:
        letters.ended(run)
        (children if run.context.attempt_id else sessions).ended(run)

    engine.on_ended = ended
    engine.on_state = sessions.changed
    server.add(service.SERVICE, rpc.add_OrchestratorServiceServicer_to_server, runs)
    server.add(
        service.FLOW_SERVICE,
        rpc.add_FlowServiceServicer_to_server,
        service.FlowService(flows, dispatcher, prerequisites),
    )
    server.add(
        contexts.SERVICE,
        rpc.add_ContextServiceServicer_to_server,
        contexts.ContextService(durable, sessions.questions),
    )
    server.add(blobs.SERVICE, rpc.add_BlobServiceServicer_to_server, blobs.BlobService(durable))
    server.add(
        "tierflow.common.v1.PeerService", peer_service_pb2_grpc.add_PeerServiceServicer_to_server, durable.peer_servicer
    )
    await server.start()
    durable.instance.address = server.address
    dispatcher.identity.MergeFrom(
        executor_service_pb2.OrchestratorHello(
            instance_id=durable.instance_id, name=settings.instance_name, address=server.address
        )
    )
    metrics = publish_metrics(settings, durable, dispatcher, engine, sessions)
    loops = [
        asyncio.create_task(dispatcher.run()),
        asyncio.create_task(sessions.run_sweep()),
        asyncio.create_task(children.run_sweep()),
        asyncio.create_task(engine.cache.run_sweep()),
        asyncio.create_task(durable.dead_letters.run(letters.note)),
    ]
    if policy is not None:
        loops.append(asyncio.create_task(policy.run()))
    if messaging is not None:
        loops.append(asyncio.create_task(messaging.run()))
    try:
        await durable.start()
        await server.announce_ready(instance_id=durable.instance_id)
        loops.append(asyncio.create_task(_show_readiness(server, durable)))
        await _until(stop, fenced, loops)
        starting.drain()
        await _drain(settings, server, durable, sessions)
    finally:
        await end_all(loops)
        await durable.close()
        await telemetry.shutdown()
        if isinstance(metrics, Metrics):
            metrics.close()


async def _show_readiness(server: Server, durable: Durable) -> None:
    """Health tells whether work can be taken: the database is there and the lease is good (L6). NATS does not matter (rule R21)."""
    shown = True
    while True:
        await asyncio.sleep(READINESS_EVERY)
        if durable.ready != shown:
            shown = durable.ready
            log.info("readiness changed", ready=shown)
            await server.set_all_serving(shown)


async def _until(stop: asyncio.Event, fenced: asyncio.Future[str], loops: list[asyncio.Task[None]]) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    waited: set[asyncio.Future[Any]] = {stopping, fenced, *loops}
    try:
        done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    if fenced in done:
        raise FailureError(failure("FENCED", fenced.result(), component="durable", operation="run"))
    for loop in done - {stopping}:
        error = loop.exception()
        raise error or RuntimeError("a loop of the orchestrator ended")


async def _drain(settings: OrchestratorSettings, server: Server, durable: Durable, sessions: Sessions) -> None:
    """Takes nothing new, hands runs over with their attempts, publishes what is committed, ends the streams."""
    await server.set_all_serving(False)
    sessions.announce_draining()
    await durable.drain(settings.drain_timeout)
    sessions.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.drain(1.0), 3.0)
