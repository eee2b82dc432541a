"""Columns as text: the server reads what was meant."""

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_durable.columns import number_array, text_array

TEXTS = st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1)
NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1)
HARD = ['a"b', "\\", "{x,y}", "", " ", "NULL", "null", "\n", "','", 'é"']


async def _read(url: str, kind: str, literal: str) -> list[object]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetchval(f"SELECT $1::text::{kind}[]", literal))
    finally:
        await connection.close()


@pytest.mark.parametrize("column", [HARD, [*HARD, None], ["plain", "words"], [None], [""]])
async def test_texts_come_back(database: str, column: list[str | None]) -> None:
    """R1, Lesson 28: quotes, backslashes, braces and commas of a text are a part of it, and no text is taken for an absent one."""
    assert await _read(database, "text", text_array(column)) == column


@pytest.mark.parametrize("column", [[0, -1, 2**63 - 1], [None, 5], [None]])
async def test_numbers_come_back(database: str, column: list[int | None]) -> None:
    """R1: numbers and absent ones are what they were."""
    assert await _read(database, "bigint", number_array(column)) == column


async def test_truth_values_come_back(database: str) -> None:
    """R1: truth values are what they were."""
    assert await _read(database, "bool", number_array([True, False])) == [True, False]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_every_text_is_quoted_alike(column: list[str | None]) -> None:
    """R1: an array is as many elements as the column has, whatever they hold."""
    literal = text_array(column)
    assert literal[0] + literal[-1] == "{}"
    count, quoted, skip = 1, False, False
    for letter in literal[1:-1]:
        if skip:
            skip = False
        elif letter == "\\" and quoted:
            skip = True
        elif letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            count += 1
    assert (count, quoted) == (len(column), False)
