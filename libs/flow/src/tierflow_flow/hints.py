"""What people mean who come from elsewhere: words, signs and functions of other languages, and ours for them. For messages only."""

from __future__ import annotations

from collections.abc import Container, Mapping

_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("uses", "run", "handler", "action", "activity", "function", "task", "type"), "call"),
    **dict.fromkeys(("args", "arguments", "inputs", "input", "params", "parameters"), "with"),
    **dict.fromkeys(("dependson", "requires", "after", "dependencies", "next"), "needs"),
    **dict.fromkeys(("when", "condition"), "if"),
    **dict.fromkeys(("foreach", "each", "withitems"), "map"),
    **dict.fromkeys(("jobs", "tasks", "stages", "states"), "steps"),
    **dict.fromkeys(("retries", "attempts"), "retry"),
    **dict.fromkeys(("sleep", "delay", "pause"), "wait"),
    **dict.fromkeys(("continueonerror", "catch", "onfailure"), "on_error"),
    **dict.fromkeys(("outputs", "result", "returns"), "output"),
    **dict.fromkeys(("variables", "constants"), "vars"),
    **dict.fromkeys(("rollback", "undo", "compensation"), "compensate"),
    **dict.fromkeys(("title", "label"), "name"),
}
_ELSEWHERE = ("map", "wait")
"""Keys that tell another kind of step: they are meant even where the kind at hand does not have them."""
_FUNCTIONS: Mapping[str, str] = {
    **dict.fromkeys(("len", "length", "count"), "size"),
    **dict.fromkeys(("str", "tostring", "format"), "string"),
    **dict.fromkeys(("number", "float", "tonumber"), "double"),
    **dict.fromkeys(("tojson", "stringify", "json_encode"), "json"),
    **dict.fromkeys(("fromjson", "parse", "json_decode"), "from_json"),
    **dict.fromkeys(("tolower", "lowercase", "ascii_downcase"), "lower"),
    **dict.fromkeys(("toupper", "uppercase", "ascii_upcase"), "upper"),
    **dict.fromkeys(("strip",), "trim"),
    **dict.fromkeys(("coalesce", "get", "ifnull"), "default"),
}
_SIGNS: Mapping[str, str] = {
    "=": "; == compares",
    "and": "; write &&",
    "or": "; write ||",
    "not": "; write !",
    "is": "; == compares",
    "|": "; || is or, and functions are called: size(x)",
    "&": "; && is and",
}


def key_hint(name: str, keys: Container[str]) -> str:
    """A hint where a key looks like that of another language: `; did you mean call?`, or nothing."""
    ours = _KEYS.get(name.lower().replace("-", "").replace("_", ""))
    if ours is not None and (ours in keys or (ours in _ELSEWHERE and "call" in keys)):
        return f"; did you mean {ours}?"
    if any(sign in name for sign in "(){}=!<>&|"):
        return "; put what has commas in quotes, within braces and brackets"
    return ""


def function_hint(name: str) -> str:
    """The same for a function."""
    ours = _FUNCTIONS.get(name.lower())
    return f"; did you mean {ours}?" if ours is not None else ""


def sign_hint(sign: object) -> str:
    """The same for a word or sign in an expression."""
    return _SIGNS.get(str(sign), "")
