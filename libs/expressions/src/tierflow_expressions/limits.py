"""The bounds of expressions and templates, in one place; docs/flows.md lists them."""

from __future__ import annotations

MAX_EXPRESSION = 4_096
"""Characters of one expression."""
MAX_EXPRESSION_DEPTH = 32
MAX_COMPREHENSIONS = 2
"""Comprehensions (map, filter, all, exists, exists_one) inside one another."""
MAX_COST = 500_000
"""Units that one evaluation may spend: one for each step inside a comprehension, each item and each 8 characters made."""
MAX_RESULT_NODES = 1_000_000
"""Values in the result of an expression, each counted as often as it would be written."""
MAX_RESULT_DEPTH = 200
MAX_RANGE = 100_000
MAX_RESOLVED = 32 << 20
"""Characters of a template with its holes filled."""
