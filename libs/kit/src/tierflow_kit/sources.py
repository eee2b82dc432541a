"""Flows from files."""

from __future__ import annotations

from pathlib import Path

from tierflow_flow import Flow as Flow
from tierflow_flow import FlowError as FlowError
from tierflow_flow import from_canonical, parse
from tierflow_flow.schema import flow_schema_text as schema_text

__all__ = ["Flow", "FlowError", "form_of", "load", "read_text", "schema_text", "stored"]

FORMS = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def form_of(path: Path) -> str:
    """`yaml` or `json`, by the file's ending."""
    return FORMS.get(path.suffix, "yaml")


def read_text(path: Path) -> str:
    """The text of a file. Raises `OSError`; bytes that are no text are refused as `ValueError`."""
    return path.read_bytes().decode()


def load(path: Path) -> Flow:
    """The flow in a file. Raises `FlowError`, `OSError`."""
    return parse(read_text(path), form_of(path))


def stored(definition: str) -> Flow:
    """A flow from the canonical definition that a server keeps. Raises `FlowError`."""
    return from_canonical(definition)
