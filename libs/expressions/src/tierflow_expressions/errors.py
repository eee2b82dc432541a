"""What goes wrong when an expression is evaluated."""

from __future__ import annotations


class ExpressionError(Exception):
    """An expression could not be evaluated; the text says which and why."""
