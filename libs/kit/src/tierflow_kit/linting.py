"""Lint: everything that is wrong with a flow or a test file, and what is suspicious, each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tierflow_flow import Flow, FlowError, parse
from tierflow_flow.definition import Problem
from tierflow_flow.source import read_document

from tierflow_kit.blocks import every_step, text_paths
from tierflow_kit.cases import SUFFIX, read_cases
from tierflow_kit.findings import SEVERITIES, Finding
from tierflow_kit.positions import Positions
from tierflow_kit.sources import form_of, read_text
from tierflow_kit.suspicions import Suspicion, suspicions

_SILENCE = re.compile(r"#\s*lint:\s*ignore\b\s*([\w\s,-]*)")
_STEPS = re.compile(r"^steps\s*:", re.MULTILINE)
UNKNOWN_HANDLER = "unknown-handler"


class Linted:
    """A file, what it holds where it is a flow without errors, and what was found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flow: Flow | None = None
        self.findings: list[Finding] = []
        try:
            text = read_text(path)
        except UnicodeDecodeError as error:
            self._positions = Positions("")
            self._add("error", "invalid", Problem("flow", f"is no UTF-8 text: {error.reason}"))
            return
        self._positions = Positions(text)
        if path.stem.endswith(SUFFIX):
            self._test_file()
        else:
            self._flow(text)
        self._sort()

    @property
    def lines(self) -> Sequence[str]:
        """The text by lines, for frames."""
        return self._positions.lines

    def missing(self, handlers: Iterable[str]) -> None:
        """Adds that no living executor offers these handlers."""
        if self.flow is None:
            return
        gone = frozenset(handlers)
        for spec in every_step(self.flow):
            if spec.handler in gone:
                path, message = f"{self.path_of(spec.id)}.call", f"no living executor offers {spec.handler}"
                self._suspect(
                    Suspicion(UNKNOWN_HANDLER, "error", path, message, "tierflow executors lists what there is")
                )
        self._sort()

    def path_of(self, step_id: str) -> str:
        """The path of a step in the text."""
        return self._paths.get(step_id, f"steps.{step_id}")

    def _flow(self, text: str) -> None:
        self._paths: dict[str, str] = {}
        try:
            document = read_document(text, form_of(self.path)).value
            self.flow = parse(text, form_of(self.path))
        except FlowError as error:
            for problem in error.problems:
                self._add("error", "invalid", problem)
            return
        self._paths = text_paths(document)
        for found in suspicions(self.flow, document):
            self._suspect(found)

    def _test_file(self) -> None:
        try:
            read_cases(self.path)
        except FlowError as error:
            for problem in error.problems:
                self._add("error", "invalid", problem)

    def _add(self, severity: str, code: str, problem: Problem) -> None:
        span = self._positions.of(problem.path, problem.description, problem.line)
        message, hint = _hint(problem.description)
        self.findings.append(
            Finding(str(self.path), span.line, span.column, span.width, severity, code, problem.path, message, hint)
        )

    def _suspect(self, found: Suspicion) -> None:
        span = self._positions.key(found.path)
        if not self._silenced(span.line, found.code):
            self.findings.append(
                Finding(
                    str(self.path),
                    span.line,
                    span.column,
                    span.width,
                    found.severity,
                    found.code,
                    found.path,
                    found.message,
                    found.hint,
                )
            )

    def _silenced(self, line: int, code: str) -> bool:
        """Whether a comment on the line, or alone on the line before, says to ignore it."""
        for number in (line, line - 1):
            text = self.lines[number - 1] if 0 < number <= len(self.lines) else ""
            said = _SILENCE.search(text)
            if said and (number == line or text.lstrip().startswith("#")):
                names = said[1].replace(",", " ").split()
                if not names or code in names:
                    return True
        return False

    def _sort(self) -> None:
        self.findings.sort(key=lambda found: (found.line, found.column, SEVERITIES.index(found.severity)))


def looks_like_one(path: Path) -> bool:
    """Whether a YAML file among others is a flow or a test file."""
    try:
        return path.stem.endswith(SUFFIX) or bool(_STEPS.search(read_text(path)))
    except (OSError, UnicodeDecodeError):
        return False


def lint(path: Path) -> Linted:
    """Everything that is wrong with a file or suspicious in it. Raises `OSError`."""
    return Linted(path)


def _hint(description: str) -> tuple[str, str]:
    """A description as what is wrong, and what to do."""
    if description.startswith("not YAML"):
        return description, ""
    message, _, hint = description.partition("; ")
    return message, hint
