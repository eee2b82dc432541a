"""The client: submit, wait, follow, steer. All of it over one connection to Tier 1, the only tier that a client knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1.swarm_pb2 import FixedPlan, Swarm

from tierflow.approvals import Approvals
from tierflow.audit import Audit
from tierflow.budget import Budget
from tierflow.calls import Calls
from tierflow.checkpoints import Checkpoints
from tierflow.dead_letters import DeadLetters
from tierflow.errors import Unavailable
from tierflow.exchange import Exchange
from tierflow.handle import Handle
from tierflow.ids import new_id
from tierflow.queries import Queries
from tierflow.schedules import Schedules
from tierflow.sharing import Sharing
from tierflow.steering import Steering
from tierflow.submission import Builder, FlowLike, flow_ref, swarm_request
from tierflow.watching import Watch

if TYPE_CHECKING:
    from tierflow.plan import PlanBuilder

_WAIT = 60.0
"""Seconds for which one call waits for an end; a longer wait is several calls."""


class Client(Steering, Queries, Approvals, Checkpoints, Sharing, DeadLetters, Audit):
    """A client of Tierflow, for one event loop.

    ```python
    async with Client() as client:
        print(await client.run("greet", {"name": "Ada"}))
    ```

    Requests that are made at the same time share one stream. Every request carries an id, so that a broken connection never starts anything twice.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str | None = None,
        user: str | None = None,
        roles: Sequence[str] = (),
        timeout: float = 30.0,
        patience: float = 30.0,
    ) -> None:
        """Connects with the first call, not here.

        Args:
            address: Of Tier 1: host:port, `dns:///name:port`, or several as `ipv4:host:port,host:port`, of which one that answers is taken;
                else TIERFLOW_ADDRESS, else 127.0.0.1:7701.
            tenant: Whom the caller belongs to, in development mode; else TIERFLOW_TENANT.
            user: Who the caller is, in development mode; else TIERFLOW_USER.
            roles: What the caller is, in development mode; else TIERFLOW_ROLES, separated by commas.
            timeout: Seconds for which an answer is waited for. Results are waited for as long as `Handle.result` says.
            patience: Seconds for which a coordinator that cannot be reached, or has no room for a submission now, is tried again; 0 is not at all.
        """
        self._calls = Calls(address, tenant=tenant, user=user, roles=roles, timeout=timeout, patience=patience)
        self._exchange: Exchange | None = None
        self._by_name: dict[str, FlowRef] = {}

    @property
    def address(self) -> str:
        """Where it looks for Tier 1."""
        return self._calls.address

    @property
    def schedules(self) -> Schedules:
        """Swarms at given times."""
        return Schedules(self._calls)

    async def submit(
        self,
        flow: FlowLike | PlanBuilder,
        input: Any = None,  # noqa: A002 - it is called so everywhere else
        request_id: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        timeout: float | str | timedelta | None = None,
        budget: Budget | None = None,
        correlation_id: str = "",
        test_mode: bool = False,
    ) -> Handle:
        """Starts an execution and returns once it is stored, before it works.

        Args:
            flow: `name`, `name@version`, a path to YAML or JSON, a definition as a dict, or a builder; or a plan of
                several runs, from `plan()` or as a dict with `runs`.
            input: The flow's input: a dict, dataclass or pydantic model that becomes a JSON object.
            request_id: The same id with the same arguments is the same execution; chosen where none is given.
            labels: For finding it.
            priority: -100 to 100, higher is sooner.
            timeout: How long it may take: seconds, a text such as `15m`, or a timedelta.
            budget: Hard limits of it all.
            correlation_id: Handed on unchanged.
            test_mode: Tells side-effecting handlers to only pretend.

        Raises:
            InvalidRequest: `.violations` lists all that is wrong with the request or the flow.
            NotFound: There is no such flow, or nobody offers one of its handlers.
            Conflict: The request id was used with other arguments.
            ResourceExhausted: `.reason` and `.retry_after` say what to do. A full queue is told only once the client's patience is over.
            Unavailable: Nobody answered; submit again with the same request id.
            PermissionDenied: The caller may not.
        """
        request = swarm_request(
            self._ref(flow),
            input,
            request_id or new_id(),
            labels=labels,
            priority=priority,
            timeout=timeout,
            budget=budget,
            correlation_id=correlation_id,
            test_mode=test_mode,
        )
        accepted, awaited = await self.exchange().submit(request)
        return Handle(self, accepted, awaited)

    async def run(
        self,
        flow: FlowLike | PlanBuilder,
        input: Any = None,  # noqa: A002
        request_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Submits and waits: the output. Takes what `submit` takes; raises what `submit` and `Handle.result` raise."""
        return await (await self.submit(flow, input, request_id, **options)).result()

    def handle(self, swarm_id: str) -> Handle:
        """A handle on an execution that somebody submitted. Does not ask whether there is one."""
        return Handle(self, api.SubmitSwarmResponse(swarm_id=swarm_id))

    def watch(self, swarm_id: str, resume_token: str = "", *, progress: bool = True) -> Watch:
        """The events of a swarm and its runs, live: `async for event in client.watch(id)`. Ends after the swarm's end.

        Resumes by itself over broken connections, without gap or repeat. `resume_token` of an event goes on after that event, in any process.
        """
        calls = self._calls
        return Watch(
            lambda request: calls.stub.WatchSwarm(request, metadata=calls.metadata()),
            calls.address,
            swarm_id,
            resume_token=resume_token,
            progress=progress,
            patience=calls.patience,
        )

    async def cancel(self, swarm_id: str, reason: str = "") -> bool:
        """Stops all work of a swarm now. Returns whether that changed anything. Raises `NotFound`."""
        response: api.CancelSwarmResponse = await self._calls.call(
            "CancelSwarm", api.CancelSwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id())
        )
        return response.applied

    async def resume(self, swarm_id: str, reason: str = "") -> bool:
        """Goes on after a pause. Returns whether that changed anything. Raises `NotFound`."""
        response: api.ResumeSwarmResponse = await self._calls.call(
            "ResumeSwarm", api.ResumeSwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id())
        )
        return response.applied

    async def signal(self, swarm_id: str, name: str, payload: Any = None, *, signal_id: str = "") -> bool:
        """Sends a message to a swarm's run, for a step that waits for it or is going to. Safe to repeat with the same `signal_id`.

        Returns whether it was taken: not where the run has ended. Raises `InvalidRequest` where the flow waits for no such signal or it does not match
        the step's schema, and `NotFound`.
        """
        request = api.SignalSwarmRequest(swarm_id=swarm_id, name=name, signal_id=signal_id or new_id())
        request.payload.json = json.dumps(payload, ensure_ascii=False, allow_nan=False)
        response: api.SignalSwarmResponse = await self._calls.call("SignalSwarm", request)
        return response.applied

    async def stop(self, swarm_id: str, reason: str = "", *, force: bool = False) -> bool:
        """Lets running steps finish, then ends the swarm; with `force`, ends it at once. Returns whether that changed anything. Raises `NotFound`."""
        mode = api.STOP_MODE_FORCE if force else api.STOP_MODE_GRACEFUL
        response: api.StopSwarmResponse = await self._calls.call(
            "StopSwarm", api.StopSwarmRequest(swarm_id=swarm_id, mode=mode, reason=reason, command_id=new_id())
        )
        return response.applied

    async def ended(self, swarm_id: str) -> Swarm:
        """Waits for the end of any swarm, however long and over restarts of the coordinator. Raises `NotFound`."""
        request = api.WaitSwarmRequest(swarm_id=swarm_id)
        request.timeout.FromSeconds(int(_WAIT))
        while True:
            try:
                response: api.WaitSwarmResponse = await self._calls.call("WaitSwarm", request, timeout=_WAIT + 10)
            except Unavailable:
                if not self._calls.patience:
                    raise
                continue
            if response.ended:
                return response.swarm

    def exchange(self) -> Exchange:
        """The stream that submissions share."""
        if self._exchange is None:
            calls = self._calls
            self._exchange = Exchange(
                lambda: calls.stub.ExecuteSwarms(metadata=calls.metadata()),
                calls.address,
                timeout=calls.timeout,
                patience=calls.patience,
            )
        return self._exchange

    def _ref(self, flow: FlowLike | PlanBuilder) -> FlowRef | FixedPlan:
        """The reference of a flow, or a plan; those of registered flows are kept, since a program names few flows and names them often."""
        if not isinstance(flow, str):
            return _plan_or_ref(flow)
        ref = self._by_name.get(flow)
        if ref is None:
            ref = flow_ref(flow)
            if ref.name and len(self._by_name) < 1000:
                self._by_name[flow] = ref
        return ref

    async def close(self) -> None:
        """Closes the connection. Executions go on."""
        if self._exchange is not None:
            await self._exchange.close()
            self._exchange = None
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _plan_or_ref(flow: Path | Mapping[str, Any] | Builder | PlanBuilder) -> FlowRef | FixedPlan:
    if isinstance(flow, Path):
        return flow_ref(flow)
    from tierflow.plan import PlanBuilder, plan_message  # few programs have plans

    if isinstance(flow, PlanBuilder) or (isinstance(flow, Mapping) and "runs" in flow and "steps" not in flow):
        return plan_message(flow)
    return flow_ref(flow)
