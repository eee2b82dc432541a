"""What a run needs before its first step: executors, permissions, limits, sound inputs of handlers. All that is missing is said at once (L7).

What depends on the flow alone is kept for a while, and forgotten whenever an executor comes or goes or the policy changes; the rest is a few look-ups. Nothing here
asks anybody: executors have introduced themselves, the policy is in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import orjson
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_flow import Flow, StepSpec
from tierflow_flow.norms import Policy
from tierflow_runtime.errors import failure
from tierflow_runtime.schema import compile_schema
from tierflow_runtime.values import Allocation, Context, Failure, Violation

from tierflow_orchestrator.core import gate
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.dispatcher import Dispatcher

KEEP: Final = 30.0
"""Seconds for which what was found about a flow is kept."""

MOST_KEPT: Final = 1000


class Unmet(NamedTuple):
    """Something that is missing; `refuses`: no run begins without it."""

    code: str
    field: str
    description: str
    hint: str
    refuses: bool = True


class _Kept(NamedTuple):
    until: float
    changes: int
    policy: Policy | None
    unmet: tuple[Unmet, ...]
    certain: frozenset[str]


class Prerequisites:
    """Looks at flows before they run."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        policy: Callable[[], Policy | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dispatcher = dispatcher
        self._policy = policy
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self.looks = 0
        """Flows that were looked at as a whole."""

    def unmet(self, flow: Flow, context: Context, allocation: Allocation) -> list[Unmet]:
        """Everything that a run of this flow would lack now, for this user and with these limits."""
        kept = self._of_flow(flow)
        found = list(kept.unmet)
        if allocation.steps is not None and allocation.steps < len(kept.certain):
            what = f"is {allocation.steps}; the flow makes at least {len(kept.certain)} calls"
            found.append(Unmet("BUDGET_EXHAUSTED", "allocation.steps", what, "grant more steps, or none at all"))
        if kept.policy is not None or flow.norms:
            found += self._denied(flow, context, kept)
        return found

    def refusal(self, flow: Flow, context: Context, allocation: Allocation) -> Failure | None:
        """Why a run does not begin: one failure with everything; None where nothing is missing for certain."""
        unmet = self.unmet(flow, context, allocation)
        return refusal_of(unmet) if unmet else None

    def _of_flow(self, flow: Flow) -> _Kept:
        kept = self._kept.get(flow.hash)
        changes, policy, now = self._dispatcher.changes, self._policy(), self._clock()
        if kept is not None and kept.changes == changes and kept.policy is policy and now < kept.until:
            return kept
        self.looks += 1
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        certain = certain_calls(flow)
        found = (*self._executors(flow), *self._inputs(flow, certain), *_environment(flow))
        self._kept[flow.hash] = kept = _Kept(now + KEEP, changes, policy, found, certain)
        return kept

    def _executors(self, flow: Flow) -> Iterator[Unmet]:
        links = self._dispatcher.links()
        seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        missing = set(self._dispatcher.missing(flow.handlers))
        for spec in flow.by_id.values():
            wanted = (spec.handler, tuple(spec.labels.items()))
            if not spec.handler or spec.kind == "flow" or wanted in seen:
                continue
            seen.add(wanted)
            if spec.handler in missing:
                what = f"no living executor offers {spec.handler}"
                hint = "start one that does (TIERFLOW_HANDLERS), or correct the flow"
                yield Unmet("HANDLER_NOT_FOUND", f"steps.{spec.id}.call", what, hint)
            elif not any(link.offers(spec.handler, spec.labels) for link in links):
                labels = ", ".join(f"{name}={value}" for name, value in spec.labels.items())
                what = f"no living executor that offers {spec.handler} has the labels {labels}"
                yield Unmet("HANDLER_NOT_FOUND", f"steps.{spec.id}.labels", what, "start one with these labels")

    def _inputs(self, flow: Flow, certain: frozenset[str]) -> Iterator[Unmet]:
        """What can be told of the handlers' inputs without running anything. Handlers may take more than their schemas say; what they need they need."""
        texts = {name: self._dispatcher.input_schema(name) for name in flow.handlers}
        for spec in flow.by_id.values():
            text = texts.get(spec.handler)
            if not text:
                continue
            hint = f"see what {spec.handler} takes: tierflow executors --handlers"
            at = f"steps.{spec.id}.with"
            sure = spec.id in certain and spec.on_error != "continue"
            for name in _lacking(spec, text):
                yield Unmet("INPUT_INVALID", at, f"{name} is missing, which {spec.handler} requires", hint, sure)
            for violation in _doubtful(spec, text, at):
                yield Unmet("INPUT_INVALID", violation.field, violation.description, hint, False)

    def _denied(self, flow: Flow, context: Context, kept: _Kept) -> Iterator[Unmet]:
        run = Run.fresh("")
        run.flow, run.policy, run.context = flow, kept.policy, context
        run.flow_name, run.flow_version = flow.name, flow.version
        seen: dict[tuple[str, bool], gate.Denied | None] = {}
        for spec in flow.by_id.values():
            if not spec.handler:
                continue
            effects = spec.side_effecting or self._dispatcher.is_side_effecting(spec.handler)
            if (spec.handler, effects) not in seen:
                step = Step(id=spec.id, of=spec.id, handler=spec.handler)
                seen[spec.handler, effects] = gate.foresee(run, step, effects)
            denied = seen[spec.handler, effects]
            if denied is not None:
                what = f"{spec.handler} may not be called: {denied.norm} says so: {denied.reason}"
                hint = "ask who keeps the norms, or take the step out"
                surely = spec.id in kept.certain and spec.on_error != "continue"
                yield Unmet("PERMISSION_DENIED", f"steps.{spec.id}.call", what, hint, surely)


