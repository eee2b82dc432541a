"""What can go wrong with a jq expression."""

from __future__ import annotations

from typing import Any

from tierflow_expressions.errors import ExpressionError


class JqSyntaxError(Exception):
    """The text is no jq expression; `position` is where, in characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class JqError(ExpressionError):
    """An error of jq's own: what `try` catches. `value` is what `error(value)` was given."""

    def __init__(self, value: Any) -> None:
        super().__init__(value if isinstance(value, str) else f"error({_shown(value)})")
        self.value = value


class JqLimit(ExpressionError):
    """A bound was exceeded. No `try` catches it."""


class Break(Exception):
    """`break $name`, on its way to its label."""

    def __init__(self, label: object) -> None:
        super().__init__("break")
        self.label = label


def _shown(value: Any) -> str:
    return repr(value)[:200]
