"""Declares functions as handlers: `@handler("billing.charge", timeout="30s")`."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from tierflow.context import Context
from tierflow.outcomes import Degraded

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_declared: list[Handler] = []


class OutputInvalid(ValueError):
    """What the handler returned is not a JSON value of its declared type."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler: a function, how to call it and what is known of it.

    `takes` says how the input is handed over: `nothing`, `whole` (one parameter gets all of it), `fields` (parameters are taken from an object by name) or
    `raw` (JSON text in, JSON text out).
    """

    name: str
    function: Callable[..., Any]
    description: str
    takes: str
    takes_context: bool
    is_async: bool
    inline: bool
    isolate: bool
    side_effecting: bool
    tool: bool
    timeout: int | None
    input: TypeAdapter[Any] | None
    output: TypeAdapter[Any]
    input_schema: str
    output_schema: str

    @property
    def module(self) -> str:
        """The module in which the function was defined."""
        return self.function.__module__

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def arguments(self, context: Context, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments for a call, from the input as JSON text.

        Raises:
            pydantic.ValidationError: The input does not match.
        """
        first: tuple[Any, ...] = (context,) if self.takes_context else ()
        if self.takes == "raw":
            return (*first, text), {}
        if self.input is None:
            return first, {}
        if self.takes == "whole":
            return (*first, self.input.validate_json(text)), {}
        model = self.input.validate_json("{}" if text == "null" else text)
        return first, model.__dict__  # the fields and nothing else: extra ones are forbidden

    def encode(self, value: Any) -> str:
        """The JSON text of what the function returned.

        Raises:
            OutputInvalid: It is not a JSON value of the declared type, holds NaN or infinity, or a NUL character.
        """
        if self.takes == "raw":
            return _checked_raw(value)
        try:
            data = orjson.dumps(self.output.dump_python(value, mode="json", warnings="error"))
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputInvalid(f"the result of {self.name} is not what it declares, or not JSON: {error}") from error
        if b"null" in data and _holds_nan(self.output.dump_python(value)):  # NaN was written as null
            raise OutputInvalid(f"the result of {self.name} holds a number that JSON does not have (NaN or infinity)")
        if b"\\u0000" in data and _NUL.search(data):
            raise OutputInvalid(f"the result of {self.name} holds a NUL character")
        return data.decode()


def _checked_raw(value: object) -> str:
    if not isinstance(value, str):
        raise OutputInvalid(f"the result is not JSON text but {type(value).__name__}")
    try:
        data = value.encode()
        orjson.loads(data)
    except ValueError as error:
        raise OutputInvalid(f"the result is not JSON text: {error}") from error
    if b"\\u0000" in data and _NUL.search(data):
        raise OutputInvalid("the result holds a NUL character")
    return value


def _holds_nan(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float):
            if item - item != 0.0:  # true for NaN and both infinities
                return True
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
    return False


