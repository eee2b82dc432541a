"""Fuzzing of the flow language in this process: whatever the text, reading it ends soon, either with a flow or with its problems."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.evaluate import Frame
from tierflow_expressions.expressions import compile_expression
from tierflow_expressions.lexer import ExpressionSyntaxError
from tierflow_expressions.scope import PlainScope
from tierflow_flow import Flow, FlowError, from_canonical, parse

from tierflow_testing.fuzzing.texts import SCOPE, expression, flow_text, hostile_expressions

PARSE_SECONDS = 4.0
"""Processor seconds that the largest text may take to be read."""
EVALUATE_SECONDS = 2.0
"""Processor seconds that any expression may take to be evaluated."""
MEMORY = 1 << 30
"""Bytes by which the process may grow over a whole session."""


@dataclass(slots=True)
class Language:
    """A session: how much was tried, what was dearest, what went wrong."""

    seed: str
    flows: int = 0
    accepted: int = 0
    expressions: int = 0
    evaluated: int = 0
    dearest_flow: float = 0.0
    dearest_expression: float = 0.0
    findings: list[str] = field(default_factory=list)
    _before: int = field(default_factory=lambda: _peak())

    def run(self, count: int = 0, until: float = 0.0) -> None:
        """So many flows and ten times as many expressions; or as many as there is time for until that moment (monotonic seconds)."""
        for text in hostile_expressions():
            self._expression(f"{self.seed}/hostile", text)
        number = 0
        while number < count or time.monotonic() < until:
            name = f"{self.seed}/language/{number}"
            chance = random.Random(name)
            self._flow(name, *flow_text(chance))
            for _ in range(10):
                self._expression(name, expression(chance))
            number += 1
        grown = _peak() - self._before
        if grown > MEMORY:
            self.findings.append(f"reading took {grown >> 20} MiB")

    def _flow(self, name: str, text: str, form: str) -> None:
        self.flows += 1
        flow, took = self._tried(name, text, lambda: parse(text, form), FlowError)
        self.dearest_flow = max(self.dearest_flow, took)
        if took > PARSE_SECONDS:
            self._found(name, f"reading a flow took {took:.1f} s", text)
        if isinstance(flow, FlowError):
            if not flow.problems or any(not isinstance(problem.description, str) for problem in flow.problems):
                self._found(name, "a flow was refused without a problem", text)
            return
        if isinstance(flow, Flow):
            self.accepted += 1
            again, _ = self._tried(name, text, lambda: from_canonical(flow.canonical), ())
            if not isinstance(again, Flow) or again.hash != flow.hash:
                self._found(name, "the canonical form is another flow", text)

    def _expression(self, name: str, text: str) -> None:
        self.expressions += 1
        compiled, took = self._tried(name, text, lambda: compile_expression(text), ExpressionSyntaxError)
        if compiled is None or isinstance(compiled, ExpressionSyntaxError):
            return
        self.evaluated += 1
        frame = Frame(PlainScope(SCOPE))
        value, more = self._tried(name, text, lambda: compiled.evaluate(frame), ExpressionError)
        self.dearest_expression = max(self.dearest_expression, took + more)
        if took + more > EVALUATE_SECONDS:
            self._found(name, f"an expression took {took + more:.1f} s", text)
        if not isinstance(value, Exception):
            self._encodable(name, text, value)

    def _encodable(self, name: str, text: str, value: Any) -> None:
        try:
            orjson.dumps(value)
        except TypeError as error:
            if "64-bit" not in str(error):  # longer integers are handed on as they came
                self._found(name, f"a value that is not JSON: {error}", text)

    def _tried(self, name: str, text: str, attempt: Callable[[], Any], expected: Any) -> tuple[Any, float]:
        began = time.thread_time()
        try:
            result = attempt()
        except expected as error:
            result = error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._found(name, f"{type(error).__name__}: {str(error)[:300]}", text)
            result = None
        return result, time.thread_time() - began

    def _found(self, name: str, what: str, text: str) -> None:
        shown = repr(text if len(text) < 3_000 else f"{text[:1_500]}…{text[-500:]}")
        self.findings.append(f"{name}: {what}\n  {shown}")


def _peak() -> int:
    """The most memory that this process has held, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
