"""Handlers in processes of their own: `@handler(isolate=True)`. They can be killed, and their memory is theirs.

The executor and the child speak over a socket, in lines of JSON: the child reports progress, heartbeats, log lines and spending as they come, and its ending last.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import sys
from typing import Any

import msgspec

from tierflow_executor import sandbox
from tierflow_executor.endings import FAILED, LARGEST_OUTPUT, Ending, attempt_failure
from tierflow_executor.running import Running

_LONGEST_LINE = 4 * LARGEST_OUTPUT


class Assignment(msgspec.Struct, frozen=True):
    """What the child is told: the coded request (base64), the input as JSON text, the handler's name and module, where large values are kept."""

    request: str
    text: str
    handler: str
    module: str
    address: str
    traceparent: str
    owner: str = ""
    """The instance that owns the attempt; empty where it was asked for directly."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child says; `kind` is begun, progress, heartbeat, log, spend or end."""

    kind: str
    texts: tuple[str, ...] = ()
    percent: float = 0.0
    numbers: tuple[int, ...] = ()
    metrics: dict[str, float] = {}
    ending: Ending | None = None


async def call(running: Running, text: str, address: str) -> Ending:
    """Runs the handler of an attempt in a process of its own. Cancelled, it returns only once the process and all that it started are gone."""
    here, there = socket.socketpair()
    handler = running.handler
    assignment = Assignment(
        base64.b64encode(running.request.SerializeToString()).decode(), text, handler.name, handler.module, address, running.traceparent,
        running.attempt.owner,
    )  # fmt: skip
    allocation = running.request.allocation
    command = sandbox.Command(
        argv=(sys.executable, "-m", "tierflow_executor.isolated", str(there.fileno())),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        directory=os.getcwd(),
        memory_bytes=allocation.memory_bytes if allocation.HasField("memory_bytes") else 0,
        pass_fds=(there.fileno(),),
    )
    with here, there:
        here.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=here, limit=_LONGEST_LINE)
        begun = asyncio.Event()
        coming = asyncio.create_task(_come_up(running, begun))
        listening = asyncio.create_task(_listen(running, reader, begun))
        writer.write(msgspec.json.encode(assignment) + b"\n")
        try:
            started = asyncio.create_task(sandbox.run(command, lambda stream, chunk: _output(running, stream, chunk)))
            try:
                ended = await asyncio.shield(started)
            except asyncio.CancelledError:
                started.cancel()
                await asyncio.wait((started,))
                raise
        finally:
            coming.cancel()
            there.close()
            writer.close()
            ending = await listening
    return _conclude(running, ended, ending)


def _conclude(running: Running, ended: sandbox.Ended, ending: Ending | None) -> Ending:
    running.cpu_nanos = round(ended.cpu_seconds * 1e9)
    running.memory_bytes = ended.memory_bytes
    request = running.request
    if ended.reason == "memory":
        text = f"the handler used more than the {request.allocation.memory_bytes} bytes of memory it was granted, and was killed"
        return Ending(FAILED, failure=attempt_failure(request, "MEMORY_EXCEEDED", text))
    if ending is not None:
        return ending
    text = f"the handler's process ended by itself with exit code {ended.exit_code}"
    return Ending(FAILED, failure=attempt_failure(request, "HANDLER_FAILED", text, retryable=True))


async def _come_up(running: Running, begun: asyncio.Event) -> None:
    """Until its process has loaded the handler there is no work that could give a sign of life; the attempt's own timeout holds."""
    while running.heartbeat_timeout and not begun.is_set():
        running.alive()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(begun.wait(), running.heartbeat_timeout / 4)


async def _listen(running: Running, reader: asyncio.StreamReader, begun: asyncio.Event) -> Ending | None:
    ending = None
    while line := await reader.readline():
        report = msgspec.json.decode(line, type=Report)
        if report.kind == "begun":
            running.alive()
            begun.set()
        elif report.kind == "end":
            ending = report.ending
        else:
            _take(running, report)
    return ending


def _take(running: Running, report: Report) -> None:
    texts: Any = report.texts
    if report.kind == "progress":
        running.report_progress(texts[0], report.percent, texts[1], report.metrics)
    elif report.kind == "heartbeat":
        running.report_heartbeat(texts[0] if texts else None)
    elif report.kind == "log":
        running.write_log(*texts)
    elif report.kind == "spend":
        credits_, input_tokens, output_tokens, tool_calls = report.numbers
        running.add_spent(credits_, input_tokens, output_tokens, tool_calls, report.metrics)


def _output(running: Running, stream: str, chunk: bytes) -> None:
    for line in chunk.decode("utf-8", "replace").splitlines():
        running.write_log(stream, line)
