"""The navigator `serverless`: documents of the CNCF Serverless Workflow DSL, walked like programs. docs/navigators.md says what a navigator is."""

from __future__ import annotations

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.values import Failure, Payload, Usage

from tierflow_orchestrator.core import commands, failures
from tierflow_orchestrator.core.breakpoints import hold, stops_before
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.serverless import listening, tasks, walking
from tierflow_orchestrator.core.serverless.errors import Raised
from tierflow_orchestrator.core.serverless.requests import output_of, request_of
from tierflow_orchestrator.core.serverless.scope import program_of
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Serverless:
    """See `tierflow_orchestrator.core.navigators.Navigator`."""

    def start(self, turn: Turn) -> None:
        """The document as a whole is a task."""
        walking.enter(turn, None, program_of(turn.run).root, turn.run.input)

    def look(self, turn: Turn, step: Step) -> None:
        """A task begins, unless somebody holds it; or one in it has ended."""
        if step.state == "READY":
            if turn.run.gated and stops_before(turn.run, step):
                hold(turn, step)
            else:
                tasks.begin(turn, step)
        elif step.state == "RUNNING":
            tasks.go_on(turn, step)

    def leave(self, turn: Turn, step: Step, reason: str) -> None:
        """Somebody skips a task: what is in it is stopped."""
        walking.stop_below(turn, step, reason)

    def due(self, turn: Turn, step: Step) -> None:
        """A wait, a delay or a timeout is over."""
        tasks.due(turn, step)

    def told(self, turn: Turn) -> bool:
        """Events go to the tasks that listen."""
        return listening.offer(turn)

    def refusal(self, run: Run) -> Failure | None:
        """A document that listens takes every event."""
        if program_of(run).listens:
            return None
        return failures.made("INVALID_REQUEST", "The signal was refused: no task of the document listens.", "signal")

    def message(self, turn: Turn, command: commands.Signal) -> str:
        """A signal as a CloudEvent. Raises `ExpressionError`."""
        return listening.envelope(command, turn.run, turn.now)

    def input(self, turn: Turn, step: Step) -> Payload:
        """What a call's handler is given. Raises `ExpressionError`."""
        return request_of(turn, step)

    def came(self, turn: Turn, step: Step, output: Payload | None, usage: Usage) -> None:
        """An attempt came with a result."""
        attempt, attempt_id = step.attempt, step.attempt_id
        try:
            value = output_of(turn, step, output)
        except (ExpressionError, Raised) as error:
            walking.fail(turn, step, error, attempt=attempt, attempt_id=attempt_id, usage=usage)
            return
        walking.complete(turn, step, value, attempt=attempt, attempt_id=attempt_id, usage=usage)

    def failed(self, turn: Turn, step: Step, failure: Failure, *, attempt: int, attempt_id: str, usage: Usage) -> None:
        """A step failed for good: the task around it hears of it."""
        walking.fail_with(turn, step, failure, attempt=attempt, attempt_id=attempt_id, usage=usage)
