"""Functions of jq that yield several values, or evaluate their arguments in their own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.binding import Env
from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.values import Path, below, get_path, is_number, order_key, shown, truthy

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation, Results

Arguments = tuple[s.Node, ...]


def empty(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """Nothing."""
    return iter(())


def error(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`error`, `error(message)`."""
    if not arguments:
        raise JqError(value)
    for message in ev.values(arguments[0], env, value):
        raise JqError(message)
    return iter(())


def select(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`select(condition)`."""
    for wanted in ev.values(arguments[0], env, value):
        if truthy(wanted):
            yield path, value


def map_(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`map(f)`."""
    made: list[Any] = []
    for _, item in ev.items(None, value):
        for found in ev.values(arguments[0], env, item):
            ev.budget.make(1)
            made.append(found)
    yield ev.made(path, value, made)


def recurse(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`recurse`, `recurse(f)`, `recurse(f; condition)`."""
    step: s.Node = arguments[0] if arguments else s.Try(s.Each(s.Identity()), None)
    waiting: list[Iterator[tuple[Path | None, Any]]] = [iter([(path, value)])]
    while waiting:
        at, found = next(waiting[-1], (None, _END))
        if found is _END:
            waiting.pop()
            continue
        ev.budget.step()
        if len(arguments) == 2 and not any(map(truthy, ev.values(arguments[1], env, found))):
            continue
        yield at, found
        ev.budget.make(1)
        waiting.append(ev.run(step, env, at, found))


def path_of(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`path(f)`."""
    for at in ev.paths(arguments[0], env, value):
        ev.budget.make(len(at))
        yield ev.made(path, value, list(at))


def getpath(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`getpath(path)`."""
    for wanted in ev.values(arguments[0], env, value):
        if not isinstance(wanted, list):
            raise JqError("Path must be specified as an array")
        at = path
        for key in wanted:
            at = below(at, key, value)
        yield at, get_path(value, wanted)


def delpaths(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`delpaths(paths)`."""
    for paths in ev.values(arguments[0], env, value):
        if not isinstance(paths, list) or not all(isinstance(each, list) for each in paths):
            raise JqError("Paths must be specified as an array")
        yield ev.made(path, value, ev.without(value, [tuple(each) for each in paths]))


def limit(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`limit(count; f)`."""
    for count in ev.values(arguments[0], env, value):
        left = _count(count)
        if left < 0:
            raise JqError("limit doesn't support negative count")
        if left == 0:
            continue
        for found in ev.run(arguments[1], env, path, value):
            yield found
            left -= 1
            if left <= 0:
                break


def skip(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`skip(count; f)`."""
    for count in ev.values(arguments[0], env, value):
        left = _count(count)
        for found in ev.run(arguments[1], env, path, value):
            if left <= 0:
                yield found
            left -= 1


def _count(count: Any) -> float:
    if not is_number(count):
        raise JqError(f"{shown(count)} is no number")
    return float(count)


def first(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`first(f)`, `first`."""
    node = arguments[0] if arguments else s.Index(s.Identity(), s.Literal(0))
    for found in ev.run(node, env, path, value):
        yield found
        return


def last(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`last(f)`, `last`."""
    node = arguments[0] if arguments else s.Index(s.Identity(), s.Literal(-1))
    kept = None
    for kept in ev.run(node, env, path, value):  # noqa: B007 - the last one is wanted
        pass
    if kept is not None:
        yield kept


def nth(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`nth(place)`, `nth(place; f)`."""
    if len(arguments) == 1:
        yield from ev.run(s.Index(s.Identity(), arguments[0]), env, path, value)
        return
    for place in ev.values(arguments[0], env, value):
        left = _count(place)
        if left < 0:
            raise JqError("nth doesn't support negative indices")
        for found in ev.run(arguments[1], env, path, value):
            if left < 1:
                yield found
                break
            left -= 1


def until(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`until(condition; update)`."""
    waiting = [iter([(path, value)])]
    while waiting:
        at, found = next(waiting[-1], (None, _END))
        if found is _END:
            waiting.pop()
            continue
        for done in ev.values(arguments[0], env, found):
            if truthy(done):
                yield at, found
            else:
                ev.budget.make(1)
                waiting.append(ev.run(arguments[1], env, at, found))


def while_(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`while(condition; update)`."""
    yield from _repeated(ev, arguments[1], arguments[0], env, path, value)


def repeat(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`repeat(update)`."""
    yield from _repeated(ev, arguments[0], s.Literal(True), env, path, value)


def _repeated(ev: Evaluation, update: s.Node, condition: s.Node, env: Env, path: Path | None, value: Any) -> Results:
    waiting = [iter([(path, value)])]
    while waiting:
        at, found = next(waiting[-1], (None, _END))
        if found is _END:
            waiting.pop()
            continue
        if any(map(truthy, ev.values(condition, env, found))):
            yield at, found
            ev.budget.make(1)
            waiting.append(ev.run(update, env, at, found))


def range_(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`range(stop)`, `range(start; stop)`, `range(start; stop; step)`."""
    given = (s.Literal(0), arguments[0]) if len(arguments) == 1 else arguments
    for start in ev.values(given[0], env, value):
        for stop in ev.values(given[1], env, value):
            for step in ev.values(given[2], env, value) if len(given) == 3 else (1,):
                if not (is_number(start) and is_number(stop) and is_number(step)):
                    raise JqError("Range bounds must be numeric")
                yield from _counted(ev, path, (start, stop, step))


def _counted(ev: Evaluation, path: Path | None, bounds: tuple[float, float, float]) -> Results:
    at, stop, step = bounds
    while (step > 0 and at < stop) or (step < 0 and at > stop) or (step == 0 and at < stop):
        ev.budget.step()
        yield ev.made(path, None, at)
        at += step


def any_(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`any`, `any(condition)`, `any(generator; condition)`."""
    yield ev.made(path, value, any(_conditions(ev, arguments, env, value)))


def all_(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`all`, `all(condition)`, `all(generator; condition)`."""
    yield ev.made(path, value, all(_conditions(ev, arguments, env, value)))


def _conditions(ev: Evaluation, arguments: Arguments, env: Env, value: Any) -> Iterator[bool]:
    source: s.Node = arguments[0] if len(arguments) == 2 else s.Each(s.Identity())
    condition: s.Node = arguments[-1] if arguments else s.Identity()
    for item in ev.values(source, env, value):
        for found in ev.values(condition, env, item):
            yield truthy(found)


def _keyed(ev: Evaluation, argument: s.Node, env: Env, value: Any) -> list[tuple[Any, Any]]:
    """The items of an array, each with what it is sorted by, in that order."""
    if not isinstance(value, list):
        raise JqError(f"{shown(value)} cannot be sorted, as it is not an array")
    ev.budget.make(2 * len(value))
    ev.budget.step(len(value) * max(1, len(value).bit_length()))
    pairs = [(list(ev.values(argument, env, item)), item) for item in value]
    return sorted(pairs, key=lambda pair: order_key(pair[0]))


def sort_by(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`sort`, `sort_by(f)`."""
    node = arguments[0] if arguments else s.Identity()
    yield ev.made(path, value, [item for _, item in _keyed(ev, node, env, value)])


def _groups(ev: Evaluation, argument: s.Node, env: Env, value: Any) -> list[tuple[Any, list[Any]]]:
    groups: list[tuple[Any, list[Any]]] = []
    for key, item in _keyed(ev, argument, env, value):
        if groups and order_key(groups[-1][0]) == order_key(key):
            groups[-1][1].append(item)
        else:
            groups.append((key, [item]))
    return groups


def group_by(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`group_by(f)`."""
    yield ev.made(path, value, [items for _, items in _groups(ev, arguments[0], env, value)])


def unique_by(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`unique`, `unique_by(f)`."""
    node = arguments[0] if arguments else s.Identity()
    yield ev.made(path, value, [items[0] for _, items in _groups(ev, node, env, value)])


def min_by(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`min`, `min_by(f)`."""
    pairs = _keyed(ev, arguments[0] if arguments else s.Identity(), env, value)
    yield ev.made(path, value, pairs[0][1] if pairs else None)


def max_by(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`max`, `max_by(f)`: of equal ones the last."""
    pairs = _keyed(ev, arguments[0] if arguments else s.Identity(), env, value)
    yield ev.made(path, value, pairs[-1][1] if pairs else None)


def same(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """`debug`, `stderr`: nothing is written."""
    yield path, value


def unavailable(ev: Evaluation, arguments: Arguments, env: Env, path: Path | None, value: Any) -> Results:
    """What reads from outside."""
    raise JqError("reading from outside is not possible here")


_END: Final = object()
CONTROL: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    ("empty", 0): empty,
    ("error", 0): error,
    ("error", 1): error,
    ("select", 1): select,
    ("map", 1): map_,
    ("recurse", 0): recurse,
    ("recurse", 1): recurse,
    ("recurse", 2): recurse,
    ("path", 1): path_of,
    ("getpath", 1): getpath,
    ("delpaths", 1): delpaths,
    ("limit", 2): limit,
    ("skip", 2): skip,
    ("first", 0): first,
    ("first", 1): first,
    ("last", 0): last,
    ("last", 1): last,
    ("nth", 1): nth,
    ("nth", 2): nth,
    ("until", 2): until,
    ("while", 2): while_,
    ("repeat", 1): repeat,
    ("range", 1): range_,
    ("range", 2): range_,
    ("range", 3): range_,
    **{("any", count): any_ for count in (0, 1, 2)},
    **{("all", count): all_ for count in (0, 1, 2)},
    ("sort", 0): sort_by,
    ("sort_by", 1): sort_by,
    ("group_by", 1): group_by,
    ("unique", 0): unique_by,
    ("unique_by", 1): unique_by,
    ("min", 0): min_by,
    ("min_by", 1): min_by,
    ("max", 0): max_by,
    ("max_by", 1): max_by,
    ("debug", 0): same,
    ("stderr", 0): same,
    ("input", 0): unavailable,
    ("inputs", 0): unavailable,
    ("env", 0): unavailable,
    ("halt", 0): unavailable,
}
