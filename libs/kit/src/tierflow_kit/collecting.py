"""A pytest plug-in: `pytest examples/flows` runs every case of every `*.test.yaml` there as a test of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tierflow_flow import Flow

    from tierflow_kit.cases import Case


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Takes test files of flows."""
    if file_path.name.endswith((".test.yaml", ".test.yml")):
        return FlowCases.from_parent(parent, path=file_path)
    return None


class FlowCases(pytest.File):
    """A test file of a flow."""

    def collect(self) -> Iterator[pytest.Item]:
        """Its cases."""
        from tierflow_flow import FlowError

        from tierflow_kit.cases import read_cases

        try:
            read = read_cases(self.path)
        except FlowError as error:
            lines = [f"{self.path}:{problem.line}: {problem.path}: {problem.description}" for problem in error.problems]
            raise self.CollectError("\n".join(lines)) from None
        for case in read.cases:
            yield FlowCase.from_parent(self, name=case.name, flow=read.flow, case=case)


class Differs(Exception):
    """A case did not go as expected."""


class FlowCase(pytest.Item):
    """A case."""

    def __init__(self, *, flow: Flow, case: Case, **more: Any) -> None:
        super().__init__(**more)
        self.flow, self.case = flow, case

    def runtest(self) -> None:
        """Rehearses it."""
        from tierflow_kit.running import run_case

        result = run_case(self.flow, self.case)
        if not result.passed:
            raise Differs("\n".join(result.differences))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The differences, without a trace through the kit."""
        if isinstance(excinfo.value, Differs):
            return f"{self.path}:{self.case.line}: {self.case.name}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is written."""
        return self.path, max(0, self.case.line - 1), self.case.name
