"""The keys of steps that run another flow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tierflow_flow.limits import MAX_NAME, MAX_VERSION
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, section
from tierflow_flow.shapes import INVALID, Number, refuse

HANDLER_PREFIX = "flow:"
"""Steps that run a flow have this and the flow's reference in the place of a handler's name; norms match it like any other."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REFERENCE = re.compile(
    rf"(?P<name>{_NAME})(@(?P<version>[A-Za-z0-9][A-Za-z0-9._+-]*))?|sha256:(?P<hash>[0-9a-f]{{64}})"
)
MOST = 2**63 - 1


@dataclass(frozen=True)
class FlowReference:
    """A flow by its name, by name and version (`report@2`), or by its content (`sha256:` and 64 hex digits)."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "string", "pattern": rf"^({_NAME}(@[A-Za-z0-9][A-Za-z0-9._+-]*)?|sha256:[0-9a-f]{{64}})$"}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The text."""
        if not isinstance(value, str):
            return refuse("text", value, place, problems)
        name, version, _ = reference_parts(value)
        if not _REFERENCE.fullmatch(value) or len(name) > MAX_NAME or len(version) > MAX_VERSION:
            problems.add(place, f"{value[:60]!r} is no flow: write name, name@version, or sha256: and its hash")
            return INVALID
        return value


def reference_parts(text: str) -> tuple[str, str, str]:
    """Name, version and hash of a reference; empty where it does not say them."""
    found = _REFERENCE.fullmatch(text)
    return ("", "", "") if found is None else (found["name"] or "", found["version"] or "", found["hash"] or "")


_SPENT = (
    Key("credits", Number(0, MOST, whole=True), "Micro-credits."),
    Key("tokens", Number(0, MOST, whole=True), "Tokens."),
    Key("tool_calls", Number(0, MOST, whole=True), "Tool calls."),
)
GRANT = section(Key("steps", Number(0, MOST, whole=True), "Attempts altogether."), *_SPENT)
ATTEMPT_GRANT = section(*_SPENT)
