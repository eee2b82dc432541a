"""What people mean who come from elsewhere: keys of other languages, and ours for them. For messages only."""

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


def key_hint(name: str, keys: Container[str]) -> str:
    """A hint where a key looks like that of another language: `; did you mean call?`, or nothing."""
    ours = _KEYS.get(name.lower().replace("-", "").replace("_", ""))
    if ours is not None and (ours in keys or (ours in _ELSEWHERE and "call" in keys)):
        return f"; did you mean {ours}?"
    if any(sign in name for sign in "(){}=!<>&|"):
        return "; put what has commas in quotes, within braces and brackets"
    return ""
