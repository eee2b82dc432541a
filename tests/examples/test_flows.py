"""The flows in examples/ use their handlers as those are."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tierflow_executor.handlers.http import Request
from tierflow_executor.handlers.shell import Shell
from tierflow_flow.source import read_document

FLOWS = sorted(
    path for path in (pathlib.Path(__file__).parents[2] / "examples").iterdir() if path.suffix in (".yaml", ".json")
)
STRICT: dict[str, type[BaseModel]] = {"http.request": Request, "shell.run": Shell}
"""Built-in handlers that refuse keys they do not know."""


def _calls(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    steps: Any = read_document(path.read_text(), path.suffix[1:]).value["steps"]
    for step in steps.values() if isinstance(steps, dict) else steps:
        if step.get("call") in STRICT and isinstance(step.get("with"), dict):
            yield step["call"], step["with"]


@pytest.mark.parametrize("path", FLOWS, ids=[path.name for path in FLOWS])
def test_inputs_have_the_keys_of_their_handlers(path: pathlib.Path) -> None:
    """E2: no example hands a built-in handler a key that it would refuse, or leaves out one that it needs."""
    for handler, given in _calls(path):
        fields = STRICT[handler].model_fields
        assert set(given) <= set(fields), handler
        assert {name for name, field in fields.items() if field.is_required()} <= set(given), handler


def test_some_are_looked_at() -> None:
    """E2: the examples do call these handlers."""
    assert {handler for path in FLOWS for handler, _ in _calls(path)} == set(STRICT)
