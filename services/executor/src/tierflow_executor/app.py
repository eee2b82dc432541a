"""Puts the executor together: handlers, engine, server; and takes it down in order."""

from __future__ import annotations

import asyncio
import importlib.metadata
import uuid

from tierflow.registry import DuplicateHandler, Registry
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.serving import Server
from tierflow_runtime.supervision import RESTART, Supervisor
from tierflow_runtime.telemetry import setup_telemetry
from tierflow_runtime.values import FailureError

from tierflow_executor import logs, sandbox
from tierflow_executor.draining import drain
from tierflow_executor.engine import Engine
from tierflow_executor.handlers import MODULES
from tierflow_executor.observing import Observer
from tierflow_executor.service import NAME, ExecutorService, add_to_server
from tierflow_executor.settings import ExecutorSettings
from tierflow_executor.watchdog import Watchdog

log = get_log(__name__)
_BLOCKED = 5.0  # seconds after which a loop that does not turn is reported
_LAST_FRAMES = 0.2  # seconds in which streams write what is left after the drain


def load_handlers(modules: tuple[str, ...]) -> Registry:
    """The handlers on offer: those that are built in and those of the modules.

    Raises:
        FailureError: CONFIGURATION: a module cannot be imported, has no handlers, or gives a name twice.
    """
    registry = Registry()
    for module in (*MODULES, *modules):
        try:
            found = registry.load(module)
        except DuplicateHandler as error:
            raise _wrong(f"{module}: {error}") from error
        except BaseException as error:  # whatever importing somebody's module raises is a wrong setting
            raise _wrong(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
        if not found:
            raise _wrong(f"{module} declares no handlers; decorate functions with @tierflow.handler")
    return registry


def _wrong(text: str) -> FailureError:
    message = f"TIERFLOW_HANDLERS: {text}"
    return FailureError(failure("CONFIGURATION", message, tier=3, component="executor", operation="start"))


def version() -> str:
    """The version of this package."""
    return importlib.metadata.version("tierflow-executor")


def show(metrics: Metrics, engine: Engine) -> None:
    """What is looked at whenever the metrics are read."""
    metrics.gauge_of("slots", "Attempts that may run at once.", lambda: engine.settings.slots)
    metrics.gauge_of("slots_used", "Attempts that run.", lambda: engine.runner.busy)
    metrics.gauge_of("attempts_waiting", "Attempts that wait for a slot here.", lambda: engine.runner.waiting)
    metrics.gauge_of(
        "attempts_unconfirmed", "Attempts that were told to stop and have not.", lambda: engine.runner.lingering
    )
    metrics.gauge_of("results_held", "Results held until they are acknowledged.", lambda: len(engine.attempts.holding))
    metrics.gauge_of("results_held_bytes", "Bytes of these.", lambda: engine.attempts.holding.bytes)
    metrics.gauge_of("orchestrators_connected", "Streams of orchestrators.", lambda: len(engine.streams))


async def main(settings: ExecutorSettings, stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    registry = load_handlers(settings.handlers)
    sandbox.hide_environment()
    logs.capture()
    telemetry = setup_telemetry("tierflow-executor", settings)
    metrics = Metrics("executor")
    observer = Observer(metrics, telemetry, settings.instance_name)
    engine = Engine(registry, settings, observer, executor_id=str(uuid.uuid4()), version=version())
    show(metrics, engine)
    server = Server(settings, tier=3, component="executor", telemetry=telemetry, metrics=metrics)
    server.add(NAME, add_to_server, ExecutorService(engine))
    async with Supervisor() as supervisor:
        metrics.watch_supervisor(supervisor)
        supervisor.loop("sampler", metrics.run_sampler, restart=RESTART)
        metrics.serve(settings)
        watchdog = Watchdog(_BLOCKED)
        watchdog.start()
        await server.start()
        await server.announce_ready(handlers=len(registry), slots=settings.slots, executor_id=engine.executor_id)
        await stop.wait()
        await server.set_all_serving(False)
        done = await drain(engine, settings.drain_timeout)
        log.info("drained", in_time=done)
        await engine.close()
        await server.drain(_LAST_FRAMES)
        watchdog.stop()
    metrics.close()
    await telemetry.shutdown()
