"""What a client can tell swarms beyond submitting them: pause, retry, rerun, fork, skip, step, change, migrate, ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tierflow_contracts.common.v1 import execution_pb2, failure_pb2
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.common.v1.state_pb2 import SwarmState
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2 import FlowDifference, RerunPlan
from tierflow_contracts.orchestrator.v1.run_pb2 import StopReceipt

from tierflow.calls import Calls
from tierflow.errors import invalid
from tierflow.ids import new_id
from tierflow.submission import FlowLike, flow_ref
from tierflow.times import microseconds

_MARGIN = 10.0
_VERBS = ("cancel", "retry", "signal", "pause", "resume", "stop")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step answered to a question."""

    value: Any
    step_id: str
    signal_id: str


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run at one committed moment, as its expressions see it."""

    state: str
    """Name of the RunState, without prefix."""
    generation: int
    seq: int
    vars: Any
    input: Any
    outputs: Mapping[str, Any]
    """By step; a value that is stored apart stays a reference."""
    counts: Mapping[str, int]
    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one swarm of many."""

    swarm_id: str
    applied: bool
    state: str
    failure: failure_pb2.Failure | None = None


class Steering:
    """Part of `Client`. Every command has an id, so that it is safe to repeat; all raise `NotFound`, and `Conflict` where the state does not allow it."""

    _calls: Calls

    async def _do(self, method: str, request: Any, timeout: float | None = None) -> Any:
        return await self._calls.call(method, request, **({} if timeout is None else {"timeout": timeout}))

    async def pause(self, swarm_id: str, reason: str = "", *, interrupt: bool = False) -> bool:
        """Starts nothing new; running steps may finish, or are stopped with `interrupt`. Returns whether that changed anything."""
        mode = runs_api.PAUSE_MODE_INTERRUPT if interrupt else runs_api.PAUSE_MODE_FINISH
        request = api.PauseSwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id(), mode=mode)
        return bool((await self._do("PauseSwarm", request)).applied)

    async def receipt(self, swarm_id: str, reason: str = "", *, timeout: float = 60.0) -> StopReceipt:
        """Cancels, waits until nothing is known alive, and returns what became of each attempt and what was spent since."""
        request = api.CancelSwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id())
        request.wait.FromMicroseconds(round(timeout * 1e6))
        answer: api.CancelSwarmResponse = await self._do("CancelSwarm", request, timeout + _MARGIN)
        return answer.receipt

    async def retry(self, swarm_id: str, reason: str = "") -> int:
        """From FAILED into the next generation, which is returned: what completed is kept, the rest runs again."""
        request = api.RetrySwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id())
        return int((await self._do("RetrySwarm", request)).generation)

    async def plan_retry(self, swarm_id: str) -> RerunPlan:
        """What a retry would execute again and reuse, and what that used the last time."""
        answer: api.RetrySwarmResponse = await self._do(
            "RetrySwarm", api.RetrySwarmRequest(swarm_id=swarm_id, validate_only=True)
        )
        return answer.plan

    async def rerun(self, swarm_id: str, *step_ids: str, checkpoint: str = "", request_id: str | None = None) -> str:
        """Starts a new swarm from these steps on, with what completed before them; or from a checkpoint on, then without steps too. Returns its id."""
        request = api.RerunSwarmRequest(
            swarm_id=swarm_id, step_ids=step_ids, checkpoint=checkpoint, request_id=request_id or new_id()
        )
        return str((await self._do("RerunSwarm", request)).accepted.swarm_id)

    async def plan_rerun(self, swarm_id: str, *step_ids: str, checkpoint: str = "") -> RerunPlan:
        """What a rerun from these steps, or from a checkpoint, would execute, reuse, and may cost."""
        request = api.RerunSwarmRequest(swarm_id=swarm_id, step_ids=step_ids, checkpoint=checkpoint, validate_only=True)
        answer: api.RerunSwarmResponse = await self._do("RerunSwarm", request)
        return answer.plan

    async def fork(
        self,
        swarm_id: str,
        *step_ids: str,
        input: Any = None,  # noqa: A002 - it is called so everywhere else
        checkpoint: str = "",
        request_id: str | None = None,
    ) -> str:
        """Starts a new swarm with the results of these steps, and perhaps another input. Returns its id.

        With a checkpoint: with the results as they were then, and without steps those of all that had completed by then.
        """
        request = api.ForkSwarmRequest(
            swarm_id=swarm_id, step_ids=step_ids, checkpoint=checkpoint, request_id=request_id or new_id()
        )
        if input is not None:
            request.input.json = _text(input)
        return str((await self._do("ForkSwarm", request)).accepted.swarm_id)

    async def replay(self, swarm_id: str, *, request_id: str | None = None) -> str:
        """Starts a new swarm with the same flow and input. Returns its id."""
        request = api.ReplaySwarmRequest(swarm_id=swarm_id, request_id=request_id or new_id())
        return str((await self._do("ReplaySwarm", request)).accepted.swarm_id)

    async def skip(self, swarm_id: str, step_id: str, output: Any = None, *, reason: str = "") -> bool:
        """Ends a step as SKIPPED, with `output` for those who read it; what needs it goes on."""
        request = api.SkipStepRequest(swarm_id=swarm_id, step_id=step_id, reason=reason, command_id=new_id())
        if output is not None:
            request.output.json = _text(output)
        return bool((await self._do("SkipStep", request)).applied)

    async def step(self, swarm_id: str, step_id: str = "", *, reason: str = "") -> bool:
        """Runs what is ready in a paused run, or only `step_id`, and pauses again."""
        request = api.StepSwarmRequest(swarm_id=swarm_id, step_id=step_id, reason=reason, command_id=new_id())
        return bool((await self._do("StepSwarm", request)).applied)

    async def set_breakpoints(self, swarm_id: str, *step_ids: str, reason: str = "") -> bool:
        """Pauses before these steps from now on, `*` is every step; none clears them."""
        request = api.SetBreakpointsRequest(swarm_id=swarm_id, breakpoints=step_ids, reason=reason, command_id=new_id())
        return bool((await self._do("SetBreakpoints", request)).applied)

    async def update(
        self,
        swarm_id: str,
        *,
        concurrency: int | None = None,
        concurrent_steps: int | None = None,
        steps: int | None = None,
        credits: int | None = None,
        tokens: int | None = None,
        tool_calls: int | None = None,
        deadline: datetime | None = None,
        failure_policy: str = "",
        attempts: int | None = None,
        expected_version: int | None = None,
        reason: str = "",
    ) -> int:
        """Changes limits and policies of a running execution; its next decision honours them. Returns the new version.

        Args:
            swarm_id: The swarm.
            concurrency: Steps at once, in place of what the flow says; 0 is not limited.
            concurrent_steps: The allocation's steps at once; 0 is not limited.
            steps: The budget's attempts in all; 0 is not limited.
            credits: The budget's micro-credits in all, of the swarm and its run; 0 is not limited.
            tokens: The budget's tokens in all; 0 is not limited.
            tool_calls: The budget's tool calls in all; 0 is not limited.
            deadline: When it must be over; aware of its time zone.
            failure_policy: FAIL_FAST, CONTINUE or PAUSE.
            attempts: Attempts of a step that says nothing itself.
            expected_version: Refused where the version is another by now.
            reason: Kept in the history.

        Raises:
            Conflict: It has ended, or the version is another.
        """
        request = api.UpdateSwarmRequest(swarm_id=swarm_id, reason=reason, command_id=new_id())
        changes = request.changes
        changes.SetInParent()
        numbers = {"concurrency": concurrency, "concurrent_steps": concurrent_steps, "steps": steps}
        numbers |= {"credits": credits, "tokens": tokens, "tool_calls": tool_calls}
        for name, value in {**numbers, "expected_version": expected_version}.items():
            if value is not None:
                setattr(changes, name, value)
        if deadline is not None:
            changes.deadline.FromDatetime(deadline)
        if failure_policy:
            changes.failure_policy = _policy(failure_policy)
        if attempts is not None:
            changes.retry.max_attempts = attempts
        return int((await self._do("UpdateSwarm", request)).version)

    async def migrate(self, swarm_id: str, flow: FlowLike, *, check: bool = False, reason: str = "") -> FlowDifference:
        """Lets a paused execution go on with another version of its flow, and returns what differs; with `check` it changes nothing."""
        request = api.MigrateSwarmRequest(
            swarm_id=swarm_id, flow=flow_ref(flow), validate_only=check, reason=reason, command_id=new_id()
        )
        answer: api.MigrateSwarmResponse = await self._do("MigrateSwarm", request)
        return answer.difference

    async def ask(
        self,
        swarm_id: str,
        name: str,
        payload: Any = None,
        *,
        signal_id: str = "",
        timeout: float | str | timedelta = 30.0,
    ) -> Answer:
        """Sends a signal and waits for what a step of the flow answers. Safe to repeat with the same `signal_id`, also when the time was too short."""
        seconds = microseconds(timeout) / 1e6
        request = api.AskSwarmRequest(swarm_id=swarm_id, name=name, signal_id=signal_id or new_id())
        request.payload.json = _text(payload)
        request.timeout.FromMicroseconds(round(seconds * 1e6))
        answer: api.AskSwarmResponse = await self._do("AskSwarm", request, seconds + _MARGIN)
        return Answer(_plain(answer.answer), answer.step_id, answer.signal_id)

    async def query(
        self, swarm_id: str, expressions: Mapping[str, str] | None = None, *, steps: Sequence[str] = ()
    ) -> State:
        """Variables, outputs and counts of the swarm's run, and the values of expressions of the flow language, all of one moment."""
        request = api.QuerySwarmRequest(swarm_id=swarm_id, expressions=expressions or {}, step_ids=steps)
        found: runs_api.QueryRunResponse = (await self._do("QuerySwarm", request)).run
        counts = {d.name: getattr(found.counts, d.name) for d in found.counts.DESCRIPTOR.fields}
        from tierflow_contracts.common.v1.state_pb2 import RunState

        return State(
            state=RunState.Name(found.state).removeprefix("RUN_STATE_"),
            generation=found.generation,
            seq=found.seq,
            vars=_plain(found.vars),
            input=_plain(found.input),
            outputs={name: _plain(payload) for name, payload in found.outputs.items()},
            counts=counts,
            values={name: _plain(payload) for name, payload in found.values.items()},
            errors=dict(found.errors),
        )

    async def steer_many(
        self,
        verb: str,
        *,
        states: Sequence[str] = (),
        flow: str = "",
        labels: Mapping[str, str] | None = None,
        signal: str = "",
        payload: Any = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Does one thing to every swarm that matches: cancel, retry, signal, pause, resume or stop. Yields what became of each.

        Those that are to be changed should be named by their states: what has ended is answered with its state and stays as it is.
        """
        if verb not in _VERBS:
            raise invalid("verb", f"{verb!r} is none of {', '.join(_VERBS)}")
        request = api.SteerSwarmsRequest(
            verb=api.SwarmVerb.Value(f"SWARM_VERB_{verb.upper()}"),
            reason=reason,
            signal=signal,
            command_id=new_id(),
            validate_only=dry_run,
        )
        if signal:
            request.payload.json = _text(payload)
        request.filter.flow_name = flow
        request.filter.labels.update(labels or {})
        request.filter.states.extend(SwarmState.Value(f"SWARM_STATE_{state.upper()}") for state in states)
        while True:
            page: api.SteerSwarmsResponse = await self._do("SteerSwarms", request, 60.0)
            for one in page.outcomes:
                yield Outcome(
                    swarm_id=one.swarm_id,
                    applied=one.applied,
                    state=SwarmState.Name(one.state).removeprefix("SWARM_STATE_"),
                    failure=one.failure if one.HasField("failure") else None,
                )
            if not page.next_page_token:
                return
            request.filter.page_token = page.next_page_token


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(payload: Payload) -> Any:
    if payload.HasField("ref"):
        return payload.ref
    if payload.HasField("value"):
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(payload.value)
    return json.loads(payload.json) if payload.json else None


def _policy(name: str) -> execution_pb2.FailurePolicy.ValueType:
    try:
        return execution_pb2.FailurePolicy.Value(f"FAILURE_POLICY_{name.upper()}")
    except ValueError:
        raise invalid("failure_policy", f"{name!r} is none of FAIL_FAST, CONTINUE, PAUSE") from None
