"""What the history of a run says of steps within steps, of handlers of errors and of compensation. Told again in the plainest way; it shares no code with the core."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

_COUNTED = re.compile(r"\[\d+\]|#\d+|[^/]*!\d*/")
"""What an id has that the path of its definition has not."""
_HANDLES = re.compile(r"!\d*/[^/\[!#]+$")


def path_of(step_id: str) -> str:
    """The path of a step's definition."""
    return _COUNTED.sub("", step_id)


def helps(step_id: str) -> bool:
    """Whether a step handles another one's error, or compensates it."""
    return step_id.endswith("!compensate") or _HANDLES.search(step_id) is not None


def beside(step_id: str, path: str) -> str:
    """The id of the step beside this one that has this definition."""
    local = path_of(step_id).rpartition("/")[2]
    return step_id[: len(step_id) - len(local)] + path.rpartition("/")[2]


def blocks_of(flow: Any) -> dict[str, list[str]]:
    """By the path of a step: the paths of those that begin with it; empty for the run."""
    begun = {step.id: [inner.id for inner in step.block.steps] for step in flow.by_id.values() if step.block}
    return {"": [step.id for step in flow.steps], **begun}


def compiled_below(step_id: str, definition: str) -> dict[str, Any]:
    """The shape of what has grown below a step."""
    found: dict[str, Any] = {"needs": {}, "blocks": {}}
    _shape(path_of(step_id), json.loads(definition), found)
    return found


def _shape(path: str, step: Any, found: dict[str, Any]) -> None:
    listed = _steps_within(step)
    if listed:
        found["blocks"][path] = _begun_with_block(path, listed)
    for name, each in listed:
        # What its expressions read is checked by the core's own tests.
        found["needs"][f"{path}/{name}"] = ()
        if "compensate" in each:
            found["needs"][f"{path}/{name}!compensate"] = ()
        _shape(f"{path}/{name}", each, found)


def _steps_within(step: Any) -> list[tuple[str, Any]]:
    """The steps of a step's block, each with its id: they are written by id, or as a list."""
    inner = step.get("steps", {}) if isinstance(step, dict) else {}
    return list(inner.items()) if isinstance(inner, dict) else [(each["id"], each) for each in inner]


def _begun_with_block(path: str, listed: Sequence[tuple[str, Any]]) -> list[str]:
    """The paths of the steps that begin with their block: those that handle errors do not."""
    handlers = {each["on_error"]["goto"] for _, each in listed if isinstance(each.get("on_error"), dict)}
    return [f"{path}/{name}" for name, _ in listed if name not in handlers]


class _Checker(Protocol):
    needs: Mapping[str, Sequence[str]] | None
    steps: dict[str, Any]
    blocks: Mapping[str, Sequence[str]] | None
    grown: dict[str, dict[str, Any]]
    state: str
    position: int
    undone: list[str]

    def expect(self, holds: bool, invariant: str, text: str) -> None: ...
    def _step(self, name: str) -> Any: ...
    def _touch(self, name: str) -> Any: ...
    def _needs_ended(self, name: str) -> None: ...
    def _close(self, event: Any, *, known: bool = True) -> Any: ...
    def _check_failure(self, failure: Any, *, in_attempt: bool = False) -> None: ...
    def _inner_ended(self, name: str) -> None: ...
    def _begun(self, name: str, prefix: str) -> None: ...


