"""Shapes of values that only some kinds of steps have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tierflow_expressions.holes import OPEN, normal_text

from tierflow_flow.durations import PATTERN, canonical_duration
from tierflow_flow.limits import MAX_CALLS, MAX_CASES, MAX_DESCRIPTION, MAX_RULES, MAX_RUN_TIMEOUT, MAX_STEPS
from tierflow_flow.moments import parse_moment
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, section
from tierflow_flow.shapes import INVALID, Choice, Condition, Duration, Number, Text, Texts, in_order, refuse

_HOLE = {"type": "string", "pattern": r"^\s*\$\{\{[\s\S]*\}\}\s*$"}


def is_hole(value: Any) -> bool:
    """Whether it is to be read as one expression."""
    return isinstance(value, str) and value.strip().startswith(OPEN)


@dataclass(frozen=True)
class WaitFor:
    """A duration, or a mapping with `for` or `until`. Its normal form is the mapping; durations in it are canonical texts."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        duration = {"anyOf": [{"type": "string", "pattern": PATTERN}, _HOLE]}
        properties = {"for": duration, "until": {"type": "string"}}
        mapping = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"anyOf": [*duration["anyOf"], {**mapping, "minProperties": 1, "maxProperties": 1}]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The mapping."""
        if not isinstance(value, dict):
            found = self._duration(value, place, problems)
            return found if found is INVALID else {"for": found}
        if len(value) != 1 or not value.keys() <= {"for", "until"}:
            problems.add(place, "expected a duration, or a mapping with for or until")
            return INVALID
        name, item = next(iter(value.items()))
        read = self._duration if name == "for" else self._moment
        found = read(item, (*place, name), problems)
        return found if found is INVALID else {name: found}

    def _duration(self, value: Any, place: Place, problems: Problems) -> Any:
        if is_hole(value):
            return normal_text(value.strip())
        micros = Duration(0, MAX_RUN_TIMEOUT).read(value, place, problems)
        return micros if micros is INVALID else canonical_duration(micros)

    def _moment(self, value: Any, place: Place, problems: Problems) -> Any:
        if is_hole(value):
            return normal_text(value.strip())
        if not isinstance(value, str):
            return refuse("text with a moment", value, place, problems)
        try:
            parse_moment(value)
        except ValueError as error:
            problems.add(place, str(error))
            return INVALID
        return value


@dataclass(frozen=True)
class DurationText:
    """A duration within a template: its normal form is canonical text."""

    least: int
    most: int

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "string", "pattern": PATTERN}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """Canonical text."""
        micros = Duration(self.least, self.most).read(value, place, problems)
        return micros if micros is INVALID else canonical_duration(micros)


class Cases:
    """The cases of a switch: a list of mappings with `if` and `then`."""

    def __init__(self, step: Text) -> None:
        self._case = section(
            Key("if", Condition(), "Whether it is this case.", required=True),
            Key("then", Texts(step), "The steps that run then.", required=True),
        )

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "array", "items": self._case.schema, "minItems": 1, "maxItems": MAX_CASES}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The cases, of those that could be read."""
        if not isinstance(value, list):
            return refuse("a list of cases", value, place, problems)
        if not 0 < len(value) <= MAX_CASES:
            problems.add(place, f"must have from 1 to {MAX_CASES} cases")
            return INVALID
        read = [self._case.read(case, (*place, index), problems) for index, case in enumerate(value)]
        whole = [case for case in read if case is not INVALID and case.keys() == {"if", "then"}]
        return whole if len(whole) == len(value) else INVALID


class JoinRule:
    """How many needed steps must complete: `all`, `any`, `majority`, or `{at_least: n}`; `of` names those that count, where these are not all under `needs`.

    Its normal form is the word, or the mapping. What the words mean in numbers, and `of`, is filled in where the steps needed are known.
    """

    def __init__(self, step: Text) -> None:
        self._words = Choice(JOIN_WORDS)
        self._counted = section(
            Key("at_least", Number(1, MAX_STEPS, whole=True), "How many must complete.", required=True),
            Key("of", Texts(step), "Of which; without it, of all under needs."),
        )

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [self._words.schema, self._counted.schema]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The word, or the mapping."""
        if isinstance(value, dict):
            read = self._counted.read(value, place, problems)
            return read if read is not INVALID and "at_least" in read else INVALID
        return self._words.read(value, place, problems)


JOIN_WORDS = ("all", "any", "majority")


def counted_join(rule: Any, needs: list[str]) -> dict[str, Any]:
    """The normal form of a join that is not `all`, in numbers, of a step with these needs."""
    given = rule if isinstance(rule, dict) else {}
    of = sorted(given.get("of", needs))
    least = {"any": 1, "majority": len(of) // 2 + 1}
    return {"at_least": given["at_least"] if given else least[rule], "of": of}


@dataclass(frozen=True)
class CountOrItems:
    """A number of iterations, an array, or one expression that gives either."""

    most: int

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": self.most}, {"type": "array"}, _HOLE]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The number, array or expression."""
        if isinstance(value, str) and is_hole(value):
            return normal_text(value.strip())
        if isinstance(value, list):
            return in_order(value, normal_text)
        if isinstance(value, bool) or not isinstance(value, int):
            return refuse("a number, a list or one ${{ }} expression", value, place, problems)
        return Number(0, self.most, whole=True).read(value, place, problems)


