"""What names stand for: variables, functions and labels, each binding a thin layer over the one around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.values import get

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation

Name = tuple[str, int]


class Bound:
    """A function as it is known at some place: its body with what it can see, or an argument of another function."""

    __slots__ = ("body", "closure", "env", "parameters", "self_name")

    def __init__(self, function: s.Function | None, closure: s.Node | None, env: Env) -> None:
        self.closure = closure
        self.env = env
        self.parameters = function.parameters if function else ()
        self.body: s.Node = function.body if function else s.Identity()
        self.self_name: Name = (function.name, len(function.parameters)) if function else ("", 0)

    def called(self, arguments: tuple[s.Node, ...], caller: Env) -> Env:
        """What the body sees when it is called: itself and its arguments, with the caller's names."""
        functions: dict[Name, Bound] = {self.self_name: self}
        for name, argument in zip(self.parameters, arguments, strict=True):
            functions[name, 0] = Bound(None, argument, caller)
        return Env(self.env, functions=functions, calls=caller.calls + 1)


class Env:
    """Names, as seen from one place."""

    __slots__ = ("_around", "_functions", "_labels", "_variables", "calls")

    def __init__(
        self,
        around: Env | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        functions: Mapping[Name, Bound] | None = None,
        labels: Mapping[str, object] | None = None,
        calls: int | None = None,
    ) -> None:
        self._around = around
        self._variables = variables
        self._functions = functions
        self._labels = labels
        outer: int = 0 if around is None else around.calls
        self.calls: int = outer if calls is None else calls

    def variable(self, name: str) -> Any:
        """The value of a variable. Raises `JqError`."""
        env: Env | None = self
        while env is not None:
            if env._variables is not None and name in env._variables:
                return env._variables[name]
            env = env._around
        raise JqError(f"${name} is not defined")

    def function(self, name: Name) -> Bound | None:
        """A function that is not a builtin."""
        env: Env | None = self
        while env is not None:
            if env._functions is not None and name in env._functions:
                return env._functions[name]
            env = env._around
        return None

    def label(self, name: str) -> object:
        """The mark of a label. Raises `JqError`."""
        env: Env | None = self
        while env is not None:
            if env._labels is not None and name in env._labels:
                return env._labels[name]
            env = env._around
        raise JqError(f"$*label-{name} is not defined")

    def with_variables(self, variables: Mapping[str, Any]) -> Env:
        """These names, and variables on top."""
        return Env(self, variables=variables)

    def with_function(self, function: s.Function) -> Env:
        """These names, and a function on top."""
        bound = Bound(function, None, self)
        return Env(self, functions={bound.self_name: bound})

    def with_label(self, name: str, mark: object) -> Env:
        """These names, and a label on top."""
        return Env(self, labels={name: mark})


def bind(evaluation: Evaluation, pattern: s.Pattern, env: Env, value: Any) -> Iterator[Env]:
    """The names with a pattern bound to a value; several where a key of the pattern yields several. Raises `JqError`."""
    if isinstance(pattern, s.NamePattern):
        yield env.with_variables({pattern.name: value})
    elif isinstance(pattern, s.ArrayPattern):
        if value is not None and not isinstance(value, list):
            raise JqError(f"Cannot index {type(value).__name__} with number")
        yield from _bind_items(evaluation, pattern.items, 0, env, value)
    else:
        yield from _bind_entries(evaluation, pattern.entries, 0, env, value)


def _bind_items(
    evaluation: Evaluation, items: tuple[s.Pattern, ...], place: int, env: Env, value: Any
) -> Iterator[Env]:
    if place == len(items):
        yield env
        return
    for inner in bind(evaluation, items[place], env, get(value, place)):
        yield from _bind_items(evaluation, items, place + 1, inner, value)


def _bind_entries(
    evaluation: Evaluation, entries: tuple[tuple[s.Node, str, s.Pattern | None], ...], place: int, env: Env, value: Any
) -> Iterator[Env]:
    if place == len(entries):
        yield env
        return
    key_node, name, pattern = entries[place]
    for key in evaluation.values(key_node, env, value):
        if not isinstance(key, str):
            raise JqError("Cannot index object with a key that is no string")
        found = get(value, key)
        inner = env.with_variables({name: found}) if name else env
        for bound in (inner,) if pattern is None else bind(evaluation, pattern, inner, found):
            yield from _bind_entries(evaluation, entries, place + 1, bound, value)
