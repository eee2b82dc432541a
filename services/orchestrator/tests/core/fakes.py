"""Flows made by hand, and a shell in a few lines: what the core needs around it in tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.needs import branches_of_switches
from tierflow_expressions.scope import Scope
from tierflow_flow.definition import Flow, StepSpec
from tierflow_orchestrator.core import Decision, Run, decide, dump, evolve, react
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    CreateRun,
    DispatchAttempt,
    ReportEnd,
    ReportResult,
    RunCommand,
    StopAttempt,
)
from tierflow_orchestrator.core.events import RunEvent
from tierflow_orchestrator.core.turn import Turn
from tierflow_runtime.values import Allocation, Context, Failure, Options, Payload, RetryPolicy, Usage

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
RUN_ID = "0190f000-0000-7000-8000-000000000001"


class Value:
    """A template without holes."""

    constant = True
    steps: frozenset[str] = frozenset()
    whole_steps: frozenset[str] = frozenset()

    def __init__(self, value: Any) -> None:
        self.value = value
        self.text = json.dumps(value)

    def resolve(self, scope: Scope) -> Any:
        return self.value

    def resolve_json(self, scope: Scope) -> str:
        return self.text


class Ref:
    """A template that is one reference: `Ref("steps.a.output")`."""

    constant = False

    def __init__(self, text: str, whole: bool = True) -> None:
        name, *path = text.split(".")
        self.name = name
        self.path: tuple[str | int, ...] = tuple(int(part) if part.isdigit() else part for part in path)
        self.steps = frozenset({path[0]}) if name == "steps" else frozenset()
        self.whole_steps = self.steps if whole and len(path) == 2 and path[1] == "output" else frozenset()

    def resolve(self, scope: Scope) -> Any:
        return scope.lookup(self.name, self.path)

    def resolve_json(self, scope: Any) -> str:
        text = scope.raw(self.name, self.path)
        return json.dumps(self.resolve(scope)) if text is None else text


class Wrapped(Ref):
    """A reference within an object: `{"value": ${{ … }}}`."""

    def resolve(self, scope: Scope) -> Any:
        return {"value": super().resolve(scope)}

    def resolve_json(self, scope: Any) -> str:
        text = scope.raw(self.name, self.path)
        return '{"value":' + (json.dumps(super().resolve(scope)) if text is None else text) + "}"


class Computed:
    """A template that is a Python function of the scope."""

    constant = False
    whole_steps: frozenset[str] = frozenset()

    def __init__(self, function: Callable[[Scope], Any], steps: Iterable[str] = ()) -> None:
        self.function = function
        self.steps = frozenset(steps)

    def resolve(self, scope: Scope) -> Any:
        return self.function(scope)

    def resolve_json(self, scope: Scope) -> str:
        return json.dumps(self.function(scope))


def raising(scope: Scope) -> Any:
    raise ExpressionError("nothing there")


def call(step_id: str, *needs: str, **more: Any) -> StepSpec:
    """A step that calls a handler named `h`."""
    more.setdefault("handler", "h")
    more.setdefault("with_", Value({}))
    return StepSpec(id=step_id, kind="call", needs=needs, **more)


def map_(step_id: str, items: Any, *needs: str, **more: Any) -> StepSpec:
    """A map over a template, a list, or a number of items."""
    if isinstance(items, int):
        items = list(range(items))
    if isinstance(items, list):
        items = Value(items)
    more.setdefault("handler", "h")
    more.setdefault("with_", Ref("item"))
    return StepSpec(id=step_id, kind="map", needs=needs, items=items, **more)


def wait(step_id: str, length: str, *needs: str, **more: Any) -> StepSpec:
    """A step that waits for a duration."""
    templates = {"wait": Value({"for": length})}
    return StepSpec(id=step_id, kind="wait", handler="", needs=needs, with_=Value({}), templates=templates, **more)


def signal(step_id: str, name: str, *needs: str, **more: Any) -> StepSpec:
    """A step that waits for a signal."""
    settings = {"signal": name, **more.pop("settings", {})}
    return StepSpec(id=step_id, kind="signal", handler="", needs=needs, with_=Value({}), settings=settings, **more)


def approval(step_id: str, *needs: str, **more: Any) -> StepSpec:
    """A step that asks people; `users`, `roles`, `needed`, `timeout`, `escalate` as in the language."""
    names = ("users", "roles", "needed", "timeout", "escalate", "message")
    said = {name: more.pop(name) for name in names if name in more} or {"users": ["ada"]}
    templates = {"approval": Value(said)}
    return StepSpec(id=step_id, kind="approval", handler="", needs=needs, with_=Value({}), templates=templates, **more)


def subflow(step_id: str, name: str, *needs: str, **more: Any) -> StepSpec:
    """A step that runs another flow; `settings` as in the language."""
    settings = {"flow": name, **more.pop("settings", {})}
    more.setdefault("with_", Value({}))
    return StepSpec(id=step_id, kind="flow", handler=f"flow:{name}", needs=needs, settings=settings, **more)


def switch(step_id: str, cases: list[tuple[Any, list[str]]], *needs: str, **more: Any) -> StepSpec:
    """A step that chooses among steps; each case is a template or a truth."""
    templates = {f"case{i}": when if hasattr(when, "resolve") else Value(when) for i, (when, _) in enumerate(cases)}
    settings = {"switch": [{"then": then} for _, then in cases], **more.pop("settings", {})}
    return StepSpec(
        id=step_id,
        kind="switch",
        handler="",
        needs=needs,
        with_=Value({}),
        templates=templates,
        settings=settings,
        **more,
    )


def emit(step_id: str, *needs: str, **more: Any) -> StepSpec:
    """A step that publishes an event."""
    more.setdefault("with_", Value({"n": 1}))
    return StepSpec(id=step_id, kind="emit", handler="", needs=needs, settings={"emit": "it.was"}, **more)


def fail(step_id: str, *needs: str, **more: Any) -> StepSpec:
    """A step that fails."""
    said = {"fail": Value({"code": "NO", "message": "not so", "retryable": True})}
    return StepSpec(id=step_id, kind="fail", handler="", needs=needs, with_=Value({}), templates=said, **more)


NO_DELAY = RetryPolicy(max_attempts=1)


def flow(*specs: StepSpec, **more: Any) -> Flow:
    """A flow of steps. Without retries unless told."""
    by_id = {spec.id: spec for spec in (*specs, *(spec.undo for spec in specs if spec.undo is not None))}
    dependants: dict[str, list[str]] = {spec.id: [] for spec in specs}
    for spec in specs:
        for need in spec.needs:
            dependants[need].append(spec.id)
    templates = [t for s in specs for t in (s.with_, *s.decided_by)]
    content = frozenset(step for t in templates for step in t.steps - t.whole_steps)
    values: dict[str, Any] = {
        "name": "test",
        "version": "1",
        "hash": "0" * 64,
        "description": "",
        "steps": specs,
        "by_id": by_id,
        "dependants": {key: tuple(value) for key, value in dependants.items()},
        "roots": tuple(spec.id for spec in specs if not spec.needs),
        "leaves": tuple(spec.id for spec in specs if not dependants[spec.id]),
        "handlers": tuple(sorted({spec.handler for spec in specs if spec.handler})),
        "content_steps": content,
        "input_schema": None,
        "output": None,
        "output_schema": None,
        "retry": NO_DELAY,
        "timeout": 30 * SECOND,
        "run_timeout": None,
        "failure_policy": "FAIL_FAST",
        "concurrency": None,
        "vars": {},
        "env": (),
        "canonical": "{}",
        "subflows": any(spec.kind == "flow" for spec in specs),
    }
    chosen = {spec.id: spec.chosen_by for spec in specs if spec.chosen_by}
    values["lane_of"], values["lanes"] = branches_of_switches({spec.id: spec.needs for spec in specs}, chosen)
    values["joins"] = {spec.id: spec.join for spec in specs if spec.join is not None}
    values["cached"] = frozenset(spec.id for spec in specs if spec.cache is not None)
    values["prioritised"] = any(spec.priority for spec in specs)
    values.update(more)
    return Flow(**values)


def create(flow: Flow, **more: Any) -> CreateRun:
    """The command that creates a run of the flow."""
    values: dict[str, Any] = {
        "context": Context(tenant="t", user_id="u", swarm_id="s", run_id=RUN_ID),
        "flow_hash": flow.hash,
        "flow_name": flow.name,
        "flow_version": flow.version,
        "input": "{}",
        "allocation": Allocation(),
        "options": Options(),
    }
    values.update(more)
    return CreateRun(**values)


class Shell:
    """Drives a run by hand: keeps its journal and the effects that follow from it."""

    def __init__(self, flow: Flow, *, auto: bool = True, **more: Any) -> None:
        self.flow = flow
        self.run = Run.fresh(RUN_ID)
        self.run.flow = flow
        self.now = START
        self.journal: list[tuple[RunEvent, int]] = []
        self.dispatched: list[DispatchAttempt] = []
        self.stops: list[StopAttempt] = []
        self.ends = 0
        self.blobs: dict[str, bytes] = {}
        self.auto = auto
        self.created = self.tell(create(flow, **more))

    def tell(self, command: RunCommand) -> Decision:
        """Decides a command, then assigns slots to whatever is ready."""
        decision = self.decide(command)
        if self.auto:
            self.assign()
        return decision

    def decide(self, command: RunCommand) -> Decision:
        """Decides a command."""
        self.now += 1
        decision = decide(self.run, command, self.now)
        self.blobs.update(decision.blobs)
        self.note(decision.events)
        return decision

    def act(self, what: Callable[[Turn], None]) -> None:
        """Does something within a decision that no command asks for."""
        self.now += 1
        turn = Turn(self.run, self.now)
        what(turn)
        self.note(turn.events)

    def note(self, events: Iterable[RunEvent]) -> None:
        """Journals events, and keeps the effects that follow from them."""
        for event in events:
            self.journal.append((event, self.now))
            for effect in react(self.run, event):
                if isinstance(effect, DispatchAttempt):
                    self.dispatched.append(effect)
                elif isinstance(effect, StopAttempt):
                    self.stops.append(effect)
                elif isinstance(effect, ReportEnd):
                    self.ends += 1

    def assign(self) -> None:
        """Gives a slot to every step that may start."""
        for handler in list(self.run.ready_handlers()):
            while (step_id := self.run.next_ready(handler)) is not None:
                child = f"{RUN_ID[:-4]}{len(self.journal):04x}" if handler.startswith("flow:") else ""
                self.decide(AssignSlot(step_id=step_id, executor_id="e1", child_run_id=child))

    def attempt_id(self, step_id: str) -> str:
        return self.run.steps[step_id].attempt_id

    def complete(self, step_id: str, output: Payload | None = "1", **more: Any) -> Decision:
        """Reports that the present attempt of a step completed."""
        more.setdefault("usage", Usage(credits=5))
        return self.tell(
            ReportResult(
                attempt_id=self.attempt_id(step_id), state="COMPLETED", output=output, started_at=self.now, **more
            )
        )

    def fail(self, step_id: str, code: str = "HANDLER_FAILED", *, retryable: bool = False, **more: Any) -> Decision:
        """Reports that the present attempt of a step failed."""
        failure = Failure(code=code, message="it broke", retryable=retryable, **more)
        return self.tell(
            ReportResult(
                attempt_id=self.attempt_id(step_id),
                state="FAILED",
                failure=failure,
                started_at=self.now,
                usage=Usage(credits=7),
            )
        )

    def cancelled(self, step_id: str) -> Decision:
        """Reports that the present attempt of a step was stopped."""
        return self.tell(ReportResult(attempt_id=self.attempt_id(step_id), state="CANCELLED", usage=Usage(credits=3)))

    def state(self, step_id: str) -> str:
        return self.run.steps[step_id].state

    def states(self) -> dict[str, str]:
        return {step.id: step.state for step in self.run.steps.values()}

    def folded(self) -> Run:
        """The run as its journal tells it."""
        return fold(self.flow, self.journal)

    def events(self, kind: type | None = None) -> list[Any]:
        return [event for event, _ in self.journal if kind is None or isinstance(event, kind)]

    def check(self) -> None:
        """V12: the journal gives the state that is in memory."""
        assert dump(self.folded()) == dump(self.run)


def fold(flow: Flow, journal: Iterable[tuple[RunEvent, int]]) -> Run:
    run = Run.fresh(RUN_ID)
    run.flow = flow
    for event, time in journal:
        evolve(run, event, time)
    return run
