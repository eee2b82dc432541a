"""Steps that wait for a message from outside (Q5)."""

from __future__ import annotations

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.kinds.base import Complete, Fail, Kind, Proceed, Wait
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class SignalKind(Kind):
    """Signals that come before the step are kept; each is taken by one step, the oldest first. Its payload is the step's output."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """Takes what is there, else waits."""
        settings = turn.run.spec(step).settings
        if settings["signal"] in turn.run.signals:
            return self.received(turn, step)
        timeout = settings.get("timeout")
        return Wait("SIGNAL", None if timeout is None else turn.now + timeout)

    def received(self, turn: Turn, step: Step) -> Proceed:
        """The oldest one is the output."""
        name = turn.run.spec(step).settings["signal"]
        return Complete(output=turn.run.signals[name][0])

    def due(self, turn: Turn, step: Step) -> Proceed:
        """Nobody has said anything."""
        name = turn.run.spec(step).settings["signal"]
        return Fail(failures.of_step(step, "TIMEOUT", f"No signal {name} came in time.", "signal"))
