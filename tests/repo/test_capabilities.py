"""The list of capabilities and what the tests say they show."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import capabilities


def test_cited_ids_exist() -> None:
    """O3: a test that cites an id cites one that is in the documents."""
    unknown = {
        cited: sorted(places) for cited, places in capabilities.citations().items() if cited not in capabilities.known()
    }
    assert unknown == {}


def test_what_is_done_is_shown() -> None:
    """O3: a capability that is marked done is cited by a test, and the table names places that cite it."""
    cited = capabilities.citations()
    unproven = [row.id for row in capabilities.rows() if row.status == "done" and row.id not in cited]
    assert unproven == []
    wrong = [
        f"{row.id}: {place}"
        for row in capabilities.rows()
        if row.status == "done"
        for place in row.places.split(", ")
        if place.startswith("`") and place.strip("`") not in cited.get(row.id, ())
    ]
    assert wrong == [], "make capabilities brings the table up to date"


def test_documents_are_complete() -> None:
    """O3: 34 rules, 45 lessons, and every capability once."""
    ids = [row.id for row in capabilities.rows()]
    assert len(ids) == len(set(ids)) == 313
    known = capabilities.known()
    assert {f"R{number}" for number in range(1, 35)} <= known
    assert {f"Lesson {number}" for number in range(1, 46)} <= known


def test_every_test_cites_something() -> None:
    """O3: a test without a capability, rule or lesson behind it shows nothing that anybody asked for."""
    silent = {str(path.relative_to(capabilities.ROOT)) for path in capabilities.test_files()}
    silent -= {place for places in capabilities.citations().values() for place in places}
    assert silent == set()


@pytest.mark.parametrize(
    ("docstring", "ids"),
    [
        ("A5: text", ["A5"]),
        ("A5, R7 and Lesson 9: text", ["A5", "R7", "Lesson 9"]),
        ("Lessons 5, 12, A9: text", ["Lesson 5", "Lesson 12", "A9"]),
        ("Something about A5: text", []),
        ("No colon A5", []),
        ("", []),
    ],
)
def test_head_of_a_docstring(docstring: str, ids: list[str]) -> None:
    """O3: ids count only where they stand first."""
    assert capabilities.ids_of(docstring) == ids


def test_what_is_missing_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """O3: the list of what no test shows yet; information, not a failure."""
    missing = sorted({row.id for row in capabilities.rows()} - set(capabilities.citations()))
    with capsys.disabled():
        print(f"\ncapabilities cited by tests: {313 - len(missing)} of 313", end="")
    assert len(missing) < 313