class Then:
    """What follows where a handler step has completed: a word, or one expression that gives it."""

    words = Choice(("continue", "retry", "stop"))

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [self.words.schema, _HOLE]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The word or the expression."""
        return normal_text(value.strip()) if is_hole(value) else self.words.read(value, place, problems)


class Grows:
    """Whether a step may return further steps: true, or the handlers that they may call. The normal form of the second is a list."""

    def __init__(self, handler: Text) -> None:
        self._handlers = Texts(handler)

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [{"type": "boolean"}, *self._handlers.schema["anyOf"]]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The flag or the list."""
        return value if isinstance(value, bool) else self._handlers.read(value, place, problems)


class OnError:
    """`stop`, `continue`, `retry`, or a mapping with `goto`. The normal form of the mapping has all its keys."""

    words = Choice(("stop", "continue", "retry"))

    def __init__(self, step: Text) -> None:
        self._goto = section(
            Key("goto", step, "The step that handles the failure; it runs only when called for.", required=True),
            Key("then", Then(), "What follows once it has completed; continue: its output stands.", default="continue"),
            Key("calls", Number(1, MAX_CALLS, whole=True), "Most calls of the handler for one step.", default=3),
        )

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [self.words.schema, self._goto.schema]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The word or the whole mapping."""
        if not isinstance(value, dict):
            return self.words.read(value, place, problems)
        read = self._goto.read(value, place, problems)
        return read if read is INVALID or "goto" not in read else {"then": "continue", "calls": 3, **read}


class Rules:
    """Rules for a step's output: a list of expressions, or of mappings with `rule`, `message` and `on_fail`. Its normal form is the list of mappings, in full."""

    def __init__(self) -> None:
        self._rule = section(
            Key("rule", Condition(), "What must be true; output is what the handler returned.", required=True),
            Key("message", Text(MAX_DESCRIPTION, 1), "What is wrong where it is not."),
            Key(
                "on_fail",
                Choice(("retry", "fail", "warn")),
                "retry: the attempt fails, as with other failures another may follow. fail: no other follows. warn: it is noted.",
                default="retry",
            ),
        )

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        rule = {"anyOf": [Condition().schema, self._rule.schema]}
        return {"type": "array", "items": rule, "minItems": 1, "maxItems": MAX_RULES}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The rules, of those that could be read."""
        if not isinstance(value, list):
            return refuse("a list of rules", value, place, problems)
        if not 0 < len(value) <= MAX_RULES:
            problems.add(place, f"must have from 1 to {MAX_RULES} rules")
            return INVALID
        read = [self._one(rule, (*place, index), problems) for index, rule in enumerate(value)]
        return INVALID if INVALID in read else read

    def _one(self, value: Any, place: Place, problems: Problems) -> Any:
        given = value if isinstance(value, dict) else {"rule": value}
        read = self._rule.read(given, place, problems)
        if read is INVALID or "rule" not in read:
            return INVALID
        told = f"does not keep the rule {read['rule'][3:-2].strip()}"
        return {"message": told, "on_fail": "retry", **read}


@dataclass(frozen=True)
class ValueMap:
    """Values, with or without `${{ }}` holes, by name."""

    key: Text

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "object", "propertyNames": self.key.schema, "minProperties": 1, "maxProperties": MAX_CASES}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The values, their keys sorted."""
        if not isinstance(value, dict) or not 0 < len(value) <= MAX_CASES:
            return refuse(f"a mapping with 1 to {MAX_CASES} names", value, place, problems)
        for name in value:
            self.key.read(name, (*place, name), problems)
        return in_order(value, normal_text)
