"""Test files: cases beside a flow, as data. Reading says everything that is wrong at once, as it does for flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierflow_expressions.expressions import Expression
from tierflow_expressions.templates import CompiledTemplate, ConditionTemplate, compile_template
from tierflow_flow import Flow, FlowError
from tierflow_flow.definition import Problem
from tierflow_flow.paths import definition_path
from tierflow_flow.problems import Place, Problems
from tierflow_flow.source import read_document
from tierflow_runtime.values import Allocation, Micros

from tierflow_kit import fakes
from tierflow_kit.case_keys import TESTS
from tierflow_kit.fakes import ALWAYS, Answer, Fake, Fakes, Respond
from tierflow_kit.rehearsal import START, Setting
from tierflow_kit.sources import form_of, load, read_text

SUFFIX = ".test"
FLOW_ENDINGS = (".yaml", ".yml", ".json")
_READABLE = ("input", "run")


@dataclass(frozen=True, slots=True)
class Rule:
    """A fake as it is written; each rehearsal makes one of its own, as fakes count."""

    respond: Respond
    when: CompiledTemplate | None
    times: int

    def fresh(self) -> Fake:
        """One that has answered nothing yet."""
        return Fake(self.respond, self.when, self.times)


Rules = Mapping[str, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: what is given, what happens from outside, what is expected."""

    name: str
    line: int
    input: Any
    handlers: tuple[Rules, ...]
    """Rules of the case, then those of the file."""
    steps: tuple[Rules, ...]
    actions: tuple[Mapping[str, Any], ...]
    expect: Mapping[str, Any]
    until: Micros | None
    setting: Setting

    def fakes(self) -> Fakes:
        """Its fakes, with nothing answered yet."""
        made = Fakes()
        for add, levels in ((made.of_handler, self.handlers), (made.of_step, self.steps)):
            for level in levels:
                for name, rules in level.items():
                    for rule in rules:
                        add(name, rule.fresh())
        return made


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A test file that was read, with its flow."""

    path: Path
    flow_path: Path
    flow: Flow
    cases: tuple[Case, ...] = field(default_factory=tuple)


def cases_beside(path: Path) -> Path | None:
    """The test file beside a flow; a test file is its own. None where there is none."""
    if path.stem.endswith(SUFFIX):
        return path
    places = [path.with_name(f"{path.stem}{SUFFIX}{ending}") for ending in FLOW_ENDINGS]
    return next((place for place in places if place.exists()), None)


def read_cases(path: Path) -> CaseFile:
    """Read a test file and its flow. Raises `FlowError` with everything that is wrong with the test file, `OSError`; of the flow: `FlowError` as well."""
    document = read_document(read_text(path), form_of(path))
    problems = Problems(document.lines)
    for place, description in document.problems:
        problems.add(place, description)
    read = TESTS.read(document.value, (), problems)
    problems.raise_if_any()
    flow_path = _flow_path(path, read)
    reader = _Reader(problems, read, path.parent)
    cases = tuple(reader.case(case, ("cases", index)) for index, case in enumerate(read["cases"]))
    if not cases:
        problems.add(("cases",), "there is no case")
    problems.raise_if_any()
    flow = _flow_at(flow_path)
    _check_names(flow, reader.flows, read, problems)
    problems.raise_if_any()
    return CaseFile(path, flow_path, flow, cases)


def _flow_path(path: Path, read: Mapping[str, Any]) -> Path:
    if "flow" in read:
        named = path.parent / str(read["flow"])
        if not named.exists():
            raise FlowError([Problem("flow", f"there is no file {named}")])
        return named
    stem = path.stem.removesuffix(SUFFIX)
    for ending in FLOW_ENDINGS:
        beside = path.with_name(stem + ending)
        if beside != path and beside.exists():
            return beside
    raise FlowError([Problem("flow", f"no {stem}.yaml beside it; say under flow where the flow is")])


def _flow_at(path: Path) -> Flow:
    try:
        return load(path)
    except FlowError as error:
        first = error.problems[0]
        more = f" and {len(error.problems) - 1} more" if len(error.problems) > 1 else ""
        said = f"{path} is not valid, line {first.line}: {first.path}: {first.description}{more}"
        raise FlowError([Problem("flow", said)]) from None


class _Reader:
    """Makes cases of what was read."""

    def __init__(self, problems: Problems, read: Mapping[str, Any], directory: Path) -> None:
        self.problems = problems
        self.directory = directory
        self.read = read
        self.flows = {
            name: flow for name, path in read.get("flows", {}).items() if (flow := self.load(path, ("flows", name)))
        }
        self.handlers = self.rules(read.get("handlers", {}), ("handlers",))
        self.steps = self.rules(read.get("steps", {}), ("steps",))

    def case(self, keys: Mapping[str, Any], place: Place) -> Case:
        """A case."""
        env = {**self.read.get("env", {}), **keys.get("env", {})}
        setting = Setting(
            start=keys.get("start", START),
            env=env,
            labels=keys.get("labels", {}),
            allocation=Allocation(**keys.get("limits", {})),
            flows=self.flows,
        )
        return Case(
            name=keys["name"],
            line=self.problems.line((*place, "name")),
            input=keys.get("input", {}),
            handlers=(self.rules(keys.get("handlers", {}), (*place, "handlers")), self.handlers),
            steps=(self.rules(keys.get("steps", {}), (*place, "steps")), self.steps),
            actions=tuple(
                self.action(action, (*place, "do", index)) for index, action in enumerate(keys.get("do", ()))
            ),
            expect=keys["expect"],
            until=keys.get("until"),
            setting=setting,
        )

    def action(self, keys: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """What somebody does; a version to go on with is read from its file."""
        if "migrate" not in keys:
            return keys
        other = self.load(keys["migrate"], (*place, "migrate"))
        return keys if other is None else {**keys, "migrate": other}

    def load(self, name: str, place: Place) -> Flow | None:
        """The flow in a file that the test file names; None where there is none, which is told."""
        path = self.directory / name
        try:
            return load(path)
        except FileNotFoundError:
            self.problems.add(place, f"there is no file {path}")
        except FlowError as error:
            first = error.problems[0]
            self.problems.add(place, f"{path} is not valid, line {first.line}: {first.description}")
        return None

    def rules(self, given: Mapping[str, Any], place: Place) -> Rules:
        """The rules of some handlers or steps."""
        return {
            name: tuple(self.rule(keys, (*place, name, index)) for index, keys in enumerate(rules))
            for name, rules in given.items()
        }

    def rule(self, keys: Mapping[str, Any], place: Place) -> Rule:
        """One rule."""
        when = self.template(keys["when"], (*place, "when"), ConditionTemplate) if "when" in keys else None
        return Rule(self.respond(keys, place), when, keys.get("times", ALWAYS))

    def respond(self, keys: Mapping[str, Any], place: Place) -> Respond:
        failure = keys.get("fail")
        if failure is not None:
            given = {name: failure[name] for name in ("message", "retryable", "retry_after") if name in failure}
            failure = fakes.failure(failure["code"], **given)
        answer = Answer(
            failure=failure,
            after=keys.get("after", 0),
            lost=keys.get("lost", False),
            silent=keys.get("silent", False),
            degraded=keys.get("degraded", False),
            credits=keys.get("credits", 0),
        )
        if "output" not in keys:
            return fakes.fixed(answer)
        return fakes.templated(self.template(keys["output"], (*place, "output"), CompiledTemplate), answer)

    def template(self, source: Any, place: Place, as_: type[CompiledTemplate]) -> CompiledTemplate:
        def report(path: Place, description: str) -> None:
            self.problems.add((*place, *path), description)

        def visit(path: Place, expression: Expression) -> None:
            for reference in expression.references:
                if reference.name not in _READABLE:
                    self.problems.add(
                        (*place, *path), f"{reference.name} is not there; fakes see input, run.step, run.attempt"
                    )

        return compile_template(source, report, visit, as_=as_)


def _check_names(flow: Flow, below: Mapping[str, Flow], read: Mapping[str, Any], problems: Problems) -> None:
    """What is faked must be there."""
    called = {*flow.called, *(name for other in below.values() for name in other.called)}
    levels: list[tuple[Place, Mapping[str, Any]]] = [((), read)]
    levels += [(("cases", index), case) for index, case in enumerate(read["cases"])]
    for place, level in levels:
        _check_level(flow, called, level, place, problems)


def _check_level(flow: Flow, called: Iterable[str], level: Mapping[str, Any], place: Place, problems: Problems) -> None:
    for name in _missing(level.get("handlers", {}), called):
        problems.add((*place, "handlers", name), f"no step calls {name}{problems.hint(name, called)}")
    expected = level.get("expect", {})
    for where, names in ((("steps",), level.get("steps", {})), (("expect", "steps"), expected.get("steps", {}))):
        for name in _missing(_told_before(flow, names), flow.by_id):
            problems.add((*place, *where, name), f"unknown step {name!r}{problems.hint(name, flow.by_id)}")
    for name in _missing(expected.get("calls", {}), called):
        problems.add((*place, "expect", "calls", name), f"no step calls {name}{problems.hint(name, called)}")


def _missing(names: Iterable[str], known: Iterable[str]) -> list[str]:
    there = set(known)
    return [name for name in dict.fromkeys(names) if name not in there]


def _told_before(flow: Flow, names: Iterable[str]) -> list[str]:
    """The paths of these steps, without those that may grow while the run is under way."""
    paths = [definition_path(name) for name in names]
    growing = {spec.id for spec in flow.steps if spec.grows is not None}
    return [path for path in paths if path.partition("/")[0] not in growing or path in growing]
