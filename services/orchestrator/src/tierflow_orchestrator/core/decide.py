"""Commands to events: `decide` is where everything that can be asked of a run is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.values import Allocation, BlobRef, Failure, Micros, Options

from tierflow_orchestrator.core import (
    approvals,
    attempts,
    caching,
    children,
    commands,
    ending,
    events,
    failures,
    migrating,
    navigator,
    signals,
    slots,
    steering,
)
from tierflow_orchestrator.core.navigator import look, settle
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.payloads import violations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import parse, text_of
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Decision, Reply, Turn


def decide(run: Run, command: commands.RunCommand, now: Micros) -> Decision:
    """Decides a command at `now` and applies what it led to. A command that does not apply leads to no events."""
    turn = Turn(run, now)
    run.undecided.clear()
    reply = _BY_TYPE[type(command)](turn, command)
    if run.backoff:
        run.make_due(now)
    return Decision(turn.events, reply, turn.blobs)


def _create(turn: Turn, command: commands.CreateRun) -> Reply:
    run = turn.run
    if run.state:
        return turn.refused()
    turn.emit(
        events.RunCreated(
            context=command.context,
            flow_hash=command.flow_hash,
            flow_name=command.flow_name,
            flow_version=command.flow_version,
            input=command.input,
            allocation=command.allocation,
            options=command.options,
            reuse=command.reuse,
        )
    )
    for one in command.reused:
        turn.emit(
            events.StepReused(
                step_id=one.step_id,
                run_id=command.reuse.run_id if command.reuse is not None else "",
                output=one.output,
                outcome=one.outcome,
            )
        )
    if run.options.not_before is None or run.options.not_before <= turn.now:
        _prepare(turn)
    return turn.applied()


def _bury(turn: Turn, command: commands.Bury) -> Reply:
    if turn.run.state:
        return turn.refused()
    turn.emit(
        events.RunCreated(
            context=command.context,
            flow_hash="",
            flow_name="",
            flow_version="",
            input=None,
            allocation=Allocation(),
            options=Options(),
        )
    )
    return _cancel(turn, command.cancel)


def _prepare(turn: Turn) -> None:
    """From QUEUED to RUNNING, as far as it is possible now."""
    run = turn.run
    if run.state == "QUEUED":
        turn.emit(events.RunStateChanged(from_="QUEUED", to="PREPARING"))
    if run.flow is None:
        return
    failure = _input_failure(run)
    if failure is not None:
        ending.end(turn, "FAILED", "FAILURE", failure=failure)
        return
    turn.emit(events.RunStateChanged(from_="PREPARING", to="RUNNING"))
    if run.flow.program is not None:
        NAVIGATORS[run.flow.navigator].start(turn)
    settle(turn)


def _input_failure(run: Run) -> Failure | None:
    schema = run.definition().input_schema
    if schema is None:
        return None
    try:
        found = violations(schema, parse(text_of(run, run.input)), "input")
    except ExpressionError as error:
        return failures.made("INPUT_INVALID", f"The input: {error}", "prepare")
    if not found:
        return None
    message = "The input does not match the flow's input schema."
    return failures.made("INPUT_INVALID", message, "prepare", violations=found)


def _fail_prepare(turn: Turn, command: commands.FailPrepare) -> Reply:
    if turn.run.state not in ("QUEUED", "PREPARING"):
        return turn.refused()
    ending.end(turn, "FAILED", "FAILURE", failure=command.failure)
    return turn.applied()


def _wake_up(turn: Turn, command: commands.WakeUp) -> Reply:
    run, now = turn.run, turn.now
    if not run.state or run.ended or run.state in ("CANCELLING", "COMPENSATING"):
        return turn.refused()
    if run.deadline is not None and now >= run.deadline:
        ending.stop(turn, "DEADLINE_EXCEEDED")
        settle(turn)
    elif run.state == "PREPARING" or (run.state == "QUEUED" and now >= (run.options.not_before or 0)):
        _prepare(turn)
    else:
        navigator.fire(turn)
    return Reply(applied=bool(turn.events), state=run.state)


def _told(turn: Turn, command: commands.Pause | commands.Resume | commands.Cancel, name: str) -> Reply | None:
    """Journals what somebody told the run; the answer where nothing more is to be done (rule R14)."""
    run = turn.run
    if command.command_id in run.commands:
        # Whether it applied is answered as the first time; where the run is, as it is now: whoever asks again wants to know whether it is done.
        return Reply(applied=run.commands[command.command_id][0], state=run.state)
    if not run.state or run.ended:
        return turn.refused()
    earlier = () if isinstance(command, commands.Cancel) else command.supersedes
    turn.emit(
        events.CommandReceived(
            command_id=command.command_id,
            command=name,
            actor=command.actor,
            reason=command.reason,
            superseded=steering.overtaken(run, earlier),
        )
    )
    applied, state = run.commands[command.command_id]
    return None if applied else Reply(applied=False, state=state)


def _pause(turn: Turn, command: commands.Pause) -> Reply:
    answer = _told(turn, command, "interrupt" if command.interrupt else "pause")
    if answer is None:
        if turn.run.state != "PAUSING":
            _change(turn, "PAUSING", command)
        if command.interrupt:
            steering.interrupt(turn)
        settle(turn)
    return answer or turn.applied()


def _resume(turn: Turn, command: commands.Resume) -> Reply:
    answer = _told(turn, command, "resume")
    if answer is None:
        run = turn.run
        steering.release(turn)
        again = run.state != "SUSPENDED" and (bool(run.asked) or run.only_waits)
        _change(turn, "SUSPENDED" if again else "RUNNING", command)
        if run.signals and run.definition().program is not None:
            navigator.fire(
                turn
            )  # Events that came meanwhile may be what its tasks listen for; nothing else looks for them.
        else:
            settle(turn)
    return answer or turn.applied()


def _retry(turn: Turn, command: commands.Retry) -> Reply:
    reply = steering.retry(turn, command)
    if turn.events:
        _prepare(turn)
        return steering.answer(turn.run, applied=True)
    return reply


def _cancel(turn: Turn, command: commands.Cancel) -> Reply:
    answer = _told(turn, command, "cancel")
    if answer is None:
        ending.stop(turn, command.reason, command.actor)
        settle(turn)
    return answer or turn.applied()


def _abort(turn: Turn, command: commands.Abort) -> Reply:
    run = turn.run
    if not run.state or run.ended:
        return turn.refused()
    if run.state not in ("CANCELLING", "COMPENSATING"):
        ending.stop(turn, "INTERNAL")
    for step_id in tuple(run.live):
        attempts.give_up(turn, run.steps[step_id], "INTERNAL")
    look(turn)
    ending.end(turn, "FAILED", "FAILURE", failure=command.failure)
    return turn.applied()


def _change(turn: Turn, to: str, command: commands.Pause | commands.Resume) -> None:
    turn.emit(events.RunStateChanged(from_=turn.run.state, to=to, reason=command.reason, actor=command.actor))


_BY_TYPE: dict[type, Callable[[Turn, Any], Reply]] = {
    commands.CreateRun: _create,
    commands.Bury: _bury,
    commands.AssignSlot: slots.assign,
    commands.Recall: caching.recall,
    commands.ReportStarted: attempts.started,
    commands.ReportResult: attempts.result,
    commands.ReportLost: attempts.lost,
    commands.ReportUnconfirmed: attempts.unconfirmed,
    commands.WakeUp: _wake_up,
    commands.FailPrepare: _fail_prepare,
    commands.Pause: _pause,
    commands.Resume: _resume,
    commands.Cancel: _cancel,
    commands.Abort: _abort,
    commands.Signal: signals.receive,
    commands.DecideApproval: approvals.receive,
    commands.Retry: _retry,
    commands.Skip: steering.skip,
    commands.StepOnce: steering.step_once,
    commands.SetBreakpoints: steering.set_breakpoints,
    commands.Update: steering.update,
    commands.Migrate: migrating.migrate,
    commands.ReportTold: children.told,
    commands.ReportTool: attempts.called,
}


_BRINGING: Final = (commands.Recall, commands.ReportResult)
"""Commands that bring an output. As a union beside `isinstance` it would be made anew for every command."""


def missing_blobs(run: Run, command: commands.RunCommand | None) -> list[str]:
    """SHA-256 names of the stored values that must be in `run.contents` before `command` is decided (None: before anything is)."""
    wanted: dict[str, None] = {}
    if isinstance(command, commands.CreateRun):
        wanted = _created_with(command)
    elif isinstance(run.input, BlobRef):
        wanted[run.input.sha256] = None
    if run.flow is not None:
        if isinstance(command, _BRINGING) and isinstance(command.output, BlobRef):
            wanted.update(_brought(run, command, command.output))
        if run.large:
            wanted.update(_looked_into(run))
            if isinstance(command, commands.AssignSlot):
                wanted.update(dict.fromkeys(slots.embedded(run, command.step_id)))
    return [sha256 for sha256 in wanted if sha256 not in run.contents]


def _created_with(command: commands.CreateRun) -> dict[str, None]:
    """The input of a run, and the results that it takes over, as far as they are stored."""
    payloads = (command.input, *(one.output for one in command.reused))
    return {payload.sha256: None for payload in payloads if isinstance(payload, BlobRef)}


def _looked_into(run: Run) -> dict[str, None]:
    """Stored outputs that may be looked into and are not at hand; each is asked for once."""
    if run.unloaded is None:
        run.unloaded = {ref.sha256: None for name, refs in run.large.items() if run.looks_into(name) for ref in refs}
    for sha256 in tuple(run.unloaded):
        if sha256 in run.contents:
            del run.unloaded[sha256]
    return run.unloaded


def _brought(run: Run, command: commands.Recall | commands.ReportResult, output: BlobRef) -> dict[str, None]:
    """An output that is reported, or was found, where it is going to be looked into."""
    if isinstance(command, commands.ReportResult):
        return _looked_at(run, attempts.current(run, command.attempt_id), output)
    return _looked_at(run, run.steps.get(command.step_id), output)


def _looked_at(run: Run, step: Step | None, output: BlobRef) -> dict[str, None]:
    if step is None:
        return {}
    spec = run.spec(step)
    if run.looks_into(step.of) or spec.output_schema is not None or spec.rules or spec.grows is not None:
        return {output.sha256: None}
    return {}
