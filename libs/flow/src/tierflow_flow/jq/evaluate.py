"""Evaluates jq's tree with generators, each step counted.

One evaluation yields pairs of a path and a value. The path is None unless paths are wanted (`path(f)`, assignments): then every value has the path by which
it was reached, and what reaches none is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.binding import Env, bind
from tierflow_flow.jq.budget import MAX_CALLS, Budget
from tierflow_flow.jq.errors import Break, JqError, JqLimit
from tierflow_flow.jq.operators import BINARY, add
from tierflow_flow.jq.values import (
    NOWHERE,
    Path,
    below,
    cut,
    delete_path,
    get,
    get_path,
    is_number,
    order_key,
    set_path,
    shown,
    truthy,
)

Found: TypeAlias = tuple[Path | None, Any]
Results: TypeAlias = Iterator[Found]


class Evaluation:
    """One evaluation: its budget, the moment that `now` answers with, and how each kind of node is evaluated."""

    __slots__ = ("budget", "now")

    def __init__(self, budget: Budget, now: float | None) -> None:
        self.budget = budget
        self.now = now

    def run(self, node: s.Node, env: Env, path: Path | None, value: Any) -> Results:
        """What a node yields for an input."""
        budget = self.budget
        budget.steps -= 1
        if budget.steps < 0:
            budget.step(0)
        return _RUN[type(node)](self, node, env, path, value)

    def values(self, node: s.Node, env: Env, value: Any) -> Iterator[Any]:
        """The values alone, where paths are of no interest."""
        return (found for _, found in self.run(node, env, None, value))

    # Paths and literals.

    def identity(self, node: s.Identity, env: Env, path: Path | None, value: Any) -> Results:
        """`.`."""
        yield path, value

    def literal(self, node: s.Literal, env: Env, path: Path | None, value: Any) -> Results:
        """A constant."""
        yield self.made(path, value, node.value)

    def made(self, path: Path | None, old: Any, new: Any) -> Found:
        """A value that was made of another, and so is nowhere; one that is the same is where it was."""
        if path is None or new is old:
            return path, new
        return NOWHERE, new

    def recurse(self, node: s.Recurse, env: Env, path: Path | None, value: Any) -> Results:
        """`..`."""
        waiting: list[Found] = [(path, value)]
        while waiting:
            at, found = waiting.pop()
            self.budget.step()
            yield at, found
            if isinstance(found, list | dict) and found:
                waiting.extend(reversed(list(self.items(at, found))))

    def items(self, path: Path | None, value: Any) -> Results:
        """What `.[]` yields."""
        if isinstance(value, list):
            pairs: Any = enumerate(value)
        elif isinstance(value, dict):
            pairs = value.items()
        else:
            raise JqError(f"Cannot iterate over {shown(value)}")
        for key, item in pairs:
            self.budget.step()
            yield below(path, key, value), item

    def each(self, node: s.Each, env: Env, path: Path | None, value: Any) -> Results:
        """`target[]`."""
        for at, target in self.run(node.target, env, path, value):
            yield from self.items(at, target)

    def index(self, node: s.Index, env: Env, path: Path | None, value: Any) -> Results:
        """`target[key]`."""
        for at, target in self.run(node.target, env, path, value):
            if isinstance(node.key, s.Literal):
                key = node.key.value
                yield below(at, key, target), get(target, key)
                continue
            for key in self.values(node.key, env, value):
                yield below(at, key, target), get(target, key)

    def slice(self, node: s.Slice, env: Env, path: Path | None, value: Any) -> Results:
        """`target[start:stop]`."""
        for at, target in self.run(node.target, env, path, value):
            for stop in self.values(node.stop, env, value) if node.stop is not None else (None,):
                for start in self.values(node.start, env, value) if node.start is not None else (None,):
                    part = cut(target, start, stop)
                    self.budget.make(len(part or ()))
                    yield below(at, {"start": start, "end": stop}, target), part

    # Joining.

    def pipe(self, node: s.Pipe, env: Env, path: Path | None, value: Any) -> Results:
        """`left | right`."""
        for at, found in self.run(node.left, env, path, value):
            yield from self.run(node.right, env, at, found)

    def comma(self, node: s.Comma, env: Env, path: Path | None, value: Any) -> Results:
        """`left, right`."""
        yield from self.run(node.left, env, path, value)
        yield from self.run(node.right, env, path, value)

    def negate(self, node: s.Negate, env: Env, path: Path | None, value: Any) -> Results:
        """`-value`."""
        for found in self.values(node.value, env, value):
            if not is_number(found):
                raise JqError(f"{shown(found)} cannot be negated")
            yield self.made(path, value, -found)

    def binary(self, node: s.Binary, env: Env, path: Path | None, value: Any) -> Results:
        """Arithmetic and comparison; the right side varies slowest."""
        operate = BINARY[node.op]
        for right in self.values(node.right, env, value):
            for left in self.values(node.left, env, value):
                yield self.made(path, value, operate(left, right, self.budget))

    def logic(self, node: s.Logic, env: Env, path: Path | None, value: Any) -> Results:
        """`and`, `or`."""
        decided = node.op == "or"
        for left in self.values(node.left, env, value):
            for right in (decided,) if truthy(left) == decided else self.values(node.right, env, value):
                yield self.made(path, value, truthy(right))

    def alternative(self, node: s.Alternative, env: Env, path: Path | None, value: Any) -> Results:
        """`left // right`: what is true of the left side; where nothing is, the right side."""
        some = False
        for at, found in self.run(node.left, env, path, value):
            if truthy(found):
                some = True
                yield at, found
        if not some:
            yield from self.run(node.right, env, path, value)

    def condition(self, node: s.If, env: Env, path: Path | None, value: Any) -> Results:
        """`if`."""
        for decided in self.values(node.condition, env, value):
            yield from self.run(node.yes if truthy(decided) else node.no, env, path, value)

    def attempt(self, node: s.Try, env: Env, path: Path | None, value: Any) -> Results:
        """`try`."""
        results = self.run(node.body, env, path, value)
        while True:
            try:
                found = next(results)
            except StopIteration:
                return
            except JqError as error:
                if node.handler is not None:
                    yield from self.run(node.handler, env, path, error.value)
                return
            yield found

    def label(self, node: s.Label, env: Env, path: Path | None, value: Any) -> Results:
        """`label $name | body`."""
        mark = object()
        try:
            yield from self.run(node.body, env.with_label(node.name, mark), path, value)
        except Break as leaving:
            if leaving.label is not mark:
                raise

    def leave(self, node: s.BreakTo, env: Env, path: Path | None, value: Any) -> Results:
        """`break $name`."""
        raise Break(env.label(node.name))
        yield

    # Making.

    def array(self, node: s.Array, env: Env, path: Path | None, value: Any) -> Results:
        """`[items]`."""
        made: list[Any] = []
        if node.items is not None:
            for found in self.values(node.items, env, value):
                self.budget.make(1)
                made.append(found)
        yield self.made(path, value, made)

    def object(self, node: s.Object, env: Env, path: Path | None, value: Any) -> Results:
        """`{key: value}`; what yields several gives several objects, the last entry varying fastest."""
        for made in self._entries(node.entries, 0, env, value):
            yield self.made(path, value, made)

    def _entries(
        self, entries: tuple[tuple[s.Node, s.Node], ...], place: int, env: Env, value: Any
    ) -> Iterator[dict[str, Any]]:
        if place == len(entries):
            yield {}
            return
        for name, item in self._keyed(entries[place][0], entries[place][1], env, value):
            for others in self._entries(entries, place + 1, env, value):
                self.budget.make(1 + len(others))
                yield {name: item, **others}

    def _keyed(self, key_node: s.Node, value_node: s.Node, env: Env, value: Any) -> Iterator[tuple[str, Any]]:
        for key in self.values(key_node, env, value):
            if not isinstance(key, str):
                raise JqError(f"Object keys must be strings, not {shown(key)}")
            for item in self.values(value_node, env, value):
                yield key, item

    def text(self, node: s.Text, env: Env, path: Path | None, value: Any) -> Results:
        """A string with values in it; the last one varies slowest."""
        for found in self._texts(node, len(node.pieces) - 1, env, value):
            yield self.made(path, value, found)

    def _texts(self, node: s.Text, last: int, env: Env, value: Any) -> Iterator[str]:
        from tierflow_flow.jq.formats import write

        if last < 0:
            yield ""
            return
        piece = node.pieces[last]
        ends = (piece,) if isinstance(piece, str) else self.values(piece, env, value)
        for end in ends:
            written = end if isinstance(piece, str) else write(node.format, end)
            for start in self._texts(node, last - 1, env, value):
                self.budget.make(len(start) + len(written))
                yield start + written

    def format(self, node: s.Format, env: Env, path: Path | None, value: Any) -> Results:
        """`@name`."""
        from tierflow_flow.jq.formats import write

        written = write(node.name, value)
        self.budget.make(len(written))
        yield self.made(path, value, written)

    # Names.

    def variable(self, node: s.Variable, env: Env, path: Path | None, value: Any) -> Results:
        """`$name`."""
        yield self.made(path, value, env.variable(node.name))

    def bound(self, node: s.Bind, env: Env, path: Path | None, value: Any) -> Results:
        """`source as pattern | body`."""
        every = dict.fromkeys([name for pattern in node.patterns for name in s.names_of(pattern)])
        for found in self.values(node.source, env, value):
            for place, pattern in enumerate(node.patterns):
                try:
                    for inner in bind(
                        self, pattern, env.with_variables(every) if len(node.patterns) > 1 else env, found
                    ):
                        yield from self.run(node.body, inner, path, value)
                    break
                except JqError:
                    if place == len(node.patterns) - 1:
                        raise

    def define(self, node: s.Define, env: Env, path: Path | None, value: Any) -> Results:
        """`def`."""
        return self.run(node.rest, env.with_function(node.function), path, value)

    def call(self, node: s.Call, env: Env, path: Path | None, value: Any) -> Results:
        """A function: an argument, one that was defined, or a builtin."""
        from tierflow_flow.jq.builtins import BUILTINS

        name = (node.name, len(node.arguments))
        function = env.function(name)
        if function is None:
            yield from BUILTINS[name](self, node.arguments, env, path, value)
            return
        if function.closure is not None:
            yield from self.run(function.closure, function.env, path, value)
            return
        if env.calls >= MAX_CALLS:
            raise JqLimit(f"{node.name} calls itself more than {MAX_CALLS} levels deep")
        yield from self.run(function.body, function.called(node.arguments, env), path, value)

    # Folding and assigning.

    def fold(self, node: s.Reduce, env: Env, path: Path | None, value: Any) -> Results:
        """`reduce`."""
        for at, state in self.run(node.start, env, path, value):
            for found in self.values(node.source, env, value):
                for inner in bind(self, node.pattern, env, found):
                    last: Found = (at if at is None else (), None)
                    for last in self.run(node.update, inner, at, state):  # noqa: B007 - the last one is the new state
                        pass
                    at, state = last
            yield at, state

    def scan(self, node: s.Foreach, env: Env, path: Path | None, value: Any) -> Results:
        """`foreach`."""
        for at, state in self.run(node.start, env, path, value):
            for found in self.values(node.source, env, value):
                for inner in bind(self, node.pattern, env, found):
                    before = at, state
                    for at, state in self.run(node.update, inner, *before):
                        yield from ((at, state),) if node.extract is None else self.run(node.extract, inner, at, state)

    def paths(self, node: s.Node, env: Env, value: Any) -> Iterator[Path]:
        """The paths that a node reaches."""
        for path, found in self.run(node, env, (), value):
            if path is NOWHERE:
                raise JqError(f"Invalid path expression with result {shown(found)}")
            if path is not None:
                yield path

    def assign(self, node: s.Assign, env: Env, path: Path | None, value: Any) -> Results:
        """`=`, `|=`, `+=` and the like."""
        if node.op == "|":
            yield self.made(path, value, self.update(node.target, node.value, env, value))
            return
        for new in self.values(node.value, env, value):
            result = value
            for at in list(self.paths(node.target, env, value)):
                result = set_path(result, at, self._assigned(node.op, get_path(result, at), new), self.budget)
            yield self.made(path, value, result)

    def _assigned(self, op: str, old: Any, new: Any) -> Any:
        if op == "":
            return new
        if op == "//":
            return old if truthy(old) else new
        return BINARY[op](old, new, self.budget)

    def update(self, target: s.Node, update: s.Node, env: Env, value: Any) -> Any:
        """`target |= update`: the first value each; where there is none, what was there is deleted."""
        removed: list[Path] = []
        for at in list(self.paths(target, env, value)):
            new = next(self.values(update, env, get_path(value, at)), _NONE)
            if new is _NONE:
                removed.append(at)
            else:
                value = set_path(value, at, new, self.budget)
        return self.without(value, removed)

    def without(self, value: Any, paths: list[Path]) -> Any:
        """The value without what is at these paths."""
        for at in sorted(paths, key=lambda path: order_key(list(path)), reverse=True):
            value = delete_path(value, at, self.budget)
        return value

    def total(self, values: Iterator[Any]) -> Any:
        """The sum of values; null where there are none."""
        result = None
        for value in values:
            result = add(result, value, self.budget)
        return result


_NONE: Final = object()
_RUN: Final[Mapping[type, Callable[..., Results]]] = {
    s.Identity: Evaluation.identity,
    s.Recurse: Evaluation.recurse,
    s.Literal: Evaluation.literal,
    s.Text: Evaluation.text,
    s.Format: Evaluation.format,
    s.Index: Evaluation.index,
    s.Slice: Evaluation.slice,
    s.Each: Evaluation.each,
    s.Pipe: Evaluation.pipe,
    s.Comma: Evaluation.comma,
    s.Negate: Evaluation.negate,
    s.Binary: Evaluation.binary,
    s.Logic: Evaluation.logic,
    s.Alternative: Evaluation.alternative,
    s.Assign: Evaluation.assign,
    s.If: Evaluation.condition,
    s.Try: Evaluation.attempt,
    s.Reduce: Evaluation.fold,
    s.Foreach: Evaluation.scan,
    s.Define: Evaluation.define,
    s.Call: Evaluation.call,
    s.Variable: Evaluation.variable,
    s.Bind: Evaluation.bound,
    s.Label: Evaluation.label,
    s.BreakTo: Evaluation.leave,
    s.Array: Evaluation.array,
    s.Object: Evaluation.object,
}
