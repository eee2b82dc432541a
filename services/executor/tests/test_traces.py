"""Traces as text: the same words as the standard library's, found once for each place."""

import traceback
from collections.abc import Callable

import pytest
from tierflow_executor import traces
from tierflow_executor.traces import trace_of


def plain() -> None:
    raise ValueError("no")


def deep(depth: int = 3) -> None:
    if depth == 0:
        raise KeyError("deep")
    deep(depth - 1)


def different() -> None:
    def one() -> None:
        two()

    def two() -> None:
        plain()

    one()


def caused() -> None:
    try:
        plain()
    except ValueError as error:
        raise RuntimeError("worse") from error


def on_the_way() -> None:
    try:
        plain()
    except ValueError:
        raise RuntimeError("worse")  # noqa: B904 - the context is what is tried


def hushed() -> None:
    try:
        plain()
    except ValueError:
        raise RuntimeError("instead") from None


def noted() -> None:
    error = ValueError("no")
    error.add_note("look here")
    raise error


def grouped() -> None:
    raise ExceptionGroup("some", [ValueError("a"), KeyError("b")])


def misspelt() -> None:
    compile("a b", "text", "exec")


def raised_by(function: Callable[[], None]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - it is looked at
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("function", [plain, deep, different, caused, on_the_way, hushed, noted, grouped, misspelt])
def test_it_reads_as_the_standard_librarys(function: Callable[[], None]) -> None:
    """F22: frames, source lines, marks, causes, groups, notes and repetitions are as everybody knows them, the first time and again."""
    traces._line.cache_clear()
    error = raised_by(function)
    expected = "".join(traceback.format_exception(error, limit=-traces.MOST_FRAMES))
    assert [trace_of(error), trace_of(error), trace_of(raised_by(function))] == [expected] * 3


def test_an_error_that_was_never_raised() -> None:
    """F22: one without frames is the error alone."""
    assert trace_of(ValueError("no")) == "ValueError: no\n"


def test_places_are_looked_up_once() -> None:
    """F22, Q8: what a line of code looks like is found once, however often it raises; what is kept has a bound."""
    traces._line.cache_clear()
    texts = {trace_of(raised_by(different)) for _ in range(100)}
    assert len(texts) == 1
    known = traces._line.cache_info()
    assert known.misses == known.currsize == 5
    assert known.maxsize is not None
