"""Which tests show which capability, rule, invariant and lesson.

Tests cite ids in docstrings: `A5`, `R7`, `V3`, `Lesson 9`. The tables are docs/capabilities.md, docs/rules.md, docs/invariants.md and docs/lessons.md.

Usage: capabilities.py            lists what no test cites yet
       capabilities.py --update   writes status (planned or part; done is written by hand) and places into docs/capabilities.md
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
CAPABILITIES = ROOT / "docs/capabilities.md"
MOST_PLACES = 4

_ROW = re.compile(r"^\| ([A-QS]\d{1,2}) \| (.+?) \| (planned|part|done) \|(.*)\|$", re.MULTILINE)
_RULE = re.compile(r"^- \*\*(R\d{1,2})\*\*", re.MULTILINE)
_LESSON = re.compile(r"^(\d{1,2})\. ", re.MULTILINE)
_INVARIANT = re.compile(r"^\| (V\d{1,2}) \|", re.MULTILINE)
_ID = re.compile(r"[A-SV]\d{1,2}")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of capabilities."""

    id: str
    status: str
    places: str


def rows() -> list[Row]:
    """All capabilities, in the order of the document."""
    return [Row(found[1], found[3], found[4].strip()) for found in _ROW.finditer(CAPABILITIES.read_text())]


def known() -> set[str]:
    """All ids that a test may cite; lessons as `Lesson 9`."""
    rules = _RULE.findall((ROOT / "docs/rules.md").read_text())
    lessons = _LESSON.findall((ROOT / "docs/lessons.md").read_text())
    invariants = _INVARIANT.findall((ROOT / "docs/invariants.md").read_text())
    return {row.id for row in rows()} | set(rules) | set(invariants) | {f"Lesson {number}" for number in lessons}


def citations() -> dict[str, set[str]]:
    """The test files (relative to the repository) that cite each id."""
    found: dict[str, set[str]] = {}
    for path in test_files():
        for text in _docstrings(path):
            for cited in ids_of(text):
                found.setdefault(cited, set()).add(str(path.relative_to(ROOT)))
    return found


def ids_of(docstring: str) -> list[str]:
    """The ids that a docstring begins with, up to its first colon: `A5, Lesson 9 and 12: ...`; none if anything else stands there."""
    found: list[str] = []
    in_lessons = False
    for word in re.split(r",\s*|\s+", docstring.partition(":")[0].strip()):
        if word in ("Lesson", "Lessons"):
            in_lessons = True
        elif in_lessons and word.isdigit():
            found.append(f"Lesson {word}")
        elif _ID.fullmatch(word):
            in_lessons = False
            found.append(word)
        elif word != "and":
            return []
    return found


def test_files() -> list[pathlib.Path]:
    """All modules with tests."""
    places = [
        ROOT / "tests",
        *ROOT.glob("libs/*/tests"),
        *ROOT.glob("services/*/tests"),
        ROOT / "benchmarks",
        ROOT / "examples",
    ]
    return sorted(path for place in places for path in place.rglob("test_*.py"))


def updated() -> str:
    """The table with status and places as the tests have them."""
    cited = citations()

    def line(found: re.Match[str]) -> str:
        places = sorted(cited.get(found[1], ()))
        status = "done" if found[3] == "done" else "part" if places else "planned"
        more = [f"and {len(places) - MOST_PLACES} more"] if len(places) > MOST_PLACES else []
        shown = ", ".join([f"`{place}`" for place in places[:MOST_PLACES]] + more)
        return f"| {found[1]} | {found[2]} | {status} | {shown} |".replace("|  |", "| |")

    return _ROW.sub(line, CAPABILITIES.read_text())


def _docstrings(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield text


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        CAPABILITIES.write_text(updated())
    missing = sorted(
        known() - set(citations()), key=lambda name: (name.rstrip("0123456789"), int(re.sub(r"\D", "", name)))
    )
    print(
        f"{len(known()) - len(missing)} of {len(known())} are cited by tests; not yet:",
        " ".join(missing).replace("Lesson ", "L."),
    )
