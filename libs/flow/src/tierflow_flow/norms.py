"""Norms: what may be called, what may not, and what must come first (L12). A flow has its own; a service may have a policy, a file of them.

norms:
- {name: no-shell, prohibit: shell.*}
- {name: may-charge, permit: billing.*, if: run.roles.exists(r, r == "cashier")}
- {name: ask-for-much, oblige: billing.charge, if: call.input.amount > 100, approval: {roles: [finance]}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tierflow_expressions.templates import ConditionTemplate

from tierflow_flow.checking import NORM, Checker, Surroundings
from tierflow_flow.definition import Norm
from tierflow_flow.norm_keys import EFFECTS, NORM_NAME, Norms
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, section
from tierflow_flow.shapes import INVALID
from tierflow_flow.source import read_document


@dataclass(frozen=True, slots=True)
class Policy:
    """The norms of a service. What has side effects is denied by it unless a norm permits it."""

    norms: tuple[Norm, ...] = ()
    unreadable: str = ""
    """Why it cannot be read: then nothing is allowed (L14)."""


POLICY = section(
    Key("name", NORM_NAME, "The policy's name."),
    Key("norms", Norms(), "The norms.", required=True),
)


def parse_policy(text: str, form: str = "yaml") -> Policy:
    """The policy of a file's text. Raises `FlowError` with everything that is wrong."""
    document = read_document(text, form)
    problems = Problems(document.lines)
    for place, description in document.problems:
        problems.add(place, description)
    read = POLICY.read(document.value, (), problems)
    checker = Checker(Surroundings(None, frozenset(), frozenset()), problems)
    norms = compile_norms([] if read is INVALID else read.get("norms", []), checker, ("norms",))
    problems.raise_if_any()
    return Policy(norms)


def compile_norms(read: Iterable[Mapping[str, Any]], checker: Checker, place: Place) -> tuple[Norm, ...]:
    """Norms from their normal form; what is wrong with their expressions goes to the checker's problems."""
    return tuple(_norm(norm, checker, (*place, index)) for index, norm in enumerate(read))


def _norm(norm: Mapping[str, Any], checker: Checker, place: Place) -> Norm:
    effect = next((name for name in EFFECTS if name in norm), "prohibit")
    condition = approval = None
    if "if" in norm:
        condition = checker.template(norm["if"], (*place, "if"), as_=ConditionTemplate, whole=True, view=NORM)
    if "approval" in norm:
        approval = checker.template(norm["approval"], (*place, "approval"), view=NORM)
    return Norm(norm["name"], effect, tuple(norm.get(effect, ())), condition, approval, tuple(norm.get("after", ())))


def matches(handler: str, patterns: Iterable[str]) -> bool:
    """Whether a handler's name is among these, in which `*` stands for anything."""
    return any(_match(handler, pattern) for pattern in patterns)


@lru_cache(maxsize=8192)
def _match(handler: str, pattern: str) -> bool:
    """The pieces between the stars, found one after the other: time is linear, whatever somebody writes."""
    first, *others = pattern.split("*")
    if not others:
        return handler == pattern
    if not handler.startswith(first):
        return False
    place = len(first)
    last = others.pop()
    for piece in others:
        found = handler.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return len(handler) - len(last) >= place and handler.endswith(last)
