"""JSON text to plain values and back, without losing digits.

orjson is fast, but reads integers beyond 64 bits as floats and writes NaN as null; here the first are kept and the second is refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

_LONG_NUMBER = re.compile(r"[0-9]{19}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is out of range")
    return number


def loads(text: str) -> Any:
    """The value of a JSON text, integers of any length exact. Raises `ValueError`."""
    if _LONG_NUMBER.search(text) is None:
        return orjson.loads(text)
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any) -> str:
    """The JSON text of a plain value. Raises `ValueError` where it has none."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits, nesting beyond orjson's 254 levels, or no JSON at all.
        return _dumps_slowly(value)
    if b"null" in text:
        # orjson writes NaN so; then it is refused.
        _dumps_slowly(value)
    return text.decode()


def _dumps_slowly(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not text.isascii():
        text.encode()
    return text


def kind_of(value: Any) -> str:
    """What JSON calls the value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return _KINDS.get(type(value), "something else")


_KINDS = {str: "a string", int: "an integer", float: "a number", list: "an array", dict: "an object"}
