"""The keys of approvals and norms: who decides, and what may be called at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tierflow_flow.kind_shapes import DurationText
from tierflow_flow.limits import MAX_APPROVERS, MAX_DESCRIPTION, MAX_HANDLER, MAX_NAME, MAX_NORMS, MAX_RUN_TIMEOUT
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, section
from tierflow_flow.shapes import INVALID, Anything, Condition, Number, Text, Texts, refuse

EFFECTS = ("permit", "prohibit", "oblige")
HANDLERS = Text(
    MAX_HANDLER, 1, r"[A-Za-z0-9_.*:@+-]+", "a handler's name, in which * stands for anything, such as billing.*"
)
NORM_NAME = Text(MAX_NAME, 1, r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, '.', '_' and '-'")


def _check_named(read: dict[str, Any], place: Place, problems: Problems) -> None:
    if not (read.get("users") or read.get("roles")):
        problems.add(place, "names nobody: give users or roles")


def _check_approval(read: dict[str, Any], place: Place, problems: Problems) -> None:
    _check_named(read, place, problems)
    if "escalate" in read and "timeout" not in read:
        problems.add(place, "escalate needs timeout: after it the others are asked")


ESCALATION = section(
    Key("users", Anything(kind="array"), "Users who may decide as well."),
    Key("roles", Anything(kind="array"), "Roles whose holders may decide as well."),
    Key("timeout", DurationText(1_000, MAX_RUN_TIMEOUT), "How long they have; then it is rejected."),
    finish=_check_named,
)
APPROVAL = section(
    Key("message", Text(MAX_DESCRIPTION), "What is asked, with expressions."),
    Key("users", Anything(kind="array"), "Users who may decide."),
    Key("roles", Anything(kind="array"), "Roles whose holders may decide."),
    Key("needed", Number(1, MAX_APPROVERS, whole=True), "So many different people must approve.", default=1),
    Key("timeout", DurationText(1_000, MAX_RUN_TIMEOUT), "Longest wait; then it is escalated, else rejected."),
    Key("escalate", ESCALATION, "Who is asked as well when the timeout is over."),
    finish=_check_approval,
)


def _check_norm(read: dict[str, Any], place: Place, problems: Problems) -> None:
    given = [effect for effect in EFFECTS if effect in read]
    if len(given) != 1:
        problems.add(place, f"has one of {', '.join(EFFECTS)}, with the handlers that it is about")
    elif not read[given[0]]:
        problems.add((*place, given[0]), "names no handler")
    _check_obligation(read, place, problems)


def _check_obligation(read: dict[str, Any], place: Place, problems: Problems) -> None:
    wanted = [key for key in ("approval", "after") if key in read]
    if "oblige" in read and len(wanted) != 1:
        problems.add(place, "oblige says what must come first: approval or after, one of them")
    elif "oblige" not in read and wanted:
        problems.add((*place, wanted[0]), "belongs to oblige")


NORM = section(
    Key("name", NORM_NAME, "The norm's name; failures and histories tell it.", required=True),
    Key("permit", Texts(HANDLERS), "Handlers that may be called."),
    Key("prohibit", Texts(HANDLERS), "Handlers that may not be called."),
    Key("oblige", Texts(HANDLERS), "Handlers that may be called only after something else."),
    Key("if", Condition(), "When the norm applies: an expression over call, run, input and vars; always without it."),
    Key("approval", APPROVAL, "Of oblige: people who must approve each call."),
    Key("after", Texts(HANDLERS), "Of oblige: handlers of which a step must have completed in the run."),
    finish=_check_norm,
)


@dataclass(frozen=True)
class Norms:
    """A list of norms."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "array", "items": NORM.schema, "maxItems": MAX_NORMS}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The norms, of those that could be read."""
        if not isinstance(value, list):
            return refuse("a list of norms", value, place, problems)
        if len(value) > MAX_NORMS:
            problems.add(place, f"{len(value)} norms; at most {MAX_NORMS} are allowed")
            return INVALID
        read: dict[str, Any] = {}
        for index, item in enumerate(value):
            norm = NORM.read(item, (*place, index), problems)
            if norm is INVALID or "name" not in norm:
                continue
            if norm["name"] in read:
                problems.add((*place, index, "name"), f"norm {norm['name']!r} twice")
            read[norm["name"]] = norm
        return list(read.values())
