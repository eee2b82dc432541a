"""Repeated blocks: fingerprints of runs of lines (winnowing, as in MOSS), then seeds of equal fingerprints grown to their full length."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable

from pydantic import BaseModel

RUN = 6
"""Lines to a fingerprint: shorter repetitions are not looked for."""
WINDOW = 4
"""Of so many fingerprints in a row the least is kept, so that any repetition of RUN + WINDOW - 1 lines is found whatever is kept."""
MOST_PLACES = 40
"""A fingerprint in more places than these is a habit (imports, licences), not a copy."""


class Block(BaseModel):
    """A run of lines that occurs in two places."""

    lines: int
    first: str
    """path:line of one place."""
    second: str
    text: str
    """Its first line."""


class Repeated(BaseModel):
    """What is repeated."""

    total: int
    longest: list[Block]


def normalised(text: str) -> list[tuple[int, str]]:
    """Lines that say something, with their numbers: without white space around, without those that are empty or only punctuation."""
    lines = ((number, " ".join(line.split())) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if any(c.isalnum() for c in line)]


def fingerprints(text: str) -> list[tuple[str, int]]:
    """The fingerprints that are kept of a text, each with the index of its first normalised line."""
    lines = [line for _, line in normalised(text)]
    hashes = [
        hashlib.blake2b("\n".join(lines[i : i + RUN]).encode(), digest_size=6).hexdigest()
        for i in range(len(lines) - RUN + 1)
    ]
    kept: dict[int, str] = {}
    for start in range(max(1, len(hashes) - WINDOW + 1) if hashes else 0):
        window = range(start, min(start + WINDOW, len(hashes)))
        least = min(window, key=lambda i: (hashes[i], -i))
        kept[least] = hashes[least]
    return [(value, index) for index, value in kept.items()]


def repeated(
    prints: Iterable[tuple[str, list[tuple[str, int]]]], read: Callable[[str], str], most: int = 10
) -> list[Block]:
    """The longest repeated blocks.

    Args:
        prints: Paths with their fingerprints.
        read: Gives the text of a path.
        most: How many blocks to return.
    """
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path, kept in prints:
        for value, index in kept:
            places[value].append((path, index))
    texts: dict[str, list[tuple[int, str]]] = {}

    def lines(path: str) -> list[tuple[int, str]]:
        if path not in texts:
            texts[path] = normalised(read(path))
        return texts[path]

    blocks: dict[tuple[str, int, str, int], Block] = {}
    covered: set[tuple[str, int, str, int]] = set()
    for found in places.values():
        if 1 < len(found) <= MOST_PLACES:
            for other in found[1:]:
                _grow(found[0], other, lines, blocks, covered)
    ranked = sorted(blocks.values(), key=lambda block: (-block.lines, block.first, block.second))
    return Repeated(total=len(ranked), longest=ranked[:most])


def _grow(
    one: tuple[str, int],
    two: tuple[str, int],
    lines: Callable[[str], list[tuple[int, str]]],
    blocks: dict[tuple[str, int, str, int], Block],
    covered: set[tuple[str, int, str, int]],
) -> None:
    """Grows a seed in both directions and keeps the block, unless it is part of one that is kept or overlaps itself."""
    (path, i), (other, j) = sorted((one, two))
    if (path, i, other, j) in covered:
        return
    left, right = lines(path), lines(other)
    start = 0
    while i - start > 0 and j - start > 0 and left[i - start - 1][1] == right[j - start - 1][1]:
        start += 1
    i, j, length = i - start, j - start, 0
    while i + length < len(left) and j + length < len(right) and left[i + length][1] == right[j + length][1]:
        covered.add((path, i + length, other, j + length))
        length += 1
    if length >= RUN and not (path == other and abs(j - i) < length):
        block = Block(
            lines=length, first=f"{path}:{left[i][0]}", second=f"{other}:{right[j][0]}", text=left[i][1][:100]
        )
        blocks[path, i, other, j] = block
