"""`FlowTest`: flows in unit tests, in Python. Handlers are functions, time is virtual, nothing is started."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from tierflow.outcomes import Degraded, HandlerFailed
from tierflow_expressions.hints import nearest
from tierflow_flow import Flow, parse
from tierflow_flow.durations import parse_duration
from tierflow_flow.paths import definition_path
from tierflow_flow.problems import Problems
from tierflow_flow.sections import Section
from tierflow_runtime.values import Allocation, Micros

from tierflow_kit import expecting, fakes, spoken
from tierflow_kit.acting import command_of, kind_of
from tierflow_kit.case_keys import EXPECT, LIMITS
from tierflow_kit.fakes import ALWAYS, Answer, Attempt, Fake, FakeError, Fakes
from tierflow_kit.performing import failure_of, handler_of, performed
from tierflow_kit.rehearsal import START, Call, Rehearsal, Setting
from tierflow_kit.report import Emitted, Report, StepReport, report
from tierflow_kit.sources import load


class Builder(Protocol):
    """What `tierflow.flow` makes."""

    def to_json(self) -> str:
        """The flow's text."""
        ...


Source = Flow | Builder | Path | str | Mapping[str, Any]
Span = str | timedelta
"""Such as `90s`, `1h30m`, or a timedelta."""


def micros(span: Span) -> Micros:
    """The microseconds of a span. Raises `ValueError`."""
    return span // timedelta(microseconds=1) if isinstance(span, timedelta) else parse_duration(span)


