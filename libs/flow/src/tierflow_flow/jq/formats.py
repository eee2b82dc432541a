"""How values are written into strings: `@text`, `@json`, `@base64` and the like."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.values import is_number, shown, text_of


def write(form: str, value: Any) -> str:
    """A value in a format. Raises `JqError`."""
    writer = FORMATS.get(form)
    if writer is None:
        raise JqError(f"{form} is not a valid format")
    return writer(value)


def to_text(value: Any) -> str:
    """Strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else text_of(value)


def _html(value: Any) -> str:
    text = to_text(value)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text


def _uri(value: Any) -> str:
    return quote(to_text(value), safe="-_.~")


def _row(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise JqError(f"{shown(value)} cannot be {what}-formatted, only an array can be")
    return value


def _csv_cell(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace('"', '""')
        return f'"{escaped}"'
    return _cell(value, "csv")


def _tsv_cell(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")
    return _cell(value, "tsv")


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or is_number(value):
        return text_of(value)
    raise JqError(
        f"{shown(value)} is not valid in a csv row" if form == "csv" else f"{shown(value)} is not valid in a tsv row"
    )


def _sh(value: Any) -> str:
    return " ".join(_quoted(item) for item in (value if isinstance(value, list) else [value]))


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("'", "'\\''")
        return f"'{escaped}'"
    if isinstance(value, list | dict):
        raise JqError(f"{shown(value)} can not be escaped for shell")
    return text_of(value)


def _base64(value: Any) -> str:
    return base64.b64encode(to_text(value).encode()).decode()


def _from_base64(value: Any) -> str:
    text = to_text(value).rstrip("=")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise JqError(f"{shown(value)} is not valid base64 data") from None
    return data.decode("utf-8", "replace")


FORMATS: Final[Mapping[str, Callable[[Any], str]]] = {
    "text": to_text,
    "json": text_of,
    "html": _html,
    "uri": _uri,
    "csv": lambda value: ",".join(_csv_cell(item) for item in _row(value, "csv")),
    "tsv": lambda value: "\t".join(_tsv_cell(item) for item in _row(value, "tsv")),
    "sh": _sh,
    "base64": _base64,
    "base64d": _from_base64,
}
