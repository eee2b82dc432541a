"""Columns of a batch as the server reads arrays in text.

The driver looks at every element of a list several times, to see whether it is a list itself; to join texts costs a third of it (measured: 1.4 against 4.4 µs
for an entity's row).
"""

from __future__ import annotations

from collections.abc import Sequence


def text_array(column: Sequence[str | None]) -> str:
    """Texts and ids as an array: quoted, and escaped where they need it."""
    if None in column:
        return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in column]) + "}"
    joined = '","'.join(column)  # type: ignore[arg-type]  # none of them is None
    if "\\" in joined or joined.count('"') != 2 * len(column) - 2:
        return "{" + ",".join([_quoted(text or "") for text in column]) + "}"
    return '{"' + joined + '"}'


def number_array(column: Sequence[int | None]) -> str:
    """Whole numbers, or truth values, as an array."""
    return ("{" + ",".join(map(str, column)) + "}").replace("None", "NULL")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
