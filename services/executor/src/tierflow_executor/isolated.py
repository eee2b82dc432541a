"""The process of one isolated attempt: `python -m tierflow_executor.isolated SOCKET_FD`, started by `isolation`."""

from __future__ import annotations

import asyncio
import base64
import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import msgspec
from pydantic import ValidationError
from tierflow.context import Blob, Context
from tierflow.handler import Handler, declared
from tierflow.outcomes import Cancelled
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest

from tierflow_executor.blobs import Blobs
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.endings import Ending, raised, returned, unbound
from tierflow_executor.isolation import Assignment, Report
from tierflow_executor.running import Running

BEAT_EVERY = 0.05
"""Seconds between two heartbeats without details that are passed on: a handler may say so in a loop."""


class Parent:
    """The executor at the other end of the socket; takes reports from any thread. Also the surroundings of the attempt in this process."""

    default_timeout = float("inf")  # the executor holds it to its limits

    def __init__(self, connection: socket.socket, address: str) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._address = address
        self._beat_at = 0.0

    def tell(self, report: Report) -> None:
        """Sends a report."""
        with self._lock:
            self._connection.sendall(msgspec.json.encode(report) + b"\n")

    def offer(
        self, running: Running, kind: str, percent: float | None, message: str, metrics: dict[str, float]
    ) -> None:
        """Passes progress or a heartbeat on."""
        if percent is None:
            self.tell(Report("heartbeat", texts=(running.heartbeat,) if running.heartbeat is not None else ()))
        else:
            self.tell(Report("progress", texts=(kind, message), percent=percent, metrics=metrics))

    def beat(self, running: Running) -> None:
        """Passes a heartbeat on that says nothing else: the executor counts the silence."""
        if (now := time.monotonic()) >= self._beat_at:
            self._beat_at = now + BEAT_EVERY
            self.tell(Report("heartbeat"))

    def storing(self, running: Running) -> None:
        """Outputs are stored by the executor."""

    def read_blob(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""
        return self._blobs().read(running, blob)

    async def write_blob(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""
        return await self._blobs().write(running, content, media_type)

    async def call_context(self, running: Running, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what the attempt's swarm shares."""
        return await self._blobs().call_context(running, call)

    def _blobs(self) -> Blobs:
        return Blobs(lambda _: self._address, patience=30.0)


class Child(Running):
    """The attempt as its handler sees it here: everything that it says is passed on."""

    __slots__ = ()

    def write_log(self, stream: str, text: str) -> None:
        """Passes a log line on."""
        self.parent.tell(Report("log", texts=(stream, text)))

    def book(
        self, *, micro_credits: int, input_tokens: int, output_tokens: int, tool_calls: int, metrics: dict[str, float]
    ) -> None:
        """Passes spending on, and holds the handler to its budget here."""
        self.parent.tell(
            Report("spend", numbers=(micro_credits, input_tokens, output_tokens, tool_calls), metrics=metrics)
        )
        super().book(
            micro_credits=micro_credits, input_tokens=input_tokens, output_tokens=output_tokens, tool_calls=tool_calls, metrics=metrics
        )  # fmt: skip

    @property
    def parent(self) -> Parent:
        """The executor."""
        assert isinstance(self.surroundings, Parent)
        return self.surroundings


def perform(assignment: Assignment, parent: Parent) -> Ending:
    """Calls the handler and makes an ending of what comes of it."""
    request = StepExecutionRequest.FromString(base64.b64decode(assignment.request))
    try:
        importlib.import_module(assignment.module)
        handler = next(each for each in declared() if each.name == assignment.handler)
        context = request.context
        child = Child(
            Attempt(context.attempt_id, context.run_id, assignment.owner), request, handler, parent, time.monotonic()
        )
        child.traceparent = assignment.traceparent
        child.reveal("")  # the input has its secrets already; what the handler stores and shares is to be without them
        child.reveal("")  # what it stores by itself is stored without the values
        signal.signal(signal.SIGTERM, lambda *_: _stop(child))
        try:
            args, named = handler.arguments(Context(request, child), assignment.text)
        except ValidationError as error:
            return unbound(request, error)
        parent.tell(Report("begun"))
        return returned(handler, _call(handler, lambda: handler.function(*args, **named)))
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its result
        return raised(request, error)


def _call(handler: Handler, function: Callable[[], Any]) -> Any:
    async def awaited() -> Any:
        return await function()

    return asyncio.run(awaited()) if handler.is_async else function()


def _stop(child: Child) -> None:
    """Told to stop: a loop that looks at `context.cancelled` can end well; whatever else is going on is interrupted."""
    child.cancelled = True
    raise Cancelled


def main() -> None:
    """Reads the assignment, performs it, says how it ended."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    with connection.makefile("rb") as file:
        assignment = msgspec.json.decode(file.readline(), type=Assignment)
    parent = Parent(connection, assignment.address)
    ending = perform(assignment, parent)
    sys.stdout.flush()
    sys.stderr.flush()
    parent.tell(Report("end", ending=ending))
    os._exit(0)  # threads that the handler left behind do not keep the attempt from ending


if __name__ == "__main__":
    main()