def micros_of(text: str) -> int:
    """A duration such as `30s`, `250ms`, `1.5m`, `2h` in microseconds.

    Raises:
        ValueError: It is not one.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 250ms, 5m or 2h")
    return round(float(match[1]) * _UNITS[match[2]])


def handler(
    name: str,
    *,
    timeout: str | None = None,
    description: str | None = None,
    side_effecting: bool = False,
    tool: bool = False,
    isolate: bool = False,
    raw: bool = False,
    inline: bool = False,
) -> Callable[[F], F]:
    """Declares a function as a handler; the function itself stays as it is.

    Args:
        name: The name under which flows call it, such as `billing.charge`.
        timeout: How long one attempt may take where the flow does not say.
        description: What it does; the first line of the docstring by default.
        side_effecting: It changes the world outside: it runs only with Tier 2's grant.
        tool: Each attempt is one tool call: users see it begin and end. For calls within an attempt there is `Context.tool`.
        isolate: Each attempt runs in a process of its own, which can be killed and has its own memory limit.
        raw: It takes and returns JSON text; nothing is parsed on the way.
        inline: A plain function that never blocks and takes microseconds: it is called without a thread.

    Raises:
        TypeError: The function's parameters cannot be understood.
        ValueError: The timeout is not a duration.
    """

    def declare(function: F) -> F:
        _declared.append(
            describe(
                name,
                function,
                timeout=timeout,
                description=description,
                side_effecting=side_effecting,
                tool=tool,
                isolate=isolate,
                raw=raw,
                inline=inline,
            )
        )
        return function

    return declare


def declared() -> list[Handler]:
    """All handlers that were declared in this process."""
    return list(_declared)


def describe(
    name: str,
    function: Callable[..., Any],
    *,
    timeout: str | None = None,
    description: str | None = None,
    side_effecting: bool = False,
    tool: bool = False,
    isolate: bool = False,
    raw: bool = False,
    inline: bool = False,
) -> Handler:
    """Works out how to call a function and which JSON Schemas its input and output have. Arguments as for `handler`."""
    hints = typing.get_type_hints(function)
    takes_context, parameters = _parameters_of(function, hints)
    is_async = inspect.iscoroutinefunction(function)
    _refuse_inline(name, inline and (is_async or isolate))
    takes, adapter = ("raw", None) if raw else _input_of(name, parameters, hints)
    returns = hints.get("return", Any)
    output = TypeAdapter[Any](Any if returns is None else _without_degraded(returns))
    if description is None:
        description = (inspect.getdoc(function) or "").partition("\n")[0]
    return Handler(
        name=name,
        function=function,
        description=description,
        takes=takes,
        takes_context=takes_context,
        is_async=is_async,
        inline=inline,
        isolate=isolate,
        side_effecting=side_effecting,
        tool=tool,
        timeout=micros_of(timeout) if timeout is not None else None,
        input=adapter,
        output=output,
        input_schema=_schema(adapter, "validation") if adapter is not None else "",
        output_schema=_output_schema(output, returns, raw=raw),
    )


def _output_schema(output: TypeAdapter[Any], returns: Any, *, raw: bool) -> str:
    return "" if raw or returns in (Any, None) else _schema(output, "serialization")


def _refuse_inline(name: str, wrong: bool) -> None:
    if wrong:
        raise TypeError(f"{name}: an inline handler is a plain function in this process")


def _parameters_of(function: Callable[..., Any], hints: dict[str, Any]) -> tuple[bool, list[inspect.Parameter]]:
    """Whether the first parameter is the context, and the others."""
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and (hints.get(parameters[0].name) is Context or parameters[0].name == "context")
    return takes_context, parameters[1:] if takes_context else parameters


def _input_of(
    name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[str, TypeAdapter[Any] | None]:
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: parameter {parameter.name} must be an ordinary one")
    if not parameters:
        return "nothing", None
    first = parameters[0]
    if len(parameters) == 1 and first.kind is not first.KEYWORD_ONLY and _is_whole(hints.get(first.name, Any)):
        return "whole", TypeAdapter(hints.get(first.name, Any))
    fields: dict[str, Any] = {
        each.name: (hints.get(each.name, Any), ... if each.default is each.empty else each.default)
        for each in parameters
    }
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    return "fields", TypeAdapter(model)


def _is_whole(kind: Any) -> bool:
    """Whether a lone parameter of this type gets the whole input: models, dataclasses, dictionaries and anything."""
    if kind is Any or typing.is_typeddict(kind) or is_dataclass(kind):
        return True
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, (BaseModel, dict))


def _without_degraded(kind: Any) -> Any:
    """The type of the value itself, where the function may return it as `Degraded`."""
    if typing.get_origin(kind) is Degraded:
        return typing.get_args(kind)[0]
    if kind is Degraded:
        return Any
    parts = typing.get_args(kind)
    if any(part is Degraded or typing.get_origin(part) is Degraded for part in parts):
        rest = tuple(dict.fromkeys(_without_degraded(part) for part in parts))
        return typing.Union[rest]  # noqa: UP007 - the parts are known only here
    return kind


def _schema(adapter: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"]) -> str:
    schema = adapter.json_schema(mode=mode)
    return orjson.dumps(schema).decode() if schema else ""
