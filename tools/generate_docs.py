"""Writes the parts of docs/ that are drawn from the code, so that they cannot say anything else than the code does.

Each document is one function in `DOCUMENTS`. A document whose source does not exist is an error, not an empty page.

Usage: generate_docs.py [--check]   with --check nothing is written, and the exit code says whether the pages are up to date.
"""

import pathlib
import sys
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import docs_api
import docs_errors
import docs_reliability
import docs_settings
import docs_states

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTE = "<!-- Drawn from the code by `make docs`; do not edit. -->\n\n"

DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/errors.md": docs_errors.page,
    "docs/states.md": docs_states.page,
    "docs/reliability.md": docs_reliability.page,
    "docs/settings.md": docs_settings.page,
    "docs/reference/api.md": docs_api.page,
}


def outdated() -> dict[pathlib.Path, str]:
    """The pages that differ from what the code gives, with their right text."""
    fresh = {ROOT / name: NOTE + make() for name, make in DOCUMENTS.items()}
    return {path: text for path, text in fresh.items() if not path.exists() or path.read_text() != text}


if __name__ == "__main__":
    pages = outdated()
    if sys.argv[1:] == ["--check"]:
        names = [f"not up to date: {path.relative_to(ROOT)}" for path in pages]
        sys.exit("\n".join([*names, "make docs brings them up to date"]) if names else 0)
    for page, content in pages.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(content)
        print(page.relative_to(ROOT))
