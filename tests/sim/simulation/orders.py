"""Steering: what operators and people say to swarms and runs, each through whichever replica, more than once where it pleases them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import grpc
from tierflow_contracts.common.v1 import flow_pb2, payload_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import approval_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_runtime.errors import failure_of

from simulation.committed import short
from simulation.scenario import FAULTS_UNTIL, Order, Swarm
from simulation.steered_flows import ASKED, REGISTERED, SIGNALS, TEXTS, next_version

REFUSED = {
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS,
}  # fmt: skip
"""Answers that say no, for good."""

_VERDICTS = (approval_pb2.APPROVAL_VERDICT_APPROVED,) * 3 + (
    approval_pb2.APPROVAL_VERDICT_REJECTED,
    approval_pb2.APPROVAL_VERDICT_DELEGATED,
)
Call = Callable[[Any, dict[str, Any], Order, Swarm], Any]


def _plain(method: str, kind: Any, **more: Any) -> Call:
    return lambda stub, given, order, swarm: getattr(stub, method)(kind(**given, **more), timeout=6.0)


def _skip(stub: Any, given: dict[str, Any], order: Order, swarm: Swarm) -> Any:
    request = api.SkipStepRequest(**given, step_id=order.step)
    if order.number % 2:
        request.output.json = '{"v": 0}'
    return stub.SkipStep(request, timeout=6.0)


def _update(stub: Any, given: dict[str, Any], order: Order, swarm: Swarm) -> Any:
    changes = orchestrator.RunChanges(concurrency=1 + order.number % 3)
    if order.number % 2:
        changes.retry.max_attempts = 4
    return stub.UpdateSwarm(api.UpdateSwarmRequest(**given, changes=changes), timeout=6.0)


def _migrate(stub: Any, given: dict[str, Any], order: Order, swarm: Swarm) -> Any:
    source = flow_pb2.FlowSource(json=next_version(TEXTS[swarm.flow]))
    request = api.MigrateSwarmRequest(**given, flow=flow_pb2.FlowRef(source=source))
    return stub.MigrateSwarm(request, timeout=6.0)


def _fund(stub: Any, given: dict[str, str], order: Order, swarm: Swarm) -> Any:
    request = api.UpdateSwarmRequest(**given)
    request.changes.credits = int(order.step)
    return stub.UpdateSwarm(request, timeout=6.0)


CALLS: dict[str, Call] = {
    "pause": _plain("PauseSwarm", api.PauseSwarmRequest),
    "interrupt": _plain("PauseSwarm", api.PauseSwarmRequest, mode=orchestrator.PAUSE_MODE_INTERRUPT),
    "resume": _plain("ResumeSwarm", api.ResumeSwarmRequest),
    "cancel": _plain("CancelSwarm", api.CancelSwarmRequest),
    "stop": _plain("StopSwarm", api.StopSwarmRequest, mode=api.STOP_MODE_GRACEFUL),
    "terminate": _plain("StopSwarm", api.StopSwarmRequest, mode=api.STOP_MODE_FORCE),
    "retry": _plain("RetrySwarm", api.RetrySwarmRequest),
    "skip": _skip,
    "break": lambda stub, given, order, swarm: stub.SetBreakpoints(api.SetBreakpointsRequest(**given, breakpoints=[order.step]), timeout=6.0),
    "unbreak": _plain("SetBreakpoints", api.SetBreakpointsRequest),
    "step": _plain("StepSwarm", api.StepSwarmRequest),
    "update": _update,
    "fund": _fund,
    "migrate": _migrate,
}  # fmt: skip
"""By command: how a swarm is told."""

ANEW: dict[str, Call] = {
    "rerun": lambda stub, given, order, swarm: stub.RerunSwarm(api.RerunSwarmRequest(**given, step_ids=[order.step]), timeout=6.0),
    "fork": lambda stub, given, order, swarm: stub.ForkSwarm(api.ForkSwarmRequest(**given, step_ids=[order.step], input=payload_pb2.Payload(json="{}")), timeout=6.0),
    "replay": lambda stub, given, order, swarm: stub.ReplaySwarm(api.ReplaySwarmRequest(**given), timeout=6.0),
}  # fmt: skip
"""By command: how a new swarm is made of another one."""


class Orders:
    """Part of the clients: what goes beyond asking and waiting."""

    world: Any
    chance: random.Random
    accepted: dict[int, str]
    runs: dict[int, str]
    results: dict[int, str]
    generations: dict[str, int]
    registered: asyncio.Event

    def _stub(self) -> Any:
        raise NotImplementedError

    def _runs_stub(self) -> Any:
        raise NotImplementedError

    async def _patience(self, error: grpc.aio.AioRpcError, what: str) -> None:
        raise NotImplementedError

    async def _wait(self, number: int) -> None:
        raise NotImplementedError

    async def _register(self) -> None:
        """The flows that others name, if somebody does."""
        for text in REGISTERED if any(swarm.steered for swarm in self.world.scenario.swarms) else ():
            request = api.RegisterFlowRequest(source=flow_pb2.FlowSource(json=text))
            while (
                await self._tried(lambda request=request: self._stub().RegisterFlow(request, timeout=4.0), "register")
                is None
            ):
                await asyncio.sleep(0.2)
        self.registered.set()

    async def _tried(self, call: Callable[[], Any], what: str) -> Any:
        """The answer; None where it is refused, or where nobody answers for long."""
        for _ in range(30):
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() in REFUSED:
                    self.world.note("client", f"{what} is refused: {failure_of(error).code}")
                    return None
                await self._patience(error, what)
        self.world.note("client", f"{what} is given up")
        return None

    # --- an operator ---

    async def _steer(self, swarm: Swarm, order: Order) -> None:
        await asyncio.sleep(order.after)
        swarm_id = self.accepted[swarm.number]
        self.world.note("client", f"{order.command} {order.step} {short(swarm_id)}")
        if order.command in ANEW:
            await self._anew(swarm, order)
            return
        given = {"swarm_id": swarm_id, "command_id": f"order-{swarm.number}-{order.number}"}
        what = f"{order.command} {swarm.number}"
        for _ in range(8):
            answer = await self._tried(lambda: CALLS[order.command](self._stub(), given, order, swarm), what)
            if answer is not None:
                if answer.applied:
                    self.world.checks.applied(swarm_id, given["command_id"])
                return
            await asyncio.sleep(0.1 + self.chance.random() * 0.4)  # It may be possible in a moment.

    async def _anew(self, swarm: Swarm, order: Order) -> None:
        """A new swarm of this one: asked for until somebody says yes or no, then waited for."""
        number = 100 * (swarm.number + 1) + order.number
        given = {"swarm_id": self.accepted[swarm.number], "request_id": f"request-{number}"}
        answer = await self._tried(
            lambda: ANEW[order.command](self._stub(), given, order, swarm), f"{order.command} {number}"
        )
        if answer is None:
            return
        self.accepted[number], self.runs[number] = answer.accepted.swarm_id, answer.accepted.run_id
        self.world.note("client", f"swarm {number} is {short(answer.accepted.swarm_id)}")
        await self._wait(number)

    async def _retried(self, swarm: Swarm) -> None:
        """What has failed is tried again: a generation more (rule R31)."""
        for place in range(swarm.retries):
            await asyncio.sleep(self.chance.random() * 0.5)
            if self.results[swarm.number] != "FAILED" or not await self._retry(swarm, Order(0.0, "retry", 50 + place)):
                return
            await self._wait(swarm.number)

    async def _retry(self, swarm: Swarm, order: Order) -> bool:
        swarm_id = self.accepted[swarm.number]
        given = {"swarm_id": swarm_id, "command_id": f"order-{swarm.number}-{order.number}"}
        self.world.note("client", f"retry {short(swarm_id)}")
        what = f"retry {swarm.number}"
        answer = await self._tried(lambda: CALLS["retry"](self._stub(), given, order, swarm), what)
        if answer is None:
            return False
        self.world.checks.applied(swarm_id, given["command_id"])
        self.generations[swarm_id] = answer.generation
        del self.results[swarm.number]
        return True

    # --- people ---

    async def _people(self, swarm: Swarm) -> None:
        """Those who are asked, and those who send messages."""
        run_id = self.runs[swarm.number]
        said = 0
        while True:
            await asyncio.sleep(0.2 + self.chance.random())
            said += 1
            for place, name in enumerate(SIGNALS.get(self._name(swarm), ())):
                if self.chance.random() < 0.4:
                    await self._twice(self._signal, run_id, name, f"signal-{swarm.number}-{said}-{place}")
            if self._name(swarm) == "asking":
                await self._decide(run_id, f"decision-{swarm.number}-{said}")

    @staticmethod
    def _name(swarm: Swarm) -> str:
        return TEXTS[swarm.flow].split('"')[3]

    async def _twice(self, call: Any, *given: Any) -> None:
        """Said once, or twice at once to different replicas."""
        await asyncio.gather(*(call(*given) for _ in range(self.chance.choice((1, 1, 2)))))

    async def _signal(self, run_id: str, name: str, signal_id: str) -> None:
        request = orchestrator.SignalRunRequest(
            run_id=run_id, name=name, signal_id=signal_id, actor="ada", payload=payload_pb2.Payload(json="1")
        )
        answer = await self._tried(lambda: self._runs_stub().SignalRun(request, timeout=4.0), f"signal {short(run_id)}")
        if answer is not None and answer.applied:
            self.world.checks.applied(run_id, signal_id)

    async def _decide(self, run_id: str, decision_id: str, *, kindly: bool = False) -> None:
        """Somebody decides about whatever waits; kindly: everybody approves."""
        request = approval_pb2.ListApprovalsRequest(run_id=run_id, tenant="default")
        waiting = await self._tried(lambda: self._runs_stub().ListApprovals(request, timeout=4.0), "approvals")
        for each in waiting.approvals if waiting is not None else ():
            for actor in ASKED if kindly else (self.chance.choice(ASKED),):
                verdict = _VERDICTS[0] if kindly else self.chance.choice(_VERDICTS)
                decision = approval_pb2.DecideApprovalRequest(
                    run_id=run_id,
                    step_id=each.step_id,
                    verdict=verdict,
                    actor=actor,
                    decision_id=f"{decision_id}-{each.step_id}-{actor}",
                )
                if verdict == approval_pb2.APPROVAL_VERDICT_DELEGATED:
                    decision.delegate_to = "eve"
                await self._twice(self._say, decision)

    async def _say(self, decision: approval_pb2.DecideApprovalRequest) -> None:
        answer = await self._tried(
            lambda: self._runs_stub().DecideApproval(decision, timeout=4.0), f"decide {decision.step_id}"
        )
        if answer is not None and answer.applied:
            self.world.checks.applied(decision.run_id, decision.decision_id)

    # --- care ---

    async def _care(self) -> None:
        """Once nothing goes wrong any more: what is paused is resumed, what asks is answered."""
        number = 0
        while True:
            await asyncio.sleep(1.0)
            if self.world.now < FAULTS_UNTIL + 3.0:
                continue
            tables = self.world.database.engine
            self.world.note("client", "looks after everything")
            for schema, look in (("coordinator", self._look_after), ("orchestrator", self._look_after_run)):
                for id_, row in list(tables.tables(schema).entity.items()):
                    number += 1
                    if row["ended_at"] is None:
                        try:
                            await look(id_, row, f"care-{number}")
                        except grpc.aio.AioRpcError:
                            continue

    async def _look_after(self, swarm_id: str, row: Any, command_id: str) -> None:
        if row["state"] == "PAUSED":
            request = api.ResumeSwarmRequest(swarm_id=swarm_id, command_id=command_id)
            await self._stub().ResumeSwarm(request, timeout=6.0)

    async def _look_after_run(self, run_id: str, row: Any, command_id: str) -> None:
        if row["state"] not in ("SUSPENDED", "PAUSED", "RUNNING"):
            return
        for place, name in enumerate(SIGNALS.get(row["name"], ())):
            await self._signal(run_id, name, f"{command_id}-{place}")
        if row["name"] == "asking":
            await self._decide(run_id, command_id, kindly=True)
        verbs = [orchestrator.RUN_COMMAND_SET_BREAKPOINTS] if row["reason"] == "BREAKPOINT" else []
        verbs += [orchestrator.RUN_COMMAND_RESUME] if row["state"] != "RUNNING" else []
        for place, verb in enumerate(verbs):
            command = orchestrator.CommandRunRequest(
                run_id=run_id, command=verb, command_id=f"{command_id}/{place}", actor="operator"
            )
            await self._runs_stub().CommandRun(command, timeout=3.0)
