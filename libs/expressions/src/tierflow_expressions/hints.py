"""What people mean who come from elsewhere: signs and functions of other languages, and ours for them; and names that are nearly right. For messages only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

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
_MAX_CANDIDATES = 300
_MAX_WORD = 40


def function_hint(name: str) -> str:
    """A hint where a function is called as in another language: `; did you mean size?`, or nothing."""
    ours = _FUNCTIONS.get(name.lower())
    return f"; did you mean {ours}?" if ours is not None else ""


def sign_hint(sign: object) -> str:
    """The same for a word or sign in an expression."""
    return _SIGNS.get(str(sign), "")


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint for a message: `; did you mean x?`, or nothing."""
    candidates = list(words)
    if len(candidates) > _MAX_CANDIDATES or len(word) > _MAX_WORD:
        return ""
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
