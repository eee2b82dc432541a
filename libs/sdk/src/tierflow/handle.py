"""A swarm that was submitted, in the submitter's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tierflow_contracts.common.v1.state_pb2 import SWARM_STATE_COMPLETED

from tierflow.results import Result, result_of
from tierflow.steering import Answer, State

if TYPE_CHECKING:
    from tierflow_contracts.coordinator.v1.checkpoint_pb2 import SwarmCheckpoint
    from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import SubmitSwarmResponse
    from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm

    from tierflow.blackboard import Blackboard
    from tierflow.client import Client
    from tierflow.exchange import Awaited
    from tierflow.watching import Watch


class Handle:
    """One execution. It goes on without this handle; `Client.handle(id)` makes another."""

    __slots__ = ("_awaited", "_client", "_result", "created", "id", "run_id", "trace_id")

    def __init__(self, client: Client, accepted: SubmitSwarmResponse, awaited: Awaited | None = None) -> None:
        self._client = client
        self._awaited = awaited
        self._result: Result | None = None
        self.id = accepted.swarm_id
        self.run_id = accepted.run_id
        """The run that the plan begins with; empty where the handle was made from an id."""
        self.trace_id = accepted.trace_id
        """32 hex digits; empty where the handle was made from an id."""
        self.created = accepted.created
        """False where the request id was known: this is the execution that the first request started."""

    async def result(self, timeout: float | None = None) -> Any:
        """The output, once the execution has completed; a large one is fetched.

        Waits over broken connections and restarts of the coordinator.

        Raises:
            ExecutionFailed: It ended otherwise; `.failure` says why.
            TimeoutError: It has not ended after `timeout` seconds; it goes on.
        """
        return (await self.wait(timeout)).value()

    async def wait(self, timeout: float | None = None) -> Result:
        """How it ended, well or not. Raises `TimeoutError` after `timeout` seconds."""
        if self._result is None:
            if timeout is None:
                self._result = await self._wait()
            else:
                async with asyncio.timeout(timeout):
                    self._result = await self._wait()
        return self._result

    async def _wait(self) -> Result:
        client = self._client
        if self._awaited is not None:
            ended = await client.exchange().finished(self._awaited)
            if ended.state == SWARM_STATE_COMPLETED and ended.HasField(
                "failure"
            ):  # its output was too large for the stream
                return await result_of(await client.get(self.id), client.read_blob)
            return await result_of(ended, client.read_blob)
        return await result_of(await client.ended(self.id), client.read_blob)

    def watch(self, resume_token: str = "", *, progress: bool = True) -> Watch:
        """Its events and those of its runs, live; see `Client.watch`."""
        return self._client.watch(self.id, resume_token, progress=progress)

    async def describe(self) -> Swarm:
        """How it stands now."""
        return await self._client.get(self.id)

    async def cancel(self, reason: str = "") -> bool:
        """Stops all work now. Returns whether that changed anything."""
        return await self._client.cancel(self.id, reason)

    async def pause(self, reason: str = "", *, interrupt: bool = False) -> bool:
        """Starts nothing new; running steps may finish, or are stopped with `interrupt`. Returns whether that changed anything."""
        return await self._client.pause(self.id, reason, interrupt=interrupt)

    async def resume(self, reason: str = "") -> bool:
        """Goes on after a pause. Returns whether that changed anything."""
        return await self._client.resume(self.id, reason)

    async def retry(self, reason: str = "") -> int:
        """From FAILED into the next generation, which is returned; `result` waits for its end then."""
        generation = await self._client.retry(self.id, reason)
        self._result = self._awaited = None
        return generation

    async def skip(self, step_id: str, output: Any = None, *, reason: str = "") -> bool:
        """Ends a step as SKIPPED, with `output` for those who read it."""
        return await self._client.skip(self.id, step_id, output, reason=reason)

    async def step(self, step_id: str = "") -> bool:
        """Runs what is ready in a paused run, or only `step_id`, and pauses again."""
        return await self._client.step(self.id, step_id)

    async def set_breakpoints(self, *step_ids: str) -> bool:
        """Pauses before these steps from now on; none clears them."""
        return await self._client.set_breakpoints(self.id, *step_ids)

    @property
    def blackboard(self) -> Blackboard:
        """What it shares: its blackboard by key and version, and its context."""
        return self._client.blackboard(self.id)

    async def update(self, **changes: Any) -> int:
        """Changes limits and policies; takes what `Client.update` takes. Returns the new version."""
        return await self._client.update(self.id, **changes)

    async def query(self, expressions: Mapping[str, str] | None = None) -> State:
        """Variables, outputs, counts, and the values of expressions."""
        return await self._client.query(self.id, expressions)

    async def ask(self, name: str, payload: Any = None, **options: Any) -> Answer:
        """Sends a signal and waits for the answer of a step; takes what `Client.ask` takes."""
        return await self._client.ask(self.id, name, payload, **options)

    async def replay(self) -> Handle:
        """A new execution with the same flow and input."""
        return self._client.handle(await self._client.replay(self.id))

    async def rerun(self, *step_ids: str, checkpoint: str = "") -> Handle:
        """A new execution from these steps, or from a checkpoint, on, with what completed before them."""
        return self._client.handle(await self._client.rerun(self.id, *step_ids, checkpoint=checkpoint))

    async def fork(
        self,
        *step_ids: str,
        input: Any = None,  # noqa: A002 - it is called so everywhere else
        checkpoint: str = "",
    ) -> Handle:
        """A new execution with the results of these steps, and perhaps another input; as of a checkpoint, where one is named."""
        return self._client.handle(await self._client.fork(self.id, *step_ids, input=input, checkpoint=checkpoint))

    async def checkpoint(self, name: str, reason: str = "") -> SwarmCheckpoint:
        """Names the place up to which this execution has come; takes what `Client.checkpoint` takes."""
        return await self._client.checkpoint(self.id, name, reason)

    async def checkpoints(self) -> tuple[SwarmCheckpoint, ...]:
        """Its checkpoints, newest first."""
        return await self._client.checkpoints(self.id)

    def __repr__(self) -> str:
        return f"Handle({self.id})"