class BlockRules:
    """V48, V49: blocks begin and end as a whole, handlers run only when they are called for, and what is undone had been done."""

    __slots__ = ()

    def _begun(self: _Checker, name: str, prefix: str) -> None:
        """The steps of a block become known."""
        for path in (self.blocks or {}).get(path_of(name), ()):
            child = prefix + path.rpartition("/")[2]
            self.expect(child not in self.steps, "V48", f"{child} begins twice")
            self._step(name).inner.append(child)
            self._step(child)

    def _inner_ended(self: _Checker, name: str) -> None:
        left = [child for child in self._step(name).inner if not self._step(child).ended]
        self.expect(not left, "V48", f"{name} goes on before {left[:5]} below it have ended")

    def on_BlockBegan(self: _Checker, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """The steps of a block begin."""
        step = self._touch(event.step_id)
        if event.attempt == 1 and not event.step_id.endswith("]"):
            self._needs_ended(event.step_id)
        self._inner_ended(event.step_id)
        self.expect(event.attempt == step.attempt + 1, "V6", f"{event.step_id}: attempt {event.attempt}")
        self.expect(step.due is None or time >= step.due, "V7", f"{event.step_id} began before {step.due}")
        step.attempt, step.due, step.stopping = event.attempt, None, False
        number = "" if event.attempt == 1 else f"#{event.attempt}"
        self._begun(event.step_id, f"{event.step_id}{number}/")

    def on_StepGrown(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A step returned further steps, which begin."""
        step = self._close(event)
        self.expect(step.started, "V2", f"{event.step_id} grew without starting")
        made = compiled_below(event.step_id, event.definition)
        for name, known in (("needs", self.needs), ("blocks", self.blocks)):
            more = made[name]
            self.grown[name].update(more)
            if isinstance(known, dict):
                known.update(more)
        number = "" if event.attempt <= 1 else f"#{event.attempt}"
        self._begun(event.step_id, f"{event.step_id}{number}/")

    def on_IterationBegan(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """The next iteration of a loop begins."""
        step = self._touch(event.step_id)
        if not event.index:
            self._needs_ended(event.step_id)
        self._inner_ended(event.step_id)
        self.expect(event.index == step.iterations, "V48", f"{event.step_id}: iteration {event.index}")
        self.expect(step.due is None or time >= step.due, "V7", f"{event.step_id} began before {step.due}")
        step.iterations, step.due, step.waits = event.index + 1, None, False
        name = f"{event.step_id}[{event.index}]"
        step.inner.append(name)
        self._step(name).attempt = 1
        self._begun(name, f"{name}/")

    def on_HandlerCalled(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A step failed, and another one handles it."""
        if not event.attempt_id:
            self._inner_ended(event.step_id)
        lost = event.failure.code == "EXECUTOR_LOST" or (
            event.failure.cause is not None and event.failure.cause.code == "EXECUTOR_LOST"
        )
        step = self._close(event, known=not lost)
        self.expect(step.aide == "", "V48", f"{event.step_id} calls for {event.handler_step} within a call")
        self.expect(event.handler_step not in self.steps, "V48", f"{event.handler_step} is called for twice")
        step.aide, step.due, step.stopping, step.waits = event.handler_step, None, False, False
        step.inner.append(event.handler_step)
        self._step(event.handler_step)
        self._check_failure(event.failure, in_attempt=bool(event.attempt_id))

    def on_StepReset(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """The step begins anew."""
        step = self._touch(event.step_id)
        self._inner_ended(event.step_id)
        self.expect(self._step(step.aide).completed, "V48", f"{event.step_id} begins anew though nobody said so")
        step.aide, step.due = "", 0

    def on_CompensationBegan(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A step is being undone."""
        step = self._step(event.step_id)
        self.expect(self.state == "COMPENSATING", "V49", f"{event.step_id} is undone while the run is {self.state}")
        self.expect(step.completed and not step.aide, "V49", f"{event.step_id} is undone and was not done")
        self.expect(event.step_id not in self.undone, "V49", f"{event.step_id} is undone twice")
        busy = [name for name in self.undone if not self._step(f"{name}!compensate").ended]
        self.expect(not busy, "V49", f"{event.step_id} is undone while {busy} are")
        near = [name for name in self.undone if _around(name) == _around(event.step_id)]
        before = not near or self._step(near[-1]).completed_at > step.completed_at
        self.expect(before, "V49", f"{event.step_id} is undone after {near[-1:]}, which completed before it")
        self.undone.append(event.step_id)
        self._step(f"{event.step_id}!compensate")

    def on_StepCompensated(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A step is undone."""
        done = self._step(f"{event.step_id}!compensate").completed
        self.expect(done and event.step_id in self.undone, "V49", f"{event.step_id} is said to be undone")

    def on_CompensationFailed(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A step could not be undone."""
        call = self._step(f"{event.step_id}!compensate")
        self.expect(call.ended and not call.completed, "V49", f"{event.step_id} is said not to be undone")
        self._check_failure(event.failure)


def _around(step_id: str) -> str:
    """The id of the step around a step."""
    return step_id[: max(step_id.rfind("/"), step_id.rfind("["), 0)]
