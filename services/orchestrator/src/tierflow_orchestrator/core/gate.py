"""The gate before every dispatch: the norms of the service and those of the flow (L12).

Each set of norms is asked by itself, and all must let the call pass. In a set a prohibition outweighs every permission; what has side effects needs a permission where
the set gives any (a service's policy always does); then every obligation must have been met. Whatever cannot be told is not allowed (L14).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import walk
from tierflow_flow.definition import Norm
from tierflow_flow.norms import matches
from tierflow_runtime.values import Payload, Violation

from tierflow_orchestrator.core import commands, failures
from tierflow_orchestrator.core.kinds.approval import request_of
from tierflow_orchestrator.core.navigator import fail
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import MissingContent, Path, RunScope, parse, text_of
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn
from tierflow_orchestrator.core.verdicts import Asked as Asked
from tierflow_orchestrator.core.verdicts import Denied as Denied


class NotYetKnown(ExpressionError):
    """An expression looks at what is known only when the call is made."""


class CallScope(RunScope):
    """What a norm sees: `call`, and of the run what concerns it as a whole. `ahead`: before there is a call, and perhaps an input."""

    __slots__ = ("_ahead", "_call", "_payload")

    def __init__(
        self, run: Run, step: Step, payload: Payload | None, side_effecting: bool, *, ahead: bool = False
    ) -> None:
        super().__init__(run, step)
        self._ahead = ahead
        self._payload = payload
        self._call: dict[str, Any] = {
            "handler": step.handler,
            "step": step.id,
            "attempt": step.attempt + 1,
            "side_effecting": side_effecting,
        }

    def lookup(self, name: str, path: Path) -> Any:
        """As for a run, and `call`. The input is parsed when it is looked into."""
        if name == "steps":
            raise ExpressionError("norms do not look at steps")
        if self._ahead and (name == "input" or (name == "call" and path[:1] in ((), ("input",), ("attempt",)))):
            raise NotYetKnown(f"{name} is not known yet")
        if name != "call":
            return super().lookup(name, path)
        if "input" not in self._call and (not path or path[0] == "input"):
            self._call["input"] = parse(text_of(self._run, self._payload))
        return walk(self._call, path, name)

    def raw(self, name: str, path: Path) -> str | None:
        """Nothing of a norm is handed on as it is."""
        return None


def passes(turn: Turn, step: Step, payload: Payload, command: commands.AssignSlot) -> bool:
    """Whether the call may be made now. Where not, the step has failed, or people are asked."""
    run = turn.run
    side_effecting = command.side_effecting or run.spec(step).side_effecting
    scope = CallScope(run, step, payload, side_effecting)
    said = judge(run, step, scope, side_effecting)
    if isinstance(said, Asked):
        try:
            template = said.norm.approval
            request = {} if template is None else template.resolve(scope)
            turn.emit(request_of(step, request, turn.now, norm=said.key, input_=payload))
            return False
        except ExpressionError as error:
            said = Denied(said.key, f"nobody can be asked: {error}")
    if said is None:
        return True
    message = f"{step.handler} may not be called by step {step.id}: {said.norm} says so: {said.reason}."
    found = (Violation(field=said.norm, description=said.reason),)
    fail(turn, step, failures.of_step(step, "PERMISSION_DENIED", message, "gate", violations=found))
    return False


def judge(run: Run, step: Step, scope: RunScope, side_effecting: bool) -> Denied | Asked | None:
    """What the norms say of a call; None: it may be made. Denials of all sets come before anybody is asked."""
    asked: Asked | None = None
    for key, norms, closed in _sets(run):
        if isinstance(norms, str):
            return Denied(key, norms)
        said = _judge_set(run, step, scope, key, norms, closed and side_effecting)
        if isinstance(said, Denied):
            return said
        asked = asked or said
    return asked


def foresee(run: Run, step: Step, side_effecting: bool) -> Denied | None:
    """A denial that is certain before the run begins, whatever its input: of what depends on more than user, labels and handler nothing is said."""
    scope = CallScope(run, step, None, side_effecting, ahead=True)
    for key, norms, closed in _sets(run):
        if isinstance(norms, str):
            return Denied(key, norms)
        said = _foresee_set(run, step, scope, key, norms, closed and side_effecting)
        if said is not None:
            return said
    return None


def _foresee_set(
    run: Run, step: Step, scope: RunScope, key: str, norms: tuple[Norm, ...], needs_permission: bool
) -> Denied | None:
    permitted = not needs_permission
    for norm in norms:
        if not matches(step.handler, norm.handlers):
            continue
        try:
            applies: bool | None = _applies(norm, scope)
        except NotYetKnown:
            applies = None
        except ExpressionError as error:
            return Denied(f"{key}:{norm.name}", f"its condition cannot be evaluated: {error}")
        if applies and (reason := _certainly(run, norm)):
            return Denied(f"{key}:{norm.name}", reason)
        permitted = permitted or (norm.effect == "permit" and applies is not False)
    return None if permitted else Denied(key, "it has side effects, and no norm permits it")


def _certainly(run: Run, norm: Norm) -> str:
    """Why a norm that applies denies whatever comes; empty where it does not."""
    if norm.effect == "prohibit":
        return "it is prohibited"
    if norm.effect == "oblige" and norm.after and not _could_be_done(run, norm):
        return f"no step of the flow calls {' or '.join(norm.after)}, which must come before"
    return ""


def _could_be_done(run: Run, norm: Norm) -> bool:
    return any(spec.handler and matches(spec.handler, norm.after) for spec in run.definition().steps)


def _sets(run: Run) -> Iterator[tuple[str, tuple[Norm, ...] | str, bool]]:
    """The sets of norms: name, norms (or why they cannot be read), whether what has side effects needs a permission."""
    if run.policy is not None:
        yield "policy", run.policy.unreadable or run.policy.norms, True
    own = run.definition().norms
    if own:
        yield "flow", own, any(norm.effect == "permit" for norm in own)


def _judge_set(
    run: Run, step: Step, scope: RunScope, key: str, norms: tuple[Norm, ...], needs_permission: bool
) -> Denied | Asked | None:
    applying: dict[str, list[Norm]] = {"prohibit": [], "permit": [], "oblige": []}
    for norm in norms:
        if not matches(step.handler, norm.handlers):
            continue
        try:
            if _applies(norm, scope):
                applying[norm.effect].append(norm)
        except (ExpressionError, MissingContent) as error:
            # A norm of which nobody can say whether it applies might be the one that forbids it.
            return Denied(f"{key}:{norm.name}", f"its condition cannot be evaluated: {error}")
    for norm in applying["prohibit"]:
        return Denied(f"{key}:{norm.name}", "it is prohibited")
    if needs_permission and not applying["permit"]:
        return Denied(key, "it has side effects, and no norm permits it")
    return _obliged(run, step, key, applying["oblige"])


def _applies(norm: Norm, scope: RunScope) -> bool:
    if norm.condition is None:
        return True
    said = norm.condition.resolve(scope)
    if not isinstance(said, bool):
        raise ExpressionError("it is neither true nor false")
    return said


def _obliged(run: Run, step: Step, key: str, norms: list[Norm]) -> Denied | Asked | None:
    asked: Asked | None = None
    for norm in norms:
        name = f"{key}:{norm.name}"
        if norm.after and not _done(run, norm):
            return Denied(name, f"a step that calls {' or '.join(norm.after)} must have completed before")
        if norm.approval is not None and name not in step.granted:
            asked = asked or Asked(name, norm)
    return asked


def _done(run: Run, norm: Norm) -> bool:
    """Whether a step of the flow that calls one of these handlers has completed."""
    for spec in run.definition().steps:
        if spec.handler and matches(spec.handler, norm.after):
            step = run.steps.get(spec.id)
            if step is not None and step.state == "COMPLETED":
                return True
    return False