def certain_calls(flow: Flow) -> frozenset[str]:
    """Steps that call a handler in every run of the flow that completes: nothing decides about them or about what they need."""
    certain: dict[str, bool] = {}
    pending = [spec.id for spec in flow.steps]
    while pending:
        spec = flow.by_id[pending[-1]]
        needs = list(filter(flow.by_id.__contains__, spec.needs))
        unknown = [need for need in needs if need not in certain]
        pending += unknown
        if not unknown:
            pending.pop()
            certain[spec.id] = _is_plain(flow, spec) and all(map(certain.__getitem__, needs))
    return frozenset(spec.id for spec in flow.steps if spec.kind == "call" and certain[spec.id])


def _is_plain(flow: Flow, spec: StepSpec) -> bool:
    return spec.condition is None and not spec.chosen_by and spec.id not in flow.joins


def _lacking(spec: StepSpec, schema: str) -> list[str]:
    """Names that a handler requires and that the step does not give it."""
    tree = getattr(spec.with_, "tree", None)
    if not isinstance(tree, dict):
        return []
    required = orjson.loads(schema).get("required", [])
    return [name for name in required if name not in tree]


def _doubtful(spec: StepSpec, schema: str, at: str) -> list[Violation]:
    """What does not match in an input that is written out; a handler may take it all the same."""
    if not spec.with_.constant:
        return []
    found = compile_schema(schema).violations(getattr(spec.with_, "tree", None), at=at)
    return [violation for violation in found if violation.field != at]


def _environment(flow: Flow) -> Iterator[Unmet]:
    """Variables that are listed and not set: an expression may have a default for them, so that nothing is refused for it."""
    for index, name in enumerate(flow.env):
        if name not in os.environ:
            what = f"{name} is not set in this orchestrator's environment"
            yield Unmet("CONFIGURATION", f"env[{index}]", what, "set it where orchestrators are started", False)


def refusal_of(unmet: Iterable[Unmet]) -> Failure | None:
    """One failure that says all that refuses a run; its code is that of the first."""
    found = [each for each in unmet if each.refuses]
    if not found:
        return None
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    violations = tuple(
        Violation(
            field=f"input.flow.{each.field}" if each.field.startswith("steps.") else each.field,
            description=f"{each.description}; {each.hint}",
        )
        for each in found
    )
    message = f"{first.description}: {first.hint}{more}"
    return failure(first.code, message, component="prerequisites", operation="start_run", violations=violations)


def shown(unmet: Iterable[Unmet]) -> list[flow_pb2.Prerequisite]:
    """As messages."""
    return [
        flow_pb2.Prerequisite(
            code=each.code, field=each.field, description=each.description, hint=each.hint, refuses=each.refuses
        )
        for each in unmet
    ]
