"""Puts the coordinator together, serves, and drains: the one place where its parts are made (B6, B10)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
from collections.abc import Coroutine
from typing import Any, ClassVar, Final

import asyncpg
from tierflow_contracts.common.v1 import peer_service_pb2_grpc
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.database import is_weather
from tierflow_durable.durable import Durable, DurableOptions
from tierflow_durable.migrations import check_version
from tierflow_durable.outlet import Outlet
from tierflow_durable.sqlfile import statement
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.messaging import Messaging, StreamMade
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.serving import Server
from tierflow_runtime.supervision import RESTART, Supervisor
from tierflow_runtime.telemetry import Telemetry, setup_telemetry
from tierflow_runtime.values import BlobRef, FailureError

from tierflow_coordinator.access import Access
from tierflow_coordinator.admission import Admission
from tierflow_coordinator.auditing import Audited
from tierflow_coordinator.calls import AttemptCalls
from tierflow_coordinator.contexts import Contexts
from tierflow_coordinator.engine import Engine
from tierflow_coordinator.facade import read_blob
from tierflow_coordinator.flows import Flows
from tierflow_coordinator.gauges import ContextCalls, Endings, publish_metrics, publish_submissions
from tierflow_coordinator.machine import SwarmMachine
from tierflow_coordinator.orchestrators import Orchestrators
from tierflow_coordinator.progress import Progress
from tierflow_coordinator.queue import Queue
from tierflow_coordinator.schedules.gauges import Firings, publish_schedules
from tierflow_coordinator.schedules.hosting import Schedules
from tierflow_coordinator.service import CoordinatorServicer
from tierflow_coordinator.settings import SCHEDULES, SCHEDULES_PACKAGE, SCHEMA, CoordinatorSettings
from tierflow_coordinator.submission import Submission
from tierflow_coordinator.tracing import Tracing
from tierflow_coordinator.watch import Watches

log = get_log(__name__)

SERVICE: Final = "tierflow.coordinator.v1.CoordinatorService"
PEERS: Final = "tierflow.common.v1.PeerService"
_WEATHER: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, TimeoutError)
_CALLS_END: Final = 5.0
"""Seconds that calls under way are given at a drain: they wait for commits, not for work."""


class Coordinator:
    """One coordinator process. `start`, then `serve` until told to stop."""

    made: ClassVar[int] = 0
    """How many were made in this process: one, whatever the number of swarms."""

    def __init__(self, settings: CoordinatorSettings, supervisor: Supervisor, telemetry: Telemetry) -> None:
        Coordinator.made += 1
        self.settings = settings
        self.metrics = Metrics("coordinator")
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._fenced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.server = Server(settings, tier=1, component="coordinator", telemetry=telemetry, metrics=self.metrics)
        self.messaging = (
            Messaging(settings.nats_url, settings.instance_name, on_stream=self._stream_made)
            if settings.nats_url
            else None
        )
        self.engine = Engine(
            tracing=Tracing(telemetry), park_after=settings.park_seconds, on_end=Endings(self.metrics).note
        )
        self.durable: Durable
        self.schedules: Schedules
        self.submission: Submission
        self.servicer: CoordinatorServicer
        self.orchestrators: Orchestrators
        self.watches: Watches

    async def start(self) -> None:
        """Listens, waits for the database, takes up its work. Raises FailureError SCHEMA_VERSION."""
        # The port first: the instance's address is in the row by which peers find it.
        self._add_servicers()
        await self.server.start()
        await self._database_ready()
        await self.durable.start()
        await self.schedules.durable.start()
        self._start_loops()
        # What is there now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        await self.server.announce_ready(instance_id=self.durable.instance_id)

    def _add_servicers(self) -> None:
        settings = self.settings
        options = DurableOptions(
            schema=SCHEMA,
            database_url=settings.database_url,
            name=settings.instance_name,
            address="",
            lease=settings.lease_seconds,
            heartbeat=settings.heartbeat_seconds,
            keep_days=settings.keep_days,
        )
        self.durable = Durable(
            SwarmMachine(),
            self.engine,
            options,
            publisher=Outlet(self.messaging) if self.messaging is not None else None,
            on_fenced=self._on_fenced,
        )
        self.engine.bind(self.durable)
        self.schedules = Schedules(
            dataclasses.replace(options, schema=SCHEDULES, pool_size=2),
            publisher=Outlet(self.messaging) if self.messaging is not None else None,
            notes=Firings(self.metrics),
            on_fenced=self._on_fenced,
        )
        self.engine.tell_schedule = self.schedules.engine.tell_end
        interceptors = self._telemetry.client_interceptors()
        self.orchestrators = Orchestrators(
            settings.orchestrators,
            hello=orchestrator.CoordinatorHello(instance_id=self.durable.instance_id, name=settings.instance_name),
            listener=self.engine.runs,
            channel=lambda address: open_channel(
                address, max_message_bytes=settings.max_message_bytes, interceptors=interceptors
            ),
        )
        self.engine.runs.fleet = self.orchestrators
        flows = Flows(self.orchestrators, spawn=self._spawn)
        admission = Admission(
            flows,
            clock=self.durable.clock.now,
            read_blob=self._read_blob,
            full=self._full,
            new_trace=self._telemetry.root,
        )
        self.watches = Watches(
            self.durable,
            self.orchestrators,
            now=self.durable.clock.now,
            progress=Progress(self.messaging) if self.messaging is not None else None,
        )
        self.submission = submission = Submission(admission, self.engine, self.durable)
        self.schedules.bind(submission, self.engine.steer, admission.foresee)
        self.durable.peer_servicer.beside(self.schedules.durable.peer_servicer)
        contexts = Contexts(self.durable, ContextCalls(self.metrics).note)
        self.engine.runs.context_call = AttemptCalls(contexts, self.durable).heard
        self.servicer = CoordinatorServicer(
            durable=self.durable,
            engine=self.engine,
            submission=submission,
            schedules=self.schedules,
            access=Access(development=settings.is_development),
            watches=self.watches,
            queue=Queue(
                swarms=self._count_swarms,
                runs=lambda: self.servicer.run_queue(),
                now=self.durable.clock.now,
                max_size=settings.max_swarms,
            ),
            contexts=contexts,
            orchestrators=self.orchestrators,
            flows=flows,
        )
        audited = Audited(self.servicer, self.durable.audit)
        self.server.add(SERVICE, coordinator_service_pb2_grpc.add_CoordinatorServiceServicer_to_server, audited)
        self.server.add(PEERS, peer_service_pb2_grpc.add_PeerServiceServicer_to_server, self.durable.peer_servicer)

    def _full(self) -> str:
        """Why no new swarm is taken now; empty where one is (J10)."""
        if self.engine.load.under_way >= self.settings.max_swarms:
            return f"{self.settings.max_swarms} swarms are under way, which is the most that may be."
        if self.durable.host.writer.backlog >= self.settings.most_commits_waiting:
            return f"{self.durable.host.writer.backlog} swarms wait for the database to store what is decided."
        return ""

    def _start_loops(self) -> None:
        loop = self._supervisor.loop
        engine = self.engine
        loop("orchestrators", self.orchestrators.run)
        loop("runs", engine.runs.run)
        loop("resting", engine.resting.run)
        loop("dead letters", lambda: self.durable.dead_letters.run(_no_letter), restart=RESTART)
        loop("terminated", engine.run_terminated, restart=RESTART)
        loop("load", lambda: engine.load.run(self.durable.reader.count_states), restart=RESTART)
        loop("readiness", self._follow_readiness)
        loop("sampler", self.metrics.run_sampler)
        if self.messaging is not None:
            loop("messaging", self.messaging.run, restart=RESTART)
        self._show_metrics()

    async def serve(self, stop: asyncio.Event) -> None:
        """Serves until told to stop, then drains. Raises FailureError FENCED, where a peer has taken over."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {stopping, self._fenced}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._fenced.done():
            raise FailureError(failure("FENCED", self._fenced.result(), component="coordinator", operation="serve"))
        await self.drain()

    async def drain(self) -> None:
        """Sends clients elsewhere, lets calls end, hands the swarms over."""
        self.servicer.drain()
        await self.server.drain(min(_CALLS_END, self.settings.drain_timeout))
        # First those that make swarms.
        await self.schedules.durable.drain(self.settings.drain_timeout / 2)
        await self.durable.drain(self.settings.drain_timeout)

    async def close(self) -> None:
        """Stops what is left."""
        await self._supervisor.stop()
        await self.schedules.durable.close()
        await self.durable.close()
        await self.server.drain(0)
        self.metrics.close()
        await self._telemetry.shutdown()

    # --- parts ---

    async def _database_ready(self) -> None:
        """Waits for the database, however long: a start in bad weather is not a defect (R5). Raises FailureError SCHEMA_VERSION or CONFIGURATION."""
        said = False
        while True:
            try:
                await check_version(self.settings.database_url, SCHEMA)
                await check_version(self.settings.database_url, SCHEDULES, SCHEDULES_PACKAGE)
            except (*_WEATHER, asyncpg.PostgresError) as error:
                if not isinstance(error, _WEATHER) and not is_weather(error):
                    raise _unusable(error) from error
                if not said:
                    log.warning("the database is away; the start waits", reason=f"{type(error).__name__}: {error}")
                said = True
                await asyncio.sleep(0.5)
            else:
                self.durable.instance.address = self.schedules.durable.instance.address = self.server.address
                return

    async def _follow_readiness(self) -> None:
        """Health says what is so: NOT_SERVING while the database is away or the lease is lost (lesson 35)."""
        serving = True
        while True:
            await asyncio.sleep(0.2)
            if (ready := self.durable.ready and self.schedules.durable.ready) != serving:
                serving = ready
                await self.server.set_all_serving(serving)
                log.info("readiness changed", ready=serving)

    async def _stream_made(self, made: StreamMade) -> None:
        self.durable.stream_met(made.created)
        self.schedules.durable.stream_met(made.created)

    async def _count_swarms(self) -> dict[str, int]:
        query = statement("count_swarms", package="tierflow_coordinator")
        return {row["state"]: row["n"] for row in await self.durable.database.fetch_patiently(query)}

    async def _read_blob(self, ref: BlobRef) -> bytes:
        return await read_blob(self.orchestrators, ref)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._supervisor.spawn(name, work)

    def _on_fenced(self, why: str) -> None:
        if not self._fenced.done():
            self._fenced.set_result(why)

    def _show_metrics(self) -> None:
        publish_metrics(self.metrics, self.durable, self.engine, self.watches)
        publish_submissions(self.metrics, self.submission.intake)
        publish_schedules(self.metrics, self.schedules.durable)
        made = "Coordinator objects made in this process so far (B6)."
        self.metrics.gauge_of("coordinators_made", made, lambda: Coordinator.made)
        self.metrics.watch_supervisor(self._supervisor)
        self.metrics.serve(self.settings)


async def _no_letter(swarm_id: str) -> None:
    """Swarms end by their runs: the letter is the run's, in Tier 2."""


def _unusable(error: Exception) -> FailureError:
    """A database that no waiting makes right: another name, another password."""
    message = f"TIERFLOW_DATABASE_URL: the database cannot be used: {error}; correct the address"
    return FailureError(failure("CONFIGURATION", message, component="app", operation="start"))


async def serve(settings: CoordinatorSettings, stop: asyncio.Event) -> None:
    """Runs a coordinator until it is told to stop. Raises FailureError FENCED or SCHEMA_VERSION."""
    telemetry = setup_telemetry("tierflow-coordinator", settings)
    async with Supervisor() as supervisor:
        coordinator = Coordinator(settings, supervisor, telemetry)
        starting = asyncio.ensure_future(coordinator.start())
        told = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return  # Told to stop while it waited for the database: nothing to hand over.
            starting.result()
            await coordinator.serve(stop)
        finally:
            for task in (starting, told):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, FailureError):
                    await task
            await coordinator.close()
