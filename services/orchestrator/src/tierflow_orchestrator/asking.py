"""What can be asked of a run without telling it what to do: plans, queries; and questions that a step of it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.durable import Durable
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.templates import compile_template
from tierflow_runtime import wire
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, FailureError, Payload, Violation

from tierflow_orchestrator import views
from tierflow_orchestrator.checks import longest_wait, sound_texts, valid_id, violated
from tierflow_orchestrator.core.planning import plan, plan_at_checkpoint
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import MissingContent, RunScope, output_text, write
from tierflow_orchestrator.messages import Messages
from tierflow_orchestrator.views_steering import plan_shown

MOST_EXPRESSIONS: Final = 32
LONGEST_EXPRESSION: Final = 4000
MOST_READ: Final = 100
"""Stored values that a query looks into at most."""
WAIT: Final = 30.0
LONGEST_WAIT: Final = 600.0

_KINDS = {
    pb.RERUN_KIND_RETRY: "RETRY",
    pb.RERUN_KIND_FROM_STEPS: "FROM_STEPS",
    pb.RERUN_KIND_FORK: "FORK",
    pb.RERUN_KIND_REPLAY: "REPLAY",
}
_AT_CHECKPOINT = (pb.RERUN_KIND_FROM_STEPS, pb.RERUN_KIND_FORK)


class Asking(Messages):
    """Part of the orchestrator's service. Any replica answers: what is committed is the same for all."""

    _durable: Durable

    async def PlanRerun(self, request: pb.PlanRerunRequest, context: Any) -> pb.PlanRerunResponse:  # noqa: N802
        """See the proto."""
        valid_id("run_id", request.run_id)
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise violated("kind", "set RETRY, FROM_STEPS, FORK or REPLAY", "plan_rerun")

        if request.checkpoint and request.kind not in _AT_CHECKPOINT:
            raise violated("checkpoint", "is for FROM_STEPS and FORK", "plan_rerun")

        def look(run: Run) -> pb.PlanRerunResponse | Failure:
            if run.flow is None or run.flow.program is not None:
                return failure("UNSUPPORTED", "plans are not made for documents that are walked task by task")
            made = (plan_at_checkpoint if request.checkpoint else plan)(run, kind, request.step_ids)
            if isinstance(made, Failure):
                return made
            flow = flow_pb2.FlowRef(name=run.flow_name, version=run.flow_version, hash=run.flow_hash)
            return pb.PlanRerunResponse(plan=plan_shown(made), flow=flow)

        if request.checkpoint:
            place = await self._durable.checkpoints.find(request.run_id, request.checkpoint)
            answer = look(await self._durable.checkpoints.state_of(place))
        else:
            answer = await self._durable.reader.view(request.run_id, look)
        if isinstance(answer, Failure):
            raise FailureError(answer)
        if request.checkpoint:
            answer.at_seq = place.seq
        return answer

    async def QueryRun(self, request: pb.QueryRunRequest, context: Any) -> pb.QueryRunResponse:  # noqa: N802
        """See the proto."""
        valid_id("run_id", request.run_id)
        _check_query(request)
        for _ in range(MOST_READ):
            try:
                return await self._durable.reader.view(request.run_id, _query(request))
            except MissingContent as missing:
                content = (await self._durable.reader.blob(missing.sha256)).decode()
                entity = self._durable.host.entities.get(request.run_id)
                if entity is None:
                    return await self._query_stored(request, missing.sha256, content)
                entity.state.contents[missing.sha256] = content
        raise FailureError(failure("PAYLOAD_TOO_LARGE", "the query looks into too many stored values"))

    async def _query_stored(self, request: pb.QueryRunRequest, sha256: str, content: str) -> pb.QueryRunResponse:
        """Of a run that nobody has in memory here: it is loaded once, and what is looked into is read for it."""
        run: Run = await self._durable.reader.view(request.run_id, lambda run: run)
        run.contents[sha256] = content
        for _ in range(MOST_READ):
            try:
                return _query(request)(run)
            except MissingContent as missing:
                run.contents[missing.sha256] = (await self._durable.reader.blob(missing.sha256)).decode()
        raise FailureError(failure("PAYLOAD_TOO_LARGE", "the query looks into too many stored values"))

    async def AskRun(self, request: pb.AskRunRequest, context: Any) -> pb.AskRunResponse:  # noqa: N802
        """See the proto."""
        timeout = longest_wait(request.timeout) if request.HasField("timeout") else WAIT
        if not 0 < timeout <= LONGEST_WAIT:
            raise violated("timeout", f"must be more than 0 and at most {LONGEST_WAIT:.0f} s", "ask_run")
        signal = pb.SignalRunRequest(
            run_id=request.run_id, name=request.name, signal_id=request.signal_id, actor=request.actor
        )
        if request.HasField("payload"):
            signal.payload.CopyFrom(request.payload)
        sent = await self.SignalRun(signal, context)
        try:
            async with asyncio.timeout(timeout):
                return await self._answered(request.run_id, sent.signal_id)
        except TimeoutError:
            message = f"There is no answer yet; ask again with signal_id {sent.signal_id}."
            raise FailureError(failure("DEADLINE_EXCEEDED", message, operation="ask_run")) from None

    async def _answered(self, run_id: str, signal_id: str) -> pb.AskRunResponse:
        """The answer, once there is one. Raises FailureError where the run ends without."""
        after = 0
        while True:
            # The place first, then the look: what comes in between is news.
            row = await self._durable.reader.row(run_id)
            after = max(after, row.seq if row is not None else 0)
            found, ended = await self._durable.reader.view(run_id, _answer_to(signal_id))
            if found is not None:
                step_id, payload = found
                return pb.AskRunResponse(answer=wire.payload_to_proto(payload), signal_id=signal_id, step_id=step_id)
            if ended:
                message = f"The run has {ended} without an answer to signal {signal_id}."
                raise FailureError(failure("STATE_CONFLICT", message, operation="ask_run"))
            async for item in self._durable.reader.watch(run_id, after, idle_after=2.0):
                after = item.seq
                break


