"""All functions that jq expressions may call, by name and number of arguments. None reads a file, a clock of its own, the environment or the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, Final

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.arrays import ARRAYS
from tierflow_flow.jq.binding import Bound, Env
from tierflow_flow.jq.control import CONTROL
from tierflow_flow.jq.evaluate import Evaluation, Results
from tierflow_flow.jq.mathematics import MATHEMATICS
from tierflow_flow.jq.moments import MOMENTS
from tierflow_flow.jq.prelude import PRELUDE
from tierflow_flow.jq.strings import STRINGS
from tierflow_flow.jq.values import Path

Name = tuple[str, int]
Builtin = Callable[[Evaluation, tuple[s.Node, ...], Env, Path | None, Any], Results]


def _plain(function: Callable[..., Any]) -> Builtin:
    """A builtin that makes one value of its input and of one value of each argument; the last argument varies slowest."""

    def call(ev: Evaluation, arguments: tuple[s.Node, ...], env: Env, path: Path | None, value: Any) -> Results:
        if not arguments:
            yield ev.made(path, value, function(ev, value))
            return
        listed = [list(ev.values(argument, env, value)) for argument in reversed(arguments)]
        for given in product(*listed):
            yield ev.made(path, value, function(ev, value, *reversed(given)))

    return call


def _defined(function: s.Function) -> Builtin:
    """A builtin that is written in jq."""
    bound = Bound(function, None, Env())

    def call(ev: Evaluation, arguments: tuple[s.Node, ...], env: Env, path: Path | None, value: Any) -> Results:
        return ev.run(bound.body, bound.called(arguments, env), path, value)

    return call


def _all() -> Iterator[tuple[Name, Builtin]]:
    for table in (ARRAYS, STRINGS, MATHEMATICS, MOMENTS):
        for name, function in table.items():
            yield name, _plain(function)
    for definition in PRELUDE:
        yield (definition.name, len(definition.parameters)), _defined(definition)
    yield from CONTROL.items()


BUILTINS: Final[Mapping[Name, Builtin]] = dict(_all())
