"""Declaring handlers: how they are called, what is known of them, what they may return."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from tierflow import Context, Degraded, handler
from tierflow.handler import Handler, OutputInvalid, declared, describe, micros_of
from tierflow.registry import DuplicateHandler, Registry
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from typing_extensions import TypedDict


class Silent:
    """A port that hears nothing."""

    cancelled = False
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


CONTEXT = Context(StepExecutionRequest(), Silent())  # type: ignore[arg-type]


def call(entry: Handler, text: str) -> Any:
    args, named = entry.arguments(CONTEXT, text)
    return entry.function(*args, **named)


class Model(BaseModel):
    n: int


@dataclass
class Record:
    n: int


class Table(TypedDict):
    n: int


def test_one_structured_parameter_gets_the_whole_input() -> None:
    """B14: models, dataclasses, typed dictionaries, dictionaries and anything; each converted."""

    def model(context: Context, x: Model) -> int:
        return x.n

    def record(x: Record) -> int:
        return x.n

    def table(x: Table) -> int:
        return x["n"]

    def plain(x: dict[str, int]) -> int:
        return x["n"]

    def anything(x) -> Any:  # type: ignore[no-untyped-def]
        return x["n"]

    for function in (model, record, table, plain, anything):
        entry = describe("h", function)
        assert entry.takes == "whole"
        assert call(entry, '{"n": 3}') == 3
    with pytest.raises(ValidationError):
        call(describe("h", record), '{"n": "three"}')


def test_other_parameters_are_taken_by_name() -> None:
    """B14: with their defaults; what is missing or not known is refused, with its name."""

    def add(context: Context, a: int, *, b: int = 2, note: str | None = None) -> int:
        return a + b

    entry = describe("add", add)
    assert entry.takes == "fields"
    assert call(entry, '{"a": 1}') == 3
    assert call(entry, '{"a": 1, "b": 5}') == 6
    assert json.loads(entry.input_schema)["required"] == ["a"]
    for text, field in (("null", "a"), ('{"a": 1, "c": 1}', "c"), ('{"a": "x"}', "a")):
        with pytest.raises(ValidationError) as caught:
            call(entry, text)
        assert caught.value.errors()[0]["loc"] == (field,)


def test_a_handler_without_parameters() -> None:
    """B14: is called whatever the input is, and has no input schema."""

    def nothing() -> str:
        return "done"

    entry = describe("h", nothing)
    assert (entry.takes, entry.input_schema) == ("nothing", "")
    assert call(entry, '{"a": 1}') == "done"


def test_what_is_known_of_a_handler() -> None:
    """S2: description, schemas, timeout and whether it has side effects; a degraded result does not show in the schema."""

    async def guess(context: Context, x: Model) -> Model | Degraded[Model]:
        """Guesses.

        At length.
        """
        return Degraded(x)

    entry = describe("guess", guess, timeout="1.5s", side_effecting=True)
    assert (entry.description, entry.timeout, entry.side_effecting, entry.is_async) == (
        "Guesses.",
        1_500_000,
        True,
        True,
    )
    assert json.loads(entry.input_schema) == json.loads(entry.output_schema)
    assert entry.encode(Model(n=1)) == '{"n":1}'


@pytest.mark.parametrize(
    ("text", "micros"), [("250ms", 250_000), ("30s", 30_000_000), ("1.5m", 90_000_000), ("2 h", 7_200_000_000)]
)
def test_durations(text: str, micros: int) -> None:
    """Q2: timeouts are written as people write them."""
    assert micros_of(text) == micros


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1d", "1e3s", "30s "[:2]])
def test_what_is_not_a_duration(text: str) -> None:
    """L5: is refused, with what would be right."""
    with pytest.raises(ValueError, match="30s"):
        micros_of(text)


def test_what_cannot_be_a_handler() -> None:
    """L5: parameters that cannot be understood, and what cannot be inline, are refused where they are declared."""

    def star(*parts: int) -> None: ...

    async def waits() -> None: ...

    with pytest.raises(TypeError, match="parts"):
        describe("h", star)
    with pytest.raises(TypeError, match="inline"):
        describe("h", waits, inline=True)


def test_raw_handlers() -> None:
    """Lesson 28: JSON text in, JSON text out, and nothing else."""

    def raw(text: str) -> str:
        return text

    entry = describe("raw", raw, raw=True)
    assert entry.encode(call(entry, '{"a": 1e400}'.replace("e400", ""))) == '{"a": 1}'
    for bad in ("{", "NaN", '"\\u0000"', b"1", None, '"\ud800"'):
        with pytest.raises(OutputInvalid):
            entry.encode(bad)


def test_the_declared_function_stays_as_it_is() -> None:
    """Q24: a handler can be called and tested as the function that it is; it is known by its name once declared."""

    @handler("test.stays")
    def stays(n: int) -> int:
        return n + 1

    assert stays(1) == 2
    assert [each.function for each in declared() if each.name == "test.stays"] == [stays]


def test_a_name_can_be_given_once() -> None:
    """L5: the second handler of a name is refused, and both are named."""
    registry = Registry([describe("a", lambda: 1)])
    entry = describe("b", lambda: 2)
    registry.add(entry)
    registry.add(entry)
    assert len(registry) == 2
    assert registry.get("b") is entry
    assert registry.get("c") is None
    with pytest.raises(DuplicateHandler, match="two handlers are named 'a'"):
        registry.add(describe("a", lambda: 3))


def test_modules_are_loaded_with_their_submodules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N12: what the module and its own submodules declare is offered, what it only imports from elsewhere is not."""
    package = tmp_path / "handlers_of_test"
    package.mkdir()
    (tmp_path / "elsewhere_of_test.py").write_text("from tierflow import handler\nhandler('t.else')(lambda: 1)\n")
    (package / "__init__.py").write_text(
        "import elsewhere_of_test\nfrom handlers_of_test import more\nfrom tierflow import handler\nhandler('t.one')(lambda: 1)\n"
    )
    (package / "more.py").write_text("from tierflow import handler\nhandler('t.two')(lambda: 1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry()
    assert registry.load("handlers_of_test") == 2
    assert sorted(each.name for each in registry) == ["t.one", "t.two"]
    for name in ("handlers_of_test", "handlers_of_test.more", "elsewhere_of_test"):
        sys.modules.pop(name)


def test_the_context_cannot_be_changed() -> None:
    """L1: a handler gets values to read; labels are a copy."""
    request = StepExecutionRequest()
    request.context.run_id = "run"
    request.context.labels["a"] = "b"
    context = Context(request, Silent())  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        context.run_id = "other"  # type: ignore[misc]
    context.labels["a"] = "c"
    assert context.labels == {"a": "b"}
    assert (context.deadline, context.credits, context.memory_bytes, context.last_heartbeat) == (None, None, None, None)
