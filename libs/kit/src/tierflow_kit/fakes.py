"""Stand-ins for handlers: what each answers to which attempt, and how long that takes on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import PlainScope
from tierflow_expressions.templates import CompiledTemplate
from tierflow_runtime.catalogue import CATALOGUE
from tierflow_runtime.values import Failure, Micros

ALWAYS = 1 << 62
"""How often a fake answers that is not limited."""


class FakeError(Exception):
    """A rehearsal cannot go on: a handler without a fake, or a fake that is wrong. The text says what to write."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a step, as its handler sees it."""

    handler: str
    step: str
    """Id of the step; of an item of a map such as `search[2]`."""
    number: int
    """From 1."""
    input: Any
    at: Micros
    """When it began, microseconds after the start of the rehearsal."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of an attempt: an output, a failure, a lost executor, or nothing at all."""

    output: Any = None
    failure: Failure | None = None
    after: Micros = 0
    lost: bool = False
    """The executor is gone, and nobody knows how the attempt ended."""
    silent: bool = False
    """It never answers: a timeout ends it, or a cancel."""
    degraded: bool = False
    credits: int = 0
    """Micro-credits that the attempt spent."""
    logs: tuple[str, ...] = ()
    """Lines that a real handler wrote."""


Respond: TypeAlias = Callable[[Attempt], Answer]


@dataclass(slots=True)
class Fake:
    """One rule of a handler: how it answers, for which attempts, how often."""

    respond: Respond
    when: CompiledTemplate | None = None
    times: int = ALWAYS
    used: int = 0

    def takes(self, attempt: Attempt) -> bool:
        """Whether it answers this attempt."""
        if self.used >= self.times:
            return False
        return self.when is None or bool(self.when.resolve(scope_of(attempt)))


def scope_of(attempt: Attempt) -> PlainScope:
    """What expressions in fakes see: `input`, and of the attempt `run.step`, `run.attempt`, `run.handler`."""
    facts = {"step": attempt.step, "attempt": attempt.number, "handler": attempt.handler}
    return PlainScope({"input": attempt.input, "run": facts})


def failure(
    code: str, message: str = "", *, retryable: bool | None = None, retry_after: Micros | None = None
) -> Failure:
    """A failure as a handler reports it. Whether trying again helps is as the catalogue says of the code, of other codes: yes."""
    if retryable is None:
        known = CATALOGUE.get(code)
        retryable = known.retryable if known is not None else True
    return Failure(code=code, message=message or f"{code}, says a fake", retryable=retryable, retry_after=retry_after)


def templated(template: CompiledTemplate, answer: Answer) -> Respond:
    """Answers with the template's value, filled in from the attempt's input."""

    def respond(attempt: Attempt) -> Answer:
        try:
            output = template.resolve(scope_of(attempt))
        except ExpressionError as error:
            raise FakeError(f"the fake of {attempt.handler} cannot answer {attempt.step}: {error}") from None
        return Answer(output=output, after=answer.after, degraded=answer.degraded, credits=answer.credits)

    return respond


def fixed(answer: Answer) -> Respond:
    """Always the same answer."""
    return lambda attempt: answer


def _echo(attempt: Attempt) -> Answer:
    return Answer(output=attempt.input)


def _sleep(attempt: Attempt) -> Answer:
    seconds = attempt.input.get("seconds", 0) if isinstance(attempt.input, dict) else 0
    return Answer(output=None, after=round(seconds * 1_000_000))


class Fakes:
    """The fakes of one rehearsal, by step and by handler. `echo` and `sleep` are there unless others take their place."""

    def __init__(self) -> None:
        self._of_handlers: dict[str, list[Fake]] = {}
        self._of_steps: dict[str, list[Fake]] = {}
        self._built_in: Mapping[str, Respond] = {"echo": _echo, "sleep": _sleep}

    def of_handler(self, name: str, fake: Fake) -> None:
        """A further rule for a handler; the first that takes an attempt answers it."""
        self._of_handlers.setdefault(name, []).append(fake)

    def of_step(self, step_id: str, fake: Fake) -> None:
        """A further rule for one step (of a map: for all its items); rules of steps come before rules of handlers."""
        self._of_steps.setdefault(step_id, []).append(fake)

    def has(self, attempt: Attempt, definition: str) -> bool:
        """Whether there is a rule that may answer it."""
        return bool(
            self._of_steps.get(attempt.step) or self._of_steps.get(definition) or self._of_handlers.get(attempt.handler)
        )

    def below(self) -> Fakes:
        """The fakes for a run of another flow: those of handlers, counted together with this one's."""
        made = Fakes()
        made._of_handlers = self._of_handlers
        return made

    def answer(self, attempt: Attempt, definition: str) -> Answer:
        """What comes of an attempt at a step of that definition. Raises `FakeError` where nobody says."""
        places = (
            self._of_steps.get(attempt.step),
            self._of_steps.get(definition),
            self._of_handlers.get(attempt.handler),
        )
        for rules in places:
            for rule in rules or ():
                if _asked(rule, attempt):
                    rule.used += 1
                    return rule.respond(attempt)
        built_in = self._built_in.get(attempt.handler)
        if built_in is not None and not self._of_handlers.get(attempt.handler):
            return built_in(attempt)
        raise FakeError(self._nobody(attempt))

    def _nobody(self, attempt: Attempt) -> str:
        what = f"step {attempt.step} calls {attempt.handler}, attempt {attempt.number}, with {attempt.input!r:.200}"
        if attempt.handler in self._of_handlers:
            return f"{what}: all its fakes are used up or take other inputs"
        return f"{what}: it has no fake; give it one under handlers, such as {attempt.handler}: {{output: {{}}}}"


def _asked(rule: Fake, attempt: Attempt) -> bool:
    try:
        return rule.takes(attempt)
    except ExpressionError as error:
        raise FakeError(f"when of a fake of {attempt.handler}, asked for {attempt.step}: {error}") from None
