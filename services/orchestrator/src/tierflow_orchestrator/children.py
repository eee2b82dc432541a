"""Runs of other flows, on behalf of steps (E12, Q7): started, told, stopped, and their results brought to their parents until these have stored them.

Everything here may be repeated: a run is asked for under the id that its parent's journal has, so that it is made once whoever asks; a result is brought until the
parent's owner has committed it, as executors' results are (rules R27, R28).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.durable import Durable
from tierflow_flow.flow_keys import reference_parts
from tierflow_runtime import wire
from tierflow_runtime.logs import get_log
from tierflow_runtime.requests import run_request
from tierflow_runtime.values import Context, Failure, FailureError, Options

from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step

log = get_log(__name__)

PASSING: Final = frozenset(("UNAVAILABLE", "QUEUE_FULL", "DATABASE_UNAVAILABLE", "NOT_OWNER", "STALE"))
"""Codes of refusals that are over after a while."""

SWEEP_EVERY: Final = 5.0
SWEPT_AT_ONCE: Final = 200
FIRST_DELAY, LONGEST_DELAY = 0.05, 5.0

Answer = Callable[[pb.StartRunResponse | FailureError], None]


class Children:
    """What this instance does for runs that are steps of others."""

    def __init__(
        self,
        durable: Durable,
        *,
        start: Callable[[run_pb2.RunExecutionRequest, Answer], None],
        command: Callable[[pb.CommandRunRequest], Awaitable[pb.CommandRunResponse]],
        traceparent: Callable[[Run, str, int], str],
    ) -> None:
        self._durable = durable
        self._start = start
        self._command = command
        self._traceparent = traceparent
        self._under_way: set[tuple[str, str]] = set()
        """What is being done: a verb, and an attempt or a run."""
        self._delivering: set[str] = set()

    # --- down: to the run of a step ---

    def launch(self, run: Run, step: Step) -> None:
        """Asks for the run of a step whose attempt is committed, until it is stored or refused for good."""
        self._once("start", step.attempt_id, self._launch(run.id, step.attempt_id, self._request(run, step)))

    def stop(self, run: Run, step: Step) -> None:
        """The step is being stopped: what becomes of its run is said by `on_parent_close`."""
        close = run.spec(step).settings.get("on_parent_close", "cancel")
        if close == "cancel":
            self._once(
                "cancel", step.attempt_id, self._cancel(run.id, step.attempt_id, step.child, _context(run, step))
            )
        elif close == "abandon":
            self._once("abandon", step.attempt_id, self._report(run.id, _cancelled(step.attempt_id)))

    def tell(self, run: Run, effect: commands.TellChild) -> None:
        """The parent is paused, or goes on."""
        verb = "pause" if effect.paused else "resume"
        self._once(verb, effect.attempt_id, self._tell(run.id, effect, verb))

    def _once(self, verb: str, subject: str, work: Any) -> None:
        key = (verb, subject)
        if key in self._under_way:
            work.close()
            return
        self._under_way.add(key)

        async def done() -> None:
            try:
                await work
            finally:
                self._under_way.discard(key)

        self._durable.host.spawn(done())

    async def _launch(self, parent_id: str, attempt_id: str, request: run_pb2.RunExecutionRequest) -> None:
        delay = FIRST_DELAY
        while self._is_here(parent_id, attempt_id):
            try:
                await self._durable.host.answered(partial(self._start, request))
            except FailureError as error:
                if error.failure.code not in PASSING:
                    await self._report(parent_id, _refused(attempt_id, request, error.failure))
                    return
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY)
                continue
            started = commands.ReportStarted(attempt_id=attempt_id, started_at=self._durable.clock.now())
            await self._report(parent_id, started)
            return

    async def _cancel(self, parent_id: str, attempt_id: str, child_id: str, context: Context) -> None:
        request = pb.CommandRunRequest(
            run_id=child_id,
            command=pb.RUN_COMMAND_CANCEL,
            command_id=f"{attempt_id}/cancel",
            reason="PARENT_CLOSED",
            context=wire.context_to_proto(context),
        )
        await self._patiently(parent_id, attempt_id, lambda: self._command(request))
        buried = await self._patiently(
            parent_id, attempt_id, lambda: self._durable.reader.view(child_id, lambda run: run.buried)
        )
        if buried:  # It never was: nobody else is going to report its end.
            await self._report(parent_id, _cancelled(attempt_id))

    async def _tell(self, parent_id: str, effect: commands.TellChild, verb: str) -> None:
        make = commands.Pause if effect.paused else commands.Resume
        entity = self._durable.host.entities.get(parent_id)
        # The parent goes to and fro: each time is a command of its own.
        number = entity.seq if entity is not None else 0
        command = make(command_id=f"{effect.attempt_id}/{verb}/{number}", reason="PARENT")
        router = self._durable.router
        await self._patiently(
            parent_id, effect.attempt_id, lambda: router.command(effect.child_run_id, command, command.command_id)
        )
        told = commands.ReportTold(attempt_id=effect.attempt_id, paused=effect.paused)
        await self._report(parent_id, told)

    async def _patiently(self, parent_id: str, attempt_id: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, asked for as long as the parent is here and waits for it; None where it is not any more."""
        delay = FIRST_DELAY
        while self._is_here(parent_id, attempt_id):
            try:
                return await ask()
            except FailureError as error:
                if error.failure.code not in PASSING:
                    log.warning("a run of a step cannot be told", attempt_id=attempt_id, reason=str(error))
                    return None
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
        return None

    def _is_here(self, parent_id: str, attempt_id: str) -> bool:
        """Whether the parent is owned here and still waits for this attempt; else another does what is left to do."""
        entity = self._durable.host.entities.get(parent_id)
        if entity is None or entity.closing:
            return False
        run: Run = entity.state
        return any(run.steps[step_id].attempt_id == attempt_id for step_id in run.live)

    def _request(self, run: Run, step: Step) -> run_pb2.RunExecutionRequest:
        spec = run.spec(step)
        name, version, digest = reference_parts(spec.settings["flow"])
        options = Options(
            timeout=spec.settings.get("timeout"),
            priority=run.options.priority,
            test_mode=run.options.test_mode,
            on_lost=run.options.on_lost,
        )
        context = _context(run, step, self._traceparent(run, step.id, step.attempt))
        flow = flow_pb2.FlowRef(name=name, version=version, hash=digest)
        now = self._durable.clock.now()
        return run_request(
            context, flow, input=step.input, allocation=step.grant or run.allocation, options=options, now=now
        )

    # --- up: to the parent ---

    def ended(self, run: Run) -> None:
        """The end of a run that is a step of another is committed."""
        self._deliver(run.id, run.generation, run.context.parent_id, result_of(run))

    def _deliver(self, run_id: str, generation: int, parent_id: str, command: commands.ReportResult) -> None:
        if run_id in self._delivering:
            return
        self._delivering.add(run_id)

        async def bring() -> None:
            try:
                if await self._report(parent_id, command):
                    self._durable.host.writer.acknowledge(run_id, generation)
            finally:
                self._delivering.discard(run_id)

        self._durable.host.spawn(bring())

    async def _report(self, parent_id: str, command: commands.RunCommand) -> bool:
        """Brings something to a parent, wherever it is; whether it, or its being gone, is certain."""
        delay = FIRST_DELAY
        while self._durable.instance.alive:
            try:
                await self._durable.router.command(parent_id, command)
                return True
            except FailureError as error:
                if error.failure.code == "NOT_FOUND":
                    return True
                if error.failure.code not in PASSING:
                    log.warning("a parent cannot be told", run_id=parent_id, reason=str(error))
                    return False
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
        return False

    async def run_sweep(self) -> None:
        """Brings results again that no parent has acknowledged for a while, whoever had ended their runs."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                before = self._durable.clock.now() - int(2 * SWEEP_EVERY * 1_000_000)
                rows = await self._durable.database.fetch("unacknowledged_children", before=before, limit=SWEPT_AT_ONCE)
                for row in rows:
                    await self._bring_again(str(row["id"]))
            except FailureError as error:
                log.info("bringing results to parents waits", reason=str(error))

    async def _bring_again(self, run_id: str) -> None:
        generation, parent_id, command = await self._durable.reader.view(
            run_id, lambda run: (run.generation, run.context.parent_id, result_of(run))
        )
        self._deliver(run_id, generation, parent_id, command)


def _context(run: Run, step: Step, traceparent: str = "") -> Context:
    """The context of a step's run: derived from its parent's, one level down."""
    own = run.context
    return Context(
        tenant=own.tenant,
        user_id=own.user_id,
        swarm_id=own.swarm_id,
        run_id=step.child,
        step_id=step.id,
        attempt=step.attempt,
        attempt_id=step.attempt_id,
        parent_id=run.id,
        root_id=own.root_id,
        correlation_id=own.correlation_id,
        idempotency_key=f"{run.id}/{step.id}",
        epoch=step.epoch,
        depth=own.depth + 1,
        deadline=run.deadline,
        traceparent=traceparent or own.traceparent,
        tracestate=own.tracestate,
        labels=own.labels,
        roles=own.roles,
        ancestors=(*own.ancestors, run.flow_name),
    )


def result_of(run: Run) -> commands.ReportResult:
    """How an ended run stands for its step."""
    failure = None
    if run.state != "COMPLETED":
        failure = Failure(
            code="CANCELLED" if run.state == "CANCELLED" else "STEP_FAILED",
            message=f"Run {run.id} of flow {run.flow_name} {_said(run)}",
            tier=2,
            component="run",
            operation="sub-flow",
            retryable=run.failure is not None and run.failure.retryable,
            cause=run.failure,
        )
    return commands.ReportResult(
        attempt_id=run.context.attempt_id,
        state=run.state,
        outcome=run.outcome,
        output=run.output,
        failure=failure,
        usage=run.usage,
        started_at=run.created_at,
    )


def _said(run: Run) -> str:
    if run.state == "CANCELLED":
        return f"was cancelled: {run.reason or 'no reason was given'}"
    return f"failed: {run.failure.message if run.failure is not None else 'no reason was given'}"


def _refused(attempt_id: str, request: run_pb2.RunExecutionRequest, failure: Failure) -> commands.ReportResult:
    flow = request.input.flow
    cause = failure if failure.tier else msgspec.structs.replace(failure, tier=2)
    whole = Failure(
        code="STEP_FAILED",
        message=f"Flow {flow.name or flow.hash} could not be run: {failure.message}",
        tier=2,
        component="run",
        operation="sub-flow",
        cause=cause,
    )
    return commands.ReportResult(attempt_id=attempt_id, state="FAILED", failure=whole)


def _cancelled(attempt_id: str) -> commands.ReportResult:
    return commands.ReportResult(attempt_id=attempt_id, state="CANCELLED")
