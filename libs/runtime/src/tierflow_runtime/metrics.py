"""Metrics: one registry per process, scraped by Prometheus on a port of its own, and one sampler for what must be looked at from time to time (M12)."""

from __future__ import annotations

import asyncio
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
    start_http_server,
)

from tierflow_runtime.errors import failure
from tierflow_runtime.form import COMPILED
from tierflow_runtime.logs import get_log
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.supervision import Supervisor
from tierflow_runtime.values import FailureError

log = get_log(__name__)

PREFIX: Final = "tierflow_"
SHORTEST_INTERVAL: Final = 5.0
DURATION_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
"""Seconds: from a no-op step to an LLM call that takes half an hour."""


class Metrics:
    """The metrics of one process. Names get the prefix `tierflow_`; labels never hold ids."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Info(f"{PREFIX}build", "What this process is.", registry=self.registry).info(
            {
                "service": service,
                "version": version("tierflow-runtime"),
                "python": platform.python_version(),
                "implementation": sys.implementation.name,
                "compiled": str(COMPILED).lower(),
            }
        )
        self.failures = self.counter(
            "failures_total", "Failures that callers were given, by code and component.", ("code", "component")
        )
        self._samplers: list[Callable[[], None]] = []
        self._server: tuple[WSGIServer, threading.Thread] | None = None

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only rises."""
        return Counter(PREFIX + name, about, labels, registry=self.registry)

    def gauge(self, name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that rises and falls."""
        return Gauge(PREFIX + name, about, labels, registry=self.registry)

    def gauge_of(self, name: str, about: str, read: Callable[[], float]) -> Gauge:
        """A gauge that is read when it is scraped. `read` is called from the scraper's thread: it only looks at a number."""
        gauge = self.gauge(name, about)
        gauge.set_function(read)
        return gauge

    def histogram(
        self, name: str, about: str, labels: Sequence[str] = (), buckets: Sequence[float] = DURATION_BUCKETS
    ) -> Histogram:
        """A distribution; of seconds unless other buckets are given."""
        return Histogram(PREFIX + name, about, labels, buckets=buckets, registry=self.registry)

    def sample(self, read: Callable[[], None]) -> None:
        """Adds something that the sampler does each time, on the event loop: it must be quick."""
        self._samplers.append(read)

    def watch_supervisor(self, supervisor: Supervisor) -> None:
        """Shows how much runs in the background (B15)."""
        self.gauge_of("background_tasks", "Background loops and other supervised work alive.", lambda: supervisor.count)
        self.gauge_of("background_restarts", "Restarts of background loops so far.", lambda: supervisor.restarts)

    async def run_sampler(self, interval: float = 15.0) -> None:
        """The one sampler of the process; a loop for its supervisor. Also shows by how much the event loop was late.

        Args:
            interval: Seconds; never less than 5.
        """
        lag = self.gauge("event_loop_lag_seconds", "By how much the sampler was called too late.")
        interval = max(SHORTEST_INTERVAL, interval)
        while True:
            due = time.monotonic() + interval
            await asyncio.sleep(interval)
            lag.set(max(0.0, time.monotonic() - due))
            for read in self._samplers:
                read()

    def serve(self, settings: ServiceSettings) -> int:
        """Serves `/metrics` from a thread where a port is set, and returns the port that it really is; 0 without one.

        Raises:
            FailureError: CONFIGURATION, where the port cannot be used.
        """
        if settings.metrics_port is None:
            return 0
        try:
            self._server = start_http_server(settings.metrics_port, settings.metrics_host, self.registry)
        except OSError as error:
            message = f"TIERFLOW_METRICS_PORT is {settings.metrics_port} on {settings.metrics_host}: {error.strerror}; expected a port that is free"
            raise FailureError(failure("CONFIGURATION", message, component="metrics", operation="serve")) from error
        port = int(self._server[0].server_port)
        log.info("metrics are served", port=port)
        return port

    def close(self) -> None:
        """Stops serving."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join(timeout=2.0)
            self._server = None

    def text(self) -> str:
        """What a scrape would give now."""
        return generate_latest(self.registry).decode()
