"""Functions of jq on strings. Patterns are RE2's: they take time in proportion to the text, whatever the pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import re2
from tierflow_expressions.values import loads

from tierflow_flow.jq.budget import MAX_LEVELS
from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.operators import split as parts_of
from tierflow_flow.jq.values import is_number, normal, shown

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation

_MAX_PATTERN = 1_000


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise JqError(f"{shown(value)} {what}")
    return value


def utf8bytelength(ev: Evaluation, value: Any) -> int:
    """`utf8bytelength`."""
    return len(_text(value, "only strings have UTF-8 byte length").encode())


def startswith(ev: Evaluation, value: Any, start: Any) -> bool:
    """`startswith(start)`."""
    if not isinstance(value, str) or not isinstance(start, str):
        raise JqError("startswith() requires string inputs")
    return value.startswith(start)


def endswith(ev: Evaluation, value: Any, end: Any) -> bool:
    """`endswith(end)`."""
    if not isinstance(value, str) or not isinstance(end, str):
        raise JqError("endswith() requires string inputs")
    return value.endswith(end)


def ltrimstr(ev: Evaluation, value: Any, start: Any) -> Any:
    """`ltrimstr(start)`."""
    return value[len(start) :] if startswith(ev, value, start) else value


def rtrimstr(ev: Evaluation, value: Any, end: Any) -> Any:
    """`rtrimstr(end)`."""
    return value.removesuffix(end) if endswith(ev, value, end) else value


def trimstr(ev: Evaluation, value: Any, edge: Any) -> Any:
    """`trimstr(edge)`."""
    return rtrimstr(ev, ltrimstr(ev, value, edge), edge)


_SPACE = " \t\n\r\f\v"


def trim(ev: Evaluation, value: Any) -> str:
    """`trim`."""
    return _text(value, "cannot be trimmed").strip(_SPACE)


def ltrim(ev: Evaluation, value: Any) -> str:
    """`ltrim`."""
    return _text(value, "cannot be trimmed").lstrip(_SPACE)


def rtrim(ev: Evaluation, value: Any) -> str:
    """`rtrim`."""
    return _text(value, "cannot be trimmed").rstrip(_SPACE)


def explode(ev: Evaluation, value: Any) -> list[int]:
    """`explode`."""
    text = _text(value, "cannot be exploded")
    ev.budget.make(len(text))
    return [ord(character) for character in text]


def implode(ev: Evaluation, value: Any) -> str:
    """`implode`."""
    if not isinstance(value, list):
        raise JqError(f"{shown(value)} cannot be imploded, must be an array of codepoints")
    ev.budget.make(len(value))
    return "".join(_character(point) for point in value)


def _character(point: Any) -> str:
    if not is_number(point):
        raise JqError("Unicode codepoint must be numeric")
    number = int(point)
    return chr(number) if 0 < number < 0xD800 or 0xDFFF < number <= 0x10FFFF else "\ufffd"


def split(ev: Evaluation, value: Any, separator: Any) -> list[str]:
    """`split(separator)`."""
    if not isinstance(value, str) or not isinstance(separator, str):
        raise JqError("split input and separator must be strings")
    ev.budget.make(len(value) + 1)
    return parts_of(value, separator)


def split_by(ev: Evaluation, value: Any, pattern: Any, flags: Any) -> list[str]:
    """`split(pattern; flags)`."""
    found: list[str] = []
    last = 0
    for match in matches(ev, value, pattern, f"g{flags or ''}", False):
        found.append(value[last : match["offset"]])
        last = match["offset"] + match["length"]
    return [*found, value[last:]]


def downcase(ev: Evaluation, value: Any) -> str:
    """`ascii_downcase`."""
    return "".join(c.lower() if c.isascii() else c for c in _text(value, "cannot be lowercased: it is no string"))


def upcase(ev: Evaluation, value: Any) -> str:
    """`ascii_upcase`."""
    return "".join(c.upper() if c.isascii() else c for c in _text(value, "cannot be uppercased: it is no string"))


def fromjson(ev: Evaluation, value: Any) -> Any:
    """`fromjson`."""
    text = _text(value, "only strings can be parsed")
    ev.budget.make(len(text))
    try:
        read = loads(text)
    except ValueError as error:
        raise JqError(f"{error} (while parsing {shown(value)})") from None
    return _normal(read, MAX_LEVELS)


def _normal(value: Any, levels: int) -> Any:
    if levels == 0:
        raise JqError(f"Exceeds depth limit for parsing: {MAX_LEVELS}")
    if isinstance(value, list):
        return [_normal(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item, levels - 1) for key, item in value.items()}
    return normal(value) if isinstance(value, float) else value


def tonumber(ev: Evaluation, value: Any) -> Any:
    """`tonumber`."""
    if is_number(value):
        return value
    text = _text(value, "cannot be parsed as a number")
    try:
        if len(text) > 400 or set(text) - set("0123456789+-.eE") or text.startswith("+"):
            raise ValueError
        return normal(float(text) if len(text) > 15 or set(text) & set(".eE") else int(text))
    except ValueError:
        raise JqError(f"{shown(value)} cannot be parsed as a number") from None


def matches(ev: Evaluation, value: Any, pattern: Any, flags: Any, test: Any) -> Any:
    """Every match of a pattern (`test`: whether there is one). Raises `JqError`."""
    text = _text(value, "cannot be matched, as it is not a string")
    pattern, chosen = _asked(pattern, flags)
    ev.budget.step(1 + len(text) // 16)
    compiled = _compiled(pattern, "".join(sorted(set(chosen) - {"g", "n"})))
    if test:
        return compiled.search(text) is not None
    found = []
    for match in compiled.finditer(text):
        ev.budget.make(8 + 4 * compiled.groups)
        if match.group() or "n" not in chosen:
            found.append(_shown_match(compiled, match))
            if "g" not in chosen:
                break
    return found


def _asked(pattern: Any, flags: Any) -> tuple[str, str]:
    """A pattern and its flags, which may stand together in an array."""
    if isinstance(pattern, list):
        listed = [*pattern, None, None]
        pattern, flags = listed[0], (flags or "") + (listed[1] or "")
    if not isinstance(pattern, str) or not isinstance(flags or "", str):
        raise JqError(f"{shown(pattern)} cannot be matched, as it is not a string")
    return pattern, flags or ""


def _shown_match(compiled: Any, match: Any) -> dict[str, Any]:
    names = {index: name for name, index in compiled.groupindex.items()}
    captures = [
        {
            "offset": match.start(index),
            "length": 0 if match.group(index) is None else len(match.group(index)),
            "string": match.group(index),
            "name": names.get(index),
        }
        for index in range(1, compiled.groups + 1)
    ]
    return {"offset": match.start(), "length": len(match.group()), "string": match.group(), "captures": captures}


@lru_cache(maxsize=256)
def _compiled(pattern: str, flags: str) -> Any:
    unknown = set(flags) - set("gimnpslx")
    if unknown:
        raise JqError(f"{flags} is not a valid modifier string")
    if len(pattern) > _MAX_PATTERN:
        raise JqError(f"a pattern has more than {_MAX_PATTERN} characters")
    if "x" in flags:
        raise JqError("the modifier x is not available")
    options = re2.Options()
    options.case_sensitive = "i" not in flags
    options.dot_nl = "s" in flags or "p" in flags
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(pattern.replace("(?<", "(?P<"), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise JqError(f"{pattern} (at offset 0) is not a valid regex: {reason}") from None


STRINGS: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    ("utf8bytelength", 0): utf8bytelength,
    ("startswith", 1): startswith,
    ("endswith", 1): endswith,
    ("ltrimstr", 1): ltrimstr,
    ("rtrimstr", 1): rtrimstr,
    ("trimstr", 1): trimstr,
    ("trim", 0): trim,
    ("ltrim", 0): ltrim,
    ("rtrim", 0): rtrim,
    ("explode", 0): explode,
    ("implode", 0): implode,
    ("split", 1): split,
    ("split", 2): split_by,
    ("ascii_downcase", 0): downcase,
    ("ascii_upcase", 0): upcase,
    ("fromjson", 0): fromjson,
    ("tonumber", 0): tonumber,
    ("_match", 3): matches,
}
