"""What the product must not ask of Postgres."""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from sources import ROOT

NOTIFYING = re.compile(r"\b(NOTIFY|LISTEN|UNLISTEN|pg_notify|add_listener)\b")
COUNTING = re.compile(r"\b(SEQUENCE|SERIAL|BIGSERIAL|nextval|GENERATED)\b", re.IGNORECASE)
HOLDING = re.compile(r"\.transaction\(|\bBEGIN\s*[;\"']|\bSTART TRANSACTION\b")


def _sources(*endings: str) -> dict[str, str]:
    found = {}
    for folder in (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src")):
        if folder.parent.name in ("contracts", "testing"):
            continue
        for ending in endings:
            found.update({str(path.relative_to(ROOT)): path.read_text() for path in folder.rglob(f"*{ending}")})
    return found


def test_no_notifications() -> None:
    """Lesson 40: NOTIFY takes a global lock at commit; nothing here sends or hears notifications."""
    texts = _sources(".sql", ".py")
    assert len(texts) > 100
    assert [name for name, text in texts.items() if NOTIFYING.search(text)] == []


def test_no_sequences() -> None:
    """Lesson 42: numbers from a sequence have holes in commit order; nothing here takes one."""
    texts = _sources(".sql")
    assert len(texts) >= 6
    assert [name for name, text in texts.items() if COUNTING.search(text)] == []


def test_no_transactions_of_clients() -> None:
    """F26, F31, R1: no code opens a transaction; every change is one statement, or several sent as one, which the server itself undoes if they fail."""
    texts = _sources(".py", ".sql")
    assert [name for name, text in texts.items() if HOLDING.search(text)] == []
