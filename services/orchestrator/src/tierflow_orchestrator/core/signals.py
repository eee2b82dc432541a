"""Messages to a run: refused at once where no step can ever take them, kept otherwise (Q5)."""

from __future__ import annotations

from typing import Final

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.definition import StepSpec
from tierflow_runtime.values import Failure, Violation

from tierflow_orchestrator.core import commands, events, failures
from tierflow_orchestrator.core.navigator import fire
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.payloads import INLINE_BYTES, violations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import parse
from tierflow_orchestrator.core.states import COMMANDS
from tierflow_orchestrator.core.turn import Reply, Turn

MOST_KEPT: Final = 1_000
"""Signals that a run keeps until steps take them."""


def receive(turn: Turn, command: commands.Signal) -> Reply:
    """A message: journaled, and taken at once where a step waits for it."""
    run = turn.run
    if command.command_id in run.commands:
        return turn.applied()
    if run.state not in COMMANDS["signal"]:
        return turn.refused()
    message = _taken(turn, command) if run.definition().program is not None else _refusal(run, command)
    if isinstance(message, Failure):
        return turn.refused(message)
    turn.emit(
        events.SignalReceived(
            signal_id=command.command_id, name=command.name, payload=message or command.payload, actor=command.actor
        )
    )
    if run.state in ("RUNNING", "SUSPENDED"):
        fire(turn)
    return turn.applied()


def _taken(turn: Turn, command: commands.Signal) -> str | Failure:
    """What is kept of a message to a definition that another navigator walks, or why it is refused."""
    run = turn.run
    navigator = NAVIGATORS[run.definition().navigator]
    try:
        return navigator.refusal(run) or _too_much(run, command) or navigator.message(turn, command)
    except ExpressionError as error:
        return _invalid("payload", str(error))


def _refusal(run: Run, command: commands.Signal) -> Failure | None:
    steps = [spec for spec in run.definition().steps if spec.kind == "signal"]
    taking = [spec for spec in steps if spec.settings["signal"] == command.name]
    if not taking:
        names = ", ".join(sorted({spec.settings["signal"] for spec in steps})) or "none at all"
        return _invalid("name", f"the flow waits for no signal {command.name[:60]!r}; it waits for: {names}")
    return _too_much(run, command) or _mismatch(command, taking)


def _too_much(run: Run, command: commands.Signal) -> Failure | None:
    if sum(map(len, run.signals.values())) >= MOST_KEPT:
        return failures.made("QUEUE_FULL", f"{MOST_KEPT} signals wait to be taken.", "signal", retryable=True)
    if len(command.payload.encode()) > INLINE_BYTES:
        return failures.made("PAYLOAD_TOO_LARGE", f"A signal has at most {INLINE_BYTES} bytes.", "signal")
    return None


def _mismatch(command: commands.Signal, taking: list[StepSpec]) -> Failure | None:
    try:
        value = parse(command.payload)
    except ExpressionError as error:
        return _invalid("payload", str(error))
    for spec in taking:
        found = violations(spec.settings.get("schema", {}), value, "payload")
        if found:
            message = f"The signal does not match the schema of step {spec.id}."
            return failures.made("INVALID_REQUEST", message, "signal", violations=found)
    return None


def _invalid(field: str, description: str) -> Failure:
    found = (Violation(field=field, description=description),)
    return failures.made("INVALID_REQUEST", f"The signal was refused: {description}.", "signal", violations=found)