def _answer_to(signal_id: str) -> Callable[[Run], tuple[tuple[str, Payload] | None, str]]:
    def look(run: Run) -> tuple[tuple[str, Payload] | None, str]:
        answers = run.steer.answers if run.steer is not None else {}
        return answers.get(signal_id), run.state if run.ended else ""

    return look


def _check_query(request: pb.QueryRunRequest) -> None:
    found = []
    if len(request.expressions) > MOST_EXPRESSIONS:
        found.append(Violation(field="expressions", description=f"are more than {MOST_EXPRESSIONS}"))
    for name, text in request.expressions.items():
        if len(text) > LONGEST_EXPRESSION:
            found.append(Violation(field=f"expressions[{name[:60]}]", description="is too long"))
    if found:
        raise violated(found[0].field, found[0].description, "query_run")
    sound_texts(**{f"step_ids[{index}]": text for index, text in enumerate(request.step_ids[:1000])})


def _query(request: pb.QueryRunRequest) -> Callable[[Run], pb.QueryRunResponse]:
    """The answer to a query, of one moment. Raises `MissingContent`."""

    def look(run: Run) -> pb.QueryRunResponse:
        answer = pb.QueryRunResponse(
            state=wire.RUN_STATES.number(run.state),
            input=wire.payload_to_proto(run.input),
            generation=run.generation,
            counts=_counts(run),
        )
        if run.flow is not None:
            answer.vars.json = write(dict(run.flow.vars))
        for step in run.steps.values():
            wanted = step.id in request.step_ids if request.step_ids else not step.above
            if wanted and step.ended:
                answer.outputs[step.id].CopyFrom(_output(run, step.id))
        for name, text in request.expressions.items():
            _evaluate(answer, run, name, text)
        return answer

    return look


def _counts(run: Run) -> run_pb2.StepCounts:
    return views.counts_shown(run)


def _output(run: Run, step_id: str) -> Any:
    step = run.steps[step_id]
    if step.branches is None:
        return wire.payload_to_proto(step.output if step.output is not None else "null")
    return wire.payload_to_proto(output_text(run, step) if step.state == "COMPLETED" else "null")


def _evaluate(answer: pb.QueryRunResponse, run: Run, name: str, text: str) -> None:
    problems: list[str] = []
    template = compile_template(f"${{{{ {text} }}}}", lambda path, problem: problems.append(problem))
    if problems:
        answer.errors[name] = problems[0]
        return
    try:
        answer.values[name].json = write(template.resolve(RunScope(run)))
    except MissingContent:
        raise
    except ExpressionError as error:
        if isinstance(error.__context__, MissingContent):
            raise error.__context__ from None
        answer.values.pop(name, None)
        answer.errors[name] = str(error)
