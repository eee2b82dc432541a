"""What the history of a run says of variables, of stored results and of steps that are stopped alone."""

from __future__ import annotations

from typing import Any, Protocol

from tierflow_contracts.common.v1 import state_pb2


class _Checker(Protocol):
    def expect(self, holds: bool, invariant: str, text: str) -> None: ...
    def _touch(self, name: str) -> Any: ...
    def _needs_ended(self, name: str) -> None: ...


class StepRules:
    """V2 to V5 for these events."""

    __slots__ = ()

    def on_CacheMissed(self: _Checker, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """No stored result has the step's key."""
        self._touch(event.step_id)
        self._needs_ended(event.step_id)

    def on_VariablesSet(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """Variables have other values as of the step."""
        self._touch(event.step_id)
        self._needs_ended(event.step_id)

    def on_StepStopping(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """What is in flight of the step is told to stop."""
        step = self._touch(event.step_id)
        something = bool(step.live or step.inner) or step.expanded >= 0
        self.expect(something, "V5", f"{event.step_id} is stopped with nothing in flight")
        self.expect(not step.stopping or step.comes_back, "V2", f"{event.step_id} is stopped twice")
        step.stopping, step.comes_back = True, event.then in ("READY", state_pb2.STEP_STATE_READY)
