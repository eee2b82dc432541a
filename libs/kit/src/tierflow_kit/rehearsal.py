"""A flow run by the real core of Tier 2 on a virtual clock, with fakes for its handlers. No server, no waiting, the same every time.

What is left out on purpose: slots (every attempt starts at once, as far as the flow's own limits allow), the jitter of delays (so that durations are round),
and the budget of whoever asks. What decides is the code that decides in production.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import dumps, loads
from tierflow_flow import Flow, StepSpec
from tierflow_flow.moments import parse_moment
from tierflow_orchestrator.core import Reply, Run, commands, decide, events, missing_blobs, react
from tierflow_orchestrator.core.caching import key_hash
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_runtime.values import Allocation, Context, Micros, Options, Payload, Usage

from tierflow_kit import fakes
from tierflow_kit.fakes import Answer, Attempt, FakeError, Fakes

START = parse_moment("2030-01-01T00:00:00Z")
DEFAULT_TIMEOUT: Micros = 30_000_000
FOREVER: Micros = 1 << 62
MOST_DECISIONS = 1_000_000
RUN_ID = "00000000-0000-7000-8000-000000000001"


@dataclass(slots=True)
class Call:
    """An attempt that was made, and what came of it."""

    handler: str
    step: str
    attempt: int
    input: Any
    at: Micros
    """Microseconds after the start; so are all moments here."""
    ended_at: Micros | None = None
    state: str = "RUNNING"
    """RUNNING, COMPLETED, FAILED, CANCELLED or LOST."""
    output: Any = None
    logs: tuple[str, ...] = ()
    """Lines that a real handler wrote, such as `info: charging`."""


@dataclass(slots=True)
class Setting:
    """What a rehearsal starts from."""

    start: Micros = START
    """The moment, since the epoch, at which the run is accepted."""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    allocation: Allocation = field(default_factory=Allocation)
    flows: Mapping[str, Flow] = field(default_factory=dict)
    """Other flows that this one runs, by the reference that it names them by."""


class Rehearsal:
    """One run on a virtual clock. `tell` it commands, `advance` the clock, or let it `finish`."""

    def __init__(self, flow: Flow, input: Any, answers: Fakes, setting: Setting | None = None) -> None:  # noqa: A002
        self.setting = setting or Setting()
        self.flow = without_jitter(flow)
        self.answers = answers
        self.now = self.setting.start
        self.calls: list[Call] = []
        self.journal: list[tuple[Micros, events.RunEvent]] = []
        self._blobs: dict[str, bytes] = {}
        self._agenda: list[tuple[Micros, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._in_flight: dict[str, Call] = {}
        self._results: dict[str, tuple[Payload | None, Micros]] = {}
        self._decisions = 0
        self.run = Run.fresh(RUN_ID)
        self.run.flow = self.flow
        self.run.environment = dict(self.setting.env)
        self._create(input)

    def _create(self, given: Any) -> None:
        context = Context(
            tenant="test", user_id="test", swarm_id="test", run_id=RUN_ID, labels=dict(self.setting.labels)
        )
        self.tell(
            commands.CreateRun(
                context=context,
                flow_hash=self.flow.hash,
                flow_name=self.flow.name,
                flow_version=self.flow.version,
                input=payload_of(dumps(given), self._blobs),
                allocation=self.setting.allocation,
                options=self.setting.options,
            )
        )

    # The clock.

    @property
    def elapsed(self) -> Micros:
        """Microseconds since the start."""
        return self.now - self.setting.start

    @property
    def idle(self) -> bool:
        """Whether nothing is going to happen by itself."""
        return self._next() is None

    def at(self, moment: Micros, action: Callable[[], None]) -> None:
        """Does something so many microseconds after the start."""
        self._plan(self.setting.start + moment, action)

    def advance(self, until: Micros) -> None:
        """Lets happen what happens up to so many microseconds after the start, then it is that time."""
        target = self.setting.start + until
        while (moment := self._next()) is not None and moment <= target:
            self._step(moment)
        self.now = max(self.now, target)

    def finish(self) -> None:
        """Lets happen what happens by itself: until the run has ended, or waits for somebody."""
        while (moment := self._next()) is not None:
            self._step(moment)

    def _next(self) -> Micros | None:
        planned = self._agenda[0][0] if self._agenda else None
        wake = self.run.next_wake()
        found = [moment for moment in (planned, wake) if moment is not None]
        return max(self.now, min(found)) if found else None

    def _step(self, moment: Micros) -> None:
        self.now = moment
        if self._agenda and self._agenda[0][0] <= moment:
            heapq.heappop(self._agenda)[2]()
            return
        before = self.run.next_wake()
        if not self.tell(commands.WakeUp()).applied and self.run.next_wake() == before and not self._agenda:
            raise FakeError(f"the run asks to be woken at {moment} and does nothing then; this is a defect of Tierflow")

    def _plan(self, moment: Micros, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (moment, next(self._numbers), action))

    # Commands and what follows from them.

    def tell(self, command: commands.RunCommand) -> Reply:
        """Decides a command now, carries out what it leads to, and starts every attempt that may start."""
        reply = self._decide(command)
        started = True
        while started:
            started = self._recall()
            for handler in tuple(self.run.ready_handlers()):
                while (step_id := self.run.next_ready(handler)) is not None:
                    self._decide(commands.AssignSlot(step_id=step_id, executor_id="fakes"))
                    started = True
        return reply

    def _recall(self) -> bool:
        """Answers the look-ups of results that earlier attempts of this rehearsal have left; whether there were any."""
        asked = False
        for step_id in tuple(self.run.lookups) if self.run.state == "RUNNING" else ():
            if step_id not in self.run.lookups or self.run.steps[step_id].held:
                continue
            try:
                key = key_hash(self.run, self.run.steps[step_id])
            except ExpressionError:
                key = ""
            stored = self._results.get(key)
            fresh = stored is not None and stored[1] > self.now
            found: dict[str, Any] = {"found": True, "output": stored[0]} if stored is not None and fresh else {}
            self._decide(commands.Recall(step_id=step_id, key_hash=key, run_id=self.run.id if found else "", **found))
            asked = True
        return asked

    def _decide(self, command: commands.RunCommand) -> Reply:
        self._decisions += 1
        if self._decisions > MOST_DECISIONS:
            raise FakeError(f"more than {MOST_DECISIONS} decisions: the flow does not come to an end")
        for sha256 in missing_blobs(self.run, command):
            self.run.contents[sha256] = self._blobs[sha256].decode()
        decision = decide(self.run, command, self.now)
        self._blobs.update(decision.blobs)
        for event in decision.events:
            self.journal.append((self.elapsed, event))
            for effect in react(self.run, event):
                self._carry_out(effect)
        return decision.reply

    def _carry_out(self, effect: commands.Effect) -> None:
        if isinstance(effect, commands.DispatchAttempt):
            self._perform(effect)
        elif isinstance(effect, commands.StoreResult):
            self._results[effect.key_hash] = (effect.output, self.now + effect.ttl)
        elif isinstance(effect, commands.StopAttempt):
            self._plan(self.now, lambda: self._stop(effect.attempt_id))

    def _perform(self, effect: commands.DispatchAttempt) -> None:
        if effect.attempt_id in self._in_flight:
            return
        call = Call(effect.handler, effect.step_id, effect.attempt, loads(self.text(effect.input)), self.elapsed)
        self.calls.append(call)
        self._in_flight[effect.attempt_id] = call
        self._plan(self.now, lambda: self._start(effect.attempt_id, call))

    def _start(self, attempt_id: str, call: Call) -> None:
        if attempt_id not in self._in_flight:
            return
        self.tell(commands.ReportStarted(attempt_id=attempt_id, started_at=self.now))
        flow = self.run.definition()
        spec = self.run.spec(self.run.steps[call.step])
        seen = Attempt(call.handler, call.step, call.attempt, call.input, call.at, spec.labels)
        answer = self._answer(seen, spec)
        timeout = spec.timeout or flow.timeout or DEFAULT_TIMEOUT
        if spec.kind == "flow":
            timeout = spec.settings.get("timeout", FOREVER)
        if answer.silent or answer.after > timeout:
            text = f"the attempt was stopped after {timeout / 1e6:.1f} s: its timeout"
            answer = Answer(failure=fakes.failure("TIMEOUT", text), after=timeout, credits=answer.credits)
        self._plan(self.now + answer.after, lambda: self._end(attempt_id, answer))

    def _answer(self, attempt: Attempt, spec: StepSpec) -> Answer:
        """What comes of an attempt; of the run of another flow that is at hand and not faked, that run's end."""
        other = self.setting.flows.get(spec.settings.get("flow", "")) if spec.kind == "flow" else None
        if other is None or self.answers.has(attempt, spec.id):
            return self.answers.answer(attempt, spec.id)
        below = Rehearsal(other, attempt.input, self.answers.below(), dataclasses.replace(self.setting, start=self.now))
        below.finish()
        for call in below.calls:
            call.step, call.at = f"{attempt.step}>{call.step}", call.at + self.elapsed
            call.ended_at = None if call.ended_at is None else call.ended_at + self.elapsed
        self.calls += below.calls
        return below.ending(attempt)

    def ending(self, attempt: Attempt) -> Answer:
        """What the run of a step is to its parent. Raises `FakeError` where it has not ended."""
        run = self.run
        if not run.ended:
            raise FakeError(
                f"the run of {self.flow.name} for {attempt.step} is {run.state} ({run.reason or 'it waits for somebody'}): "
                f"nobody acts within it here; fake it as {attempt.handler}"
            )
        after, credits = self.elapsed, run.usage.credits
        if run.state == "COMPLETED":
            return Answer(
                loads(self.text(run.output)), after=after, degraded=run.outcome == "DEGRADED", credits=credits
            )
        failure = run.failure or fakes.failure(
            "CANCELLED", f"the run of {self.flow.name} was cancelled", retryable=False
        )
        return Answer(failure=failure, after=after, credits=credits)

    def _end(self, attempt_id: str, answer: Answer) -> None:
        call = self._in_flight.pop(attempt_id, None)
        if call is None:
            return
        call.ended_at = self.elapsed
        if answer.lost:
            call.state = "LOST"
            self.tell(commands.ReportLost(attempt_id=attempt_id, reason="a fake says that its executor is gone"))
            return
        call.state = "COMPLETED" if answer.failure is None else "FAILED"
        call.output, call.logs = answer.output, answer.logs
        output = payload_of(_json(answer.output, call), self._blobs) if answer.failure is None else None
        usage = Usage(credits=answer.credits, attempts=1, wall_time=answer.after)
        self.tell(
            commands.ReportResult(
                attempt_id=attempt_id,
                state=call.state,
                outcome="FAILURE" if answer.failure else "DEGRADED" if answer.degraded else "SUCCESS",
                output=output,
                failure=answer.failure,
                usage=usage,
                started_at=self.setting.start + call.at,
            )
        )

    def _stop(self, attempt_id: str) -> None:
        call = self._in_flight.pop(attempt_id, None)
        if call is not None:
            call.ended_at, call.state = self.elapsed, "CANCELLED"
            self.tell(commands.ReportResult(attempt_id=attempt_id, state="CANCELLED", usage=Usage(attempts=1)))

    def text(self, payload: Any) -> str:
        """The JSON text of a payload of the run; `null` where there is none."""
        if payload is None:
            return "null"
        return payload if isinstance(payload, str) else self._blobs[payload.sha256].decode()


def _json(value: Any, call: Call) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FakeError(f"the fake of {call.handler} answered {call.step} with what is not JSON: {error}") from None
    return text


def without_jitter(flow: Flow) -> Flow:
    """The flow with delays that are exactly what it says."""
    by_id = {
        id_: step
        if step.retry is None
        else dataclasses.replace(step, retry=msgspec.structs.replace(step.retry, jitter=0.0))
        for id_, step in flow.by_id.items()
    }
    steps = tuple(by_id[step.id] for step in flow.steps)
    retry = msgspec.structs.replace(flow.retry, jitter=0.0)
    return dataclasses.replace(flow, steps=steps, by_id=by_id, retry=retry)
