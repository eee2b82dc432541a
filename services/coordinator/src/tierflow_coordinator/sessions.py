"""The stream of a client with much to do: batches of swarms in, answers and results out. Its end ends nothing but itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.durable import Durable
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_basics import check_uuid
from tierflow_runtime.errors import failure
from tierflow_runtime.security import Caller
from tierflow_runtime.streams import Frames
from tierflow_runtime.values import Failure, FailureError, Violation
from tierflow_runtime.wire import failure_to_proto

from tierflow_coordinator.access import Access
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.submission import Submission, answer_message
from tierflow_coordinator.waiting import Listener, Waiting

MOST_UNSENT: Final = 20_000
"""Items that wait for a client which does not read; beyond, nothing more is read from it."""

MOST_UNANSWERED: Final = 5_000
"""Requests of one client that are being worked on; beyond, nothing more is read from it."""

MOST_REMEMBERED: Final = 100_000
"""Swarms whose result was sent on this stream, so that it is not sent twice."""


class Session:
    """One client's stream."""

    def __init__(
        self, caller: Caller, *, access: Access, submission: Submission, waiting: Waiting, durable: Durable
    ) -> None:
        self._caller = caller
        self._access = access
        self._submission = submission
        self._waiting = waiting
        self._durable = durable
        self._frames = Frames()
        self._awaited: dict[str, Listener] = {}
        self._delivered: dict[str, None] = {}
        self._unanswered = 0
        self._input_over = False
        self._moved = asyncio.Event()
        """Something was answered, or read by the client."""
        self._refusal: Failure | None = None
        self._reader: asyncio.Task[None] | None = None

    def begin(self, requests: AsyncIterator[api.ExecuteSwarmsRequest]) -> None:
        """Reads what the client asks, from now on until `end`."""
        self._reader = asyncio.create_task(self._read(requests))
        self._reader.add_done_callback(self._read_over)

    async def next(self) -> api.ExecuteSwarmsResponse | None:
        """The next frame for the client; None once it has closed its side and everything it waits for was sent.

        Raises:
            FailureError: UNAVAILABLE, where this instance drains.
        """
        self._moved.set()
        frame = await self._frames.next()
        if frame:
            return api.ExecuteSwarmsResponse(**frame)
        if self._refusal is not None:
            raise FailureError(self._refusal)
        return None

    def end(self) -> None:
        """The stream is over."""
        if self._reader is not None:
            self._reader.cancel()
        for swarm_id, listener in self._awaited.items():
            self._waiting.leave(swarm_id, listener)
        self._awaited.clear()
        self._frames.close()

    def drain(self) -> None:
        """Ends the stream: the client goes to another instance, which knows all its swarms."""
        self._refusal = failure(
            "UNAVAILABLE", "This instance is draining; attach again at another.", operation="ExecuteSwarms"
        )
        self._frames.close()

    def _read_over(self, reader: asyncio.Task[None]) -> None:
        """A stream that broke has nobody to write to; one with a message that cannot be read ends with that."""
        if reader.cancelled():
            self._frames.close()
        elif (error := reader.exception()) is not None:
            if isinstance(error, FailureError):
                self._refusal = error.failure
            self._frames.close()

    async def _read(self, requests: AsyncIterator[api.ExecuteSwarmsRequest]) -> None:
        async for batch in requests:
            for request in batch.execute:
                self._execute(request)
                await self._room()
            for swarm_id in batch.attach:
                self._unanswered += 1
                self._durable.host.spawn(self._attach(swarm_id))
                await self._room()
        self._input_over = True
        self._perhaps_over()

    async def _room(self) -> None:
        """Waits while the client asks faster than it is answered, or does not read the answers."""
        while self._unanswered > MOST_UNANSWERED or self._frames.size > MOST_UNSENT:
            self._moved.clear()
            await self._moved.wait()

    def _execute(self, request: swarm_pb2.SwarmExecutionRequest) -> None:
        request_id = request.context.request_id
        self._unanswered += 1

        def answered(answer: api.SubmitSwarmResponse | Failure) -> None:
            self._answered_one()
            self._frames.put("answers", answer_message(answer, request_id))
            if isinstance(answer, api.SubmitSwarmResponse) and answer.swarm_id:
                self._listen(answer.swarm_id)
            self._perhaps_over()

        if not request_id:
            answered(_request_id_missing())
        else:
            self._submission.submit(request, self._caller, answered)

    async def _attach(self, swarm_id: str) -> None:
        try:
            check_id("attach", swarm_id)
            await self._durable.reader.view(swarm_id, self._check_owner)
        except FailureError as error:
            answer = answer_message(error.failure, "")
            answer.swarm_id = swarm_id
            self._frames.put("answers", answer)
        else:
            self._listen(swarm_id)
        self._answered_one()
        self._perhaps_over()

    def _answered_one(self) -> None:
        self._unanswered -= 1
        self._moved.set()

    def _check_owner(self, swarm: Swarm) -> None:
        context = swarm.context
        self._access.check(self._caller, context.tenant, context.user_id, what=f"swarm {swarm.swarm_id}")

    def _listen(self, swarm_id: str) -> None:
        if swarm_id in self._awaited or swarm_id in self._delivered or self._frames.closed:
            return

        def ended(result: swarm_pb2.SwarmExecutionResult) -> None:
            del self._awaited[swarm_id]
            self._deliver(result)
            self._perhaps_over()

        self._awaited[swarm_id] = ended
        self._waiting.listen(swarm_id, ended)

    def _deliver(self, result: swarm_pb2.SwarmExecutionResult) -> None:
        if len(self._delivered) >= MOST_REMEMBERED:
            del self._delivered[next(iter(self._delivered))]
        self._delivered[result.context.swarm_id] = None
        try:
            self._frames.put("results", result)
        except FailureError as error:
            # Too large for any message: the client hears the end, and reads the output where it is.
            bare = swarm_pb2.SwarmExecutionResult()
            bare.CopyFrom(result)
            bare.ClearField("output")
            bare.failure.CopyFrom(failure_to_proto(error.failure))
            self._frames.put("results", bare)

    def _perhaps_over(self) -> None:
        if self._input_over and not self._awaited and not self._unanswered:
            self._frames.close()


def check_id(field: str, value: str) -> None:
    """Refuses what is not an id, before anything is asked with it.

    Raises:
        FailureError: INVALID_REQUEST.
    """
    found: list[Violation] = []
    check_uuid(field, value, found, required=True)
    refuse_if(found, "service", "check")


def _request_id_missing() -> Failure:
    violation = Violation(field="context.request_id", description="required on this stream: answers come by it")
    return failure(
        "INVALID_REQUEST", f"{violation.field}: {violation.description}", operation="submit", violations=(violation,)
    )
