"""Expressions written in Python: what is known only while a run goes on. `tierflow.flow` uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def _operator(symbol: str, *, swapped: bool = False) -> Callable[[Expression, object], Expression]:
    def operate(self: Expression, other: object) -> Expression:
        left, right = (other, self) if swapped else (self, other)
        return Expression(f"{_operand(left)} {symbol} {_operand(right)}")

    return operate


class Expression:
    """Something that is known only while a run goes on. Its methods have names with underscores only, so that every other name is a field."""

    __slots__ = ("_simple", "_text")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str, *, simple: bool = False) -> None:
        self._text = text
        self._simple = simple

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: str | int | Expression) -> Expression:
        if isinstance(key, str) and key.isidentifier() and key.isascii():
            return Expression(f"{_operand(self)}.{key}", simple=True)
        return Expression(f"{_operand(self)}[{_text(key)}]", simple=True)

    def __iter__(self) -> Any:
        raise TypeError(f"{self} is known only while a run goes on; use map() to go through its items")

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is known only while a run goes on; combine conditions with &, | and ~")

    def __str__(self) -> str:
        return f"${{{{ {self._text} }}}}"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"{self} is known only while a run goes on; it cannot be formatted as {spec!r}")
        return str(self)

    __eq__ = _operator("==")  # type: ignore[assignment]
    __ne__ = _operator("!=")  # type: ignore[assignment]
    __lt__ = _operator("<")
    __le__ = _operator("<=")
    __gt__ = _operator(">")
    __ge__ = _operator(">=")
    __add__ = _operator("+")
    __sub__ = _operator("-")
    __mul__ = _operator("*")
    __truediv__ = _operator("/")
    __mod__ = _operator("%")
    __and__ = _operator("&&")
    __or__ = _operator("||")
    __radd__ = _operator("+", swapped=True)
    __rsub__ = _operator("-", swapped=True)
    __rmul__ = _operator("*", swapped=True)
    __rtruediv__ = _operator("/", swapped=True)

    def __invert__(self) -> Expression:
        return Expression(f"!{_operand(self)}", simple=False)


def expr(text: str) -> Expression:
    """An expression as the language writes it: `expr("size(input.urls) > 3")`."""
    return Expression(text.strip())


def escape(text: str) -> str:
    """Text in which `${{` means itself."""
    return text.replace("${{", "$${{")


class Functions:
    """The language's functions: `fn.size(walk.output.files)`, `fn.default(f.input.name, "nobody")`, `fn.failure()`."""

    def __getattr__(self, name: str) -> _Function:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Function(name)


class _Function:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: object) -> Expression:
        return Expression(f"{self._name}({', '.join(_text(argument) for argument in arguments)})", simple=True)


fn = Functions()


def _text(value: object) -> str:
    """A value as it is written within an expression."""
    if isinstance(value, Expression):
        return value._text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(str(key))}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _operand(value: object) -> str:
    text = _text(value)
    return f"({text})" if isinstance(value, Expression) and not value._simple else text