class FlowTest:
    """A flow, and the fakes of its handlers.

    Args:
        flow: A path, the text of a flow in YAML, a mapping, or what `tierflow.flow` builds.
        start: The moment at which runs start on the virtual clock; with a time zone.
        env: Environment variables that the flow may read.
        flows: Other flows that it runs, by the name that it has for them; those that are not here are faked as `flow:NAME`.

    Raises:
        tierflow_flow.FlowError: The flow is not valid; the text lists everything that is wrong.
    """

    def __init__(
        self,
        flow: Source,
        *,
        start: datetime | None = None,
        env: Mapping[str, str] | None = None,
        flows: Mapping[str, Source] | None = None,
    ) -> None:
        self.flow = _flow(flow)
        self._flows = {name: _flow(other) for name, other in (flows or {}).items()}
        moment = START if start is None else _moment(start)
        self._setting = Setting(start=moment, env=dict(env or {}), flows=self._flows)
        self._rules: list[tuple[str, bool, Callable[[], Fake]]] = []

    def fake(
        self,
        name: str,
        answer: Any = None,
        *,
        takes: Span = "0s",
        times: int | None = None,
    ) -> FlowTest:
        """Answers for a handler, or for one step.

        Args:
            name: Name of a handler, or id of a step, which comes first.
            answer: A JSON value; or a function of the attempt's input, which may take the `Attempt` too, may be async, may raise `HandlerFailed` or
                `Rejected`, and may return `Degraded`.
            takes: How long an attempt takes on the virtual clock.
            times: How many attempts it answers; the next fake of the same name answers those after. None: all.

        Raises:
            FakeError: The flow calls no such handler and has no such step.
        """
        respond = (
            _function(answer, micros(takes)) if callable(answer) else fakes.fixed(Answer(answer, after=micros(takes)))
        )
        return self._add(name, respond, times)

    def fails(
        self,
        name: str,
        code: str = "HANDLER_FAILED",
        message: str = "",
        *,
        retryable: bool | None = None,
        takes: Span = "0s",
        times: int | None = None,
    ) -> FlowTest:
        """Lets attempts fail. Whether trying again helps is as the catalogue says of the code, unless it is given."""
        answer = Answer(failure=fakes.failure(code, message, retryable=retryable), after=micros(takes))
        return self._add(name, fakes.fixed(answer), times)

    def loses(self, name: str, *, takes: Span = "0s", times: int | None = 1) -> FlowTest:
        """Lets the executor of attempts be gone: nobody knows how they ended."""
        return self._add(name, fakes.fixed(Answer(lost=True, after=micros(takes))), times)

    def hangs(self, name: str, *, times: int | None = None) -> FlowTest:
        """Lets attempts never answer; their timeout ends them."""
        return self._add(name, fakes.fixed(Answer(silent=True)), times)

    def use(self, *functions: Callable[..., Any], takes: Span = "0s") -> FlowTest:
        """Calls handlers as they are: functions declared with `@handler`, with their typed input, their checks, and a context that keeps what they write.

        Raises:
            FakeError: One of them is no handler, or the flow does not call it.
        """
        for function in functions:
            known = handler_of(function)
            self._add(known.name, performed(known, micros(takes)), None)
        return self

    def _add(self, name: str, respond: fakes.Respond, times: int | None) -> FlowTest:
        of_step = definition_path(name) in self.flow.by_id
        called = [*self.flow.called, *(each for other in self._flows.values() for each in other.called)]
        if not of_step and name not in called:
            known = [*called, *self.flow.by_id]
            raise FakeError(f"{self.flow.name} calls no handler {name} and has no such step{nearest(name, known)}")
        limit = ALWAYS if times is None else times
        self._rules.append((name, of_step, lambda: Fake(respond, None, limit)))
        return self

    def start(
        self,
        input: Any = None,  # noqa: A002
        *,
        labels: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> FlowRun:
        """Starts a run and stops the clock at once: `advance` it, tell it things, look at it. `limits` has the words of test files."""
        made = Fakes()
        for name, of_step, fresh in self._rules:
            (made.of_step if of_step else made.of_handler)(name, fresh())
        granted = Allocation(**_read(LIMITS, limits or {}))
        base = self._setting
        setting = Setting(base.start, base.env, dict(labels or {}), allocation=granted, flows=base.flows)
        return FlowRun(Rehearsal(self.flow, {} if input is None else input, made, setting))

    def run(
        self,
        input: Any = None,  # noqa: A002
        *,
        labels: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> FlowRun:
        """A run until nothing happens by itself any more: it has ended, or it waits for somebody."""
        return self.start(input, labels=labels, limits=limits).finish()


class FlowRun:
    """A run on a virtual clock."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        self._told = 0

    # Time and what others do.

    def advance(self, span: Span) -> FlowRun:
        """Lets so much time pass, with everything that happens in it."""
        self.rehearsal.advance(self.rehearsal.elapsed + micros(span))
        return self

    def finish(self) -> FlowRun:
        """Lets everything happen that happens by itself."""
        self.rehearsal.finish()
        return self

    def signal(self, name: str, payload: Any = None) -> FlowRun:
        """Sends a message. This and the following raise `AssertionError` where the run refuses it."""
        return self._act(signal=name, **{"with": payload})

    def approve(self, step: str, *, by: str, roles: Iterable[str] = (), reason: str = "") -> FlowRun:
        """Somebody approves what a step asks."""
        return self._act(approve=step, by=by, roles=roles, reason=reason)

    def reject(self, step: str, *, by: str, roles: Iterable[str] = (), reason: str = "") -> FlowRun:
        """Somebody rejects it."""
        return self._act(reject=step, by=by, roles=roles, reason=reason)

    def delegate(self, step: str, *, by: str, to: str, roles: Iterable[str] = ()) -> FlowRun:
        """Somebody hands the say on."""
        return self._act(delegate=step, by=by, to=to, roles=roles)

    def cancel(self, reason: str = "") -> FlowRun:
        """Stops everything."""
        return self._act(cancel=reason)

    def pause(self, reason: str = "", *, interrupt: bool = False) -> FlowRun:
        """Starts nothing new; with `interrupt`, stops what runs."""
        return self._act(pause=reason, interrupt=interrupt)

    def resume(self, reason: str = "") -> FlowRun:
        """Goes on."""
        return self._act(resume=reason)

    def skip(self, step: str, *, output: Any = None, reason: str = "") -> FlowRun:
        """Ends a step as SKIPPED; what needs it goes on."""
        return self._act(skip=step, output=output, reason=reason)

    def retry(self, reason: str = "") -> FlowRun:
        """From FAILED: what failed runs again, with what depends on it."""
        return self._act(retry=reason)

    def migrate(self, flow: Source) -> FlowRun:
        """From PAUSED: goes on with another version of the flow."""
        return self._act(migrate=_flow(flow))

    def _act(self, **action: Any) -> FlowRun:
        self._told += 1
        reply = self.rehearsal.tell(command_of(action, f"test-{self._told}"))
        if not reply.applied:
            why = expecting.shown(reply.failure) if reply.failure is not None else f"the run is {reply.state}"
            raise AssertionError(f"{kind_of(action)} was refused: {why}")
        self.rehearsal.advance(self.rehearsal.elapsed)
        return self

    # What became of it.

    @property
    def report(self) -> Report:
        """Everything, as it is now."""
        return report(self.rehearsal)

    @property
    def state(self) -> str:
        """Such as COMPLETED or SUSPENDED."""
        return self.rehearsal.run.state

    @property
    def output(self) -> Any:
        """The run's output; None where there is none (yet)."""
        return self.report.output

    @property
    def steps(self) -> Mapping[str, StepReport]:
        """Steps by id, items of maps included."""
        return self.report.steps

    @property
    def states(self) -> dict[str, str]:
        """The state of each step of the flow, items of maps left out."""
        return {id_: step.state for id_, step in self.report.steps.items() if "[" not in id_}

    @property
    def duration(self) -> timedelta:
        """How long it took, or has taken so far, on the virtual clock."""
        return timedelta(microseconds=self.report.duration)

    @property
    def emitted(self) -> tuple[Emitted, ...]:
        """The events that the flow published."""
        return self.report.emitted

    def calls(self, handler: str = "") -> tuple[Call, ...]:
        """The attempts of a handler, or all."""
        made = self.report.calls
        return tuple(call for call in made if not handler or call.handler == handler)

    def expect(self, **wanted: Any) -> FlowRun:
        """Compares, with the words of test files: `run.expect(state="COMPLETED", output={...}, steps={"mail": "SKIPPED"}, duration="4s")`.

        Raises:
            AssertionError: With every difference.
        """
        found = expecting.differences(_read(EXPECT, wanted), self.report)
        if found:
            raise AssertionError("\n".join([f"{self.rehearsal.flow.name} did not go as expected:", *found]))
        return self

    def __repr__(self) -> str:
        return f"<run of {self.rehearsal.flow.name}: {self.state} after {spoken.duration(self.rehearsal.elapsed)}>"


def _read(keys: Section, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The normal form of words of test files. Raises `FlowError`."""
    problems = Problems({})
    spans = {name: _span_text(value) for name, value in given.items()}
    read: Mapping[str, Any] = keys.read(spans, (), problems)
    problems.raise_if_any()
    return read


def _span_text(value: Any) -> Any:
    return spoken.duration(micros(value)) if isinstance(value, timedelta) else value


def _flow(source: Source) -> Flow:
    if isinstance(source, Flow):
        return source
    if isinstance(source, Path):
        return load(source)
    if isinstance(source, str):
        return parse(source) if "\n" in source else load(Path(source))
    if isinstance(source, Mapping):
        return parse(json.dumps(source), "json")
    return parse(source.to_json(), "json")


def _moment(start: datetime) -> Micros:
    if start.tzinfo is None:
        raise ValueError("start has no time zone; such as datetime(2030, 1, 1, tzinfo=UTC)")
    return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _function(function: Callable[..., Any], after: Micros) -> fakes.Respond:
    takes_attempt = _parameters(function) > 1

    def respond(attempt: Attempt) -> Answer:
        given = (attempt.input, attempt) if takes_attempt else (attempt.input,)
        try:
            output = function(*given)
            if inspect.iscoroutine(output):
                output = asyncio.run(output)
        except HandlerFailed as error:
            return Answer(failure=failure_of(error), after=after)
        if isinstance(output, Degraded):
            return Answer(output.value, after=after, degraded=True)
        return Answer(output, after=after)

    return respond


def _parameters(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        each.kind in kinds and each.default is each.empty for each in inspect.signature(function).parameters.values()
    )
