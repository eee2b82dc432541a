"""A violation that says more than others. Apart from the checks: modules of structs are not compiled (docs/adr/0021), and those are on every run's way."""

from __future__ import annotations

from tierflow_runtime.values import Violation


class CodedViolation(Violation, frozen=True):
    """A violation that has a more telling code than INVALID_REQUEST."""

    code: str = ""
