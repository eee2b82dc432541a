"""What tracing costs: no collector, and a collector with 0, 10 and 100 % of the traces recorded.

The collector is a process of its own that takes what it gets and does nothing with it; its time is not counted.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from tierflow_testing import children
from tierflow_testing.ports import free_port, is_free
from tierflow_testing.waiting import eventually

from benchmarks.curves.stage import ROOT, Curve, Panel, Point, Size, client_of, standard, system

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


async def measure(size: Size) -> AsyncIterator[Point]:
    """Two points (W1, W2) for each share."""
    with _collector() as (port, log):
        await eventually(lambda: not is_free(port), 30, message="the collector listens")
        for label, percent, environment in [
            ("no collector", 0, {}),
            *((f"{share:.0%}", int(share * 100), _traced(port, share)) for share in (0.0, 0.1, 1.0)),
        ]:
            before = received(log)
            async with system(environment=environment) as stack, client_of(stack) as client:
                points = [point async for point in standard(stack, client, size)]
            arrived = received(log) - before  # all of them, once the services have stopped
            for point in points:
                line = f"{point['workload']}, {label}"
                yield {"traced": label, "percent": percent, **point, "span_bytes": arrived, "line": line}


def _traced(port: int, share: float) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "TIERFLOW_TRACE_RATIO": str(share)}


@contextlib.contextmanager
def _collector() -> Iterator[tuple[int, Path]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "benchmarks.curves.tracing", str(port)]
        log = Path(directory) / "collector.log"
        process = children.spawn(command, log=log, directory=ROOT)
        try:
            yield port, log
        finally:
            children.end(process, signal.SIGTERM, 5.0)


def received(log: Path) -> int:
    """Bytes of spans that the collector has got."""
    return sum(int(line) for line in log.read_text().splitlines() if line.isdigit())


def serve(port: int) -> None:
    """A collector that does nothing with what it gets but say how much it was, until it is stopped."""

    def export(request: bytes, _: object) -> bytes:
        print(len(request), flush=True)
        return b""  # an empty answer: all is well

    handler = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EXPORT, {"Export": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


CURVE = Curve(
    measure,
    [
        Panel("line", "steps_per_s", "steps/s", bars=True),
        Panel("line", "cpu_us_per_step", "CPU of all processes, us a step", bars=True),
    ],
)

if __name__ == "__main__":
    serve(int(sys.argv[1]))
