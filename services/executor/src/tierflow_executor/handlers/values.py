"""Small handlers for texts and JSON values."""

from __future__ import annotations

from typing import Any

import orjson
from tierflow import Rejected, handler


@handler("json.parse")
async def parse(text: str) -> Any:
    """Reads JSON text as a value."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"the text is not JSON: {error}") from error


@handler("json.format")
async def to_text(value: Any, *, indent: bool = False, sort_keys: bool = False) -> str:
    """Writes a value as JSON text."""
    option = (orjson.OPT_INDENT_2 if indent else 0) | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    return orjson.dumps(value, option=option).decode()


@handler("text.join")
async def join(items: list[str], separator: str = "") -> str:
    """Joins texts."""
    return separator.join(items)


@handler("text.split")
async def split(text: str, separator: str, *, most: int = -1) -> list[str]:
    """Splits a text at a separator, at most `most` times (-1: everywhere)."""
    if not separator:
        raise Rejected("the separator is empty")
    return text.split(separator, most)


@handler("text.replace")
async def replace(text: str, old: str, new: str) -> str:
    """Replaces each occurrence of `old`."""
    return text.replace(old, new)
