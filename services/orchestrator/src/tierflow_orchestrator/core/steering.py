"""What somebody may tell a run beyond pause, resume and cancel: retry, skip, one step, breakpoints, other limits. See docs/states.md for what is possible when.

What cannot be is refused with STATE_CONFLICT, naming the state, and leaves no trace; what is done is journaled with its command, by whom and why.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from tierflow_runtime.values import Allocation, Failure, Options, Violation

from tierflow_orchestrator.core import commands, events, failures, generations
from tierflow_orchestrator.core.branches import being_stopped
from tierflow_orchestrator.core.ending import cancel_below
from tierflow_orchestrator.core.navigator import go_on, settle
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import COMMANDS
from tierflow_orchestrator.core.steer import Steer
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Reply, Turn

Steering: TypeAlias = (
    commands.Retry | commands.Skip | commands.StepOnce | commands.SetBreakpoints | commands.Update | commands.Migrate
)


def answer(run: Run, *, applied: bool) -> Reply:
    """How the run stands after a command."""
    version = run.steer.version if run.steer is not None else 0
    return Reply(applied=applied, state=run.state, version=version, generation=run.generation)


def known(run: Run, command: Steering) -> Reply | None:
    """The answer to a command that came before (V16)."""
    if command.command_id not in run.commands:
        return None
    return answer(run, applied=run.commands[command.command_id][0])


def journal(turn: Turn, command: Steering, name: str, detail: str = "", superseded: tuple[str, ...] = ()) -> None:
    """Somebody has said so, and it is going to be done."""
    turn.emit(
        events.CommandReceived(
            command_id=command.command_id,
            command=name,
            actor=command.actor,
            reason=command.reason,
            detail=detail,
            superseded=superseded,
        )
    )


def overtaken(run: Run, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the commands that have not come: they were said before the present one, and change nothing when they come (rule R14)."""
    return tuple(command_id for command_id in ids if command_id not in run.commands)


def conflict(run: Run, name: str, why: str = "") -> Failure | None:
    """Why a command cannot be, in the state that the run is in; None where it can."""
    if run.state in COMMANDS[name] and not why:
        return not_of_documents(run, name)
    possible = ", ".join(COMMANDS[name])
    message = why or f"{name}: the run is {run.state or 'not there'}; it must be {possible}."
    return failures.made("STATE_CONFLICT", message, name)


def not_of_documents(run: Run, name: str) -> Failure | None:
    """The tasks of a document become known as it is walked, and another version may number them otherwise."""
    if run.flow is None or run.flow.program is None or name != "migrate":
        return None
    return failures.made("UNSUPPORTED", f"{name}: not for documents that are walked task by task; run it anew.", name)


def invalid(field: str, description: str, name: str) -> Failure:
    """A command that makes no sense for this run, whatever its state."""
    found = (Violation(field=field, description=description),)
    return failures.made("INVALID_REQUEST", f"{name}: {field} {description}.", name, violations=found)


# --- the next generation ---


def retry(turn: Turn, command: commands.Retry) -> Reply:
    """From FAILED to QUEUED. Asked for a generation that is open already, or was, it changes nothing."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    if command.generation and run.state and run.generation >= command.generation:
        return answer(run, applied=True)
    if (failure := conflict(run, "retry")) is not None:
        return turn.refused(failure)
    target = max(command.generation, run.generation + 1)
    reset = _made_anew(run)
    journal(turn, command, "retry", f"generation {target}", overtaken(run, command.supersedes))
    turn.emit(
        events.RunStateChanged(
            from_=run.state,
            to="QUEUED",
            reason=command.reason,
            actor=command.actor,
            generation=target,
            reset_steps=reset,
        )
    )
    _fund(turn, command)
    return answer(run, applied=True)


def _fund(turn: Turn, command: commands.Retry) -> None:
    """What Tier 1 grants to the new generation, where that is other than what the run had."""
    run = turn.run
    allocation = msgspec.structs.replace(
        run.allocation, **{name: amount or None for name, amount in command.funds.items()}
    )
    changed = tuple(name for name in command.funds if getattr(allocation, name) != getattr(run.allocation, name))
    if command.deadline is not None:
        changed = (*changed, "deadline")
    if changed:
        _emit_update(turn, changed, allocation=allocation, deadline=command.deadline)


def _made_anew(run: Run) -> tuple[str, ...]:
    """The steps that a retry makes anew; maps of which only some items run again are not among them."""
    if run.flow is None or run.flow.program is not None or not run.steps:
        return ()
    found = generations.again(run)
    partly = generations.in_part(run, found)
    return tuple(step_id for step_id in found if step_id not in partly)


# --- single steps ---


def skip(turn: Turn, command: commands.Skip) -> Reply:
    """Ends a step by hand, once its attempts in flight have stopped."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    step = run.steps.get(command.step_id)
    failure = conflict(run, "skip") or _not_to_skip(run, step, command.step_id)
    if failure is not None or step is None:
        return turn.refused(failure)
    journal(turn, command, "skip", command.step_id)
    _skip(turn, step, command)
    go_on(turn)
    settle(turn)
    return answer(run, applied=True)


def _not_to_skip(run: Run, step: Step | None, step_id: str) -> Failure | None:
    if step is None:
        return invalid("step_id", f"{step_id[:60]!r} is no step of this run", "skip")
    if step.ended or step.stop_to:
        state = step.state if step.ended else "being stopped"
        return conflict(run, "skip", f"skip: step {step.id} is {state}.")
    if step.frame is not None and not step.frame.parent:
        return conflict(run, "skip", "skip: a document is not skipped as a whole; cancel the run.")
    return None


def _skip(turn: Turn, step: Step, command: commands.Skip) -> None:
    why = f"skipped by hand: {command.reason}" if command.reason else "skipped by hand"
    if step.frame is not None:
        NAVIGATORS[turn.run.definition().navigator].leave(turn, step, why)
    if not step.holds and not step.in_flight:
        turn.emit(events.StepSkipped(step_id=step.id, reason=why, by_hand=True, output=command.output))
        return
    attempt_id = step.attempt_id if step.in_flight else ""
    turn.emit(
        events.StepStopping(step_id=step.id, reason=why, then="SKIPPED", attempt_id=attempt_id, output=command.output)
    )
    if step.holds:
        cancel_below(turn, step, why)


def interrupt(turn: Turn) -> None:
    """The run pauses: attempts in flight are stopped, and their steps are going to be READY again."""
    run = turn.run
    for step_id in tuple(run.live):
        step = run.steps[step_id]
        # Runs of other flows pause by themselves: they are told (`children`).
        if not step.child and not being_stopped(run, step):
            turn.emit(events.StepStopping(step_id=step_id, reason="PAUSED", then="READY", attempt_id=step.attempt_id))


# --- step by step ---


def set_breakpoints(turn: Turn, command: commands.SetBreakpoints) -> Reply:
    """Pauses before other steps from now on; steps that are READY already count."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    failure = conflict(run, "breakpoints")
    if failure is not None:
        return turn.refused(failure)
    wanted = tuple(dict.fromkeys(command.breakpoints))
    journal(turn, command, "breakpoints", " ".join(wanted)[:1000])
    turn.emit(events.BreakpointsSet(breakpoints=wanted))
    if wanted and run.state == "RUNNING":
        run.undecided.extend(step.id for step in _waiting_to_start(run) if not step.held)
        settle(turn)
    return answer(run, applied=True)


def _waiting_to_start(run: Run) -> list[Step]:
    return [step for step in run.steps.values() if step.state == "READY" and not step.is_item]


def release(turn: Turn) -> None:
    """The run is resumed: what waits at breakpoints may pass."""
    steer = turn.run.steer
    for step_id in tuple(steer.held) if steer is not None else ():
        turn.emit(events.StepReleased(step_id=step_id))


def step_once(turn: Turn, command: commands.StepOnce) -> Reply:
    """Lets what is READY start, or only one step, and holds all that comes after."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    ready = _waiting_to_start(run)
    failure = conflict(run, "step") or _nothing_to_step(run, ready, command.step_id)
    if failure is not None:
        return turn.refused(failure)
    journal(turn, command, "step", command.step_id)
    for step in ready:
        if command.step_id in ("", step.id):
            turn.emit(events.StepReleased(step_id=step.id))
        elif not step.held:
            turn.emit(events.StepHeld(step_id=step.id))
    turn.emit(events.RunStateChanged(from_=run.state, to="RUNNING", reason="STEP", actor=command.actor))
    settle(turn)
    return answer(run, applied=True)


def _nothing_to_step(run: Run, ready: list[Step], step_id: str) -> Failure | None:
    if run.asked:
        return conflict(
            run, "step", f"step: {next(iter(run.asked))} was lost and waits for a decision; resume, skip it, or cancel."
        )
    if step_id and step_id not in [step.id for step in ready]:
        return conflict(run, "step", f"step: {step_id[:60]} is not ready to start.")
    if not (ready or run.waits or run.startable):
        return conflict(run, "step", "step: nothing is ready to start.")
    return None


# --- limits and policies ---


def update(turn: Turn, command: commands.Update) -> Reply:
    """Other limits and policies, from the next decision on (C12)."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    failure = conflict(run, "update") or _wrong_update(turn, command)
    if failure is not None:
        return turn.refused(failure)
    changed = tuple(name for name in _CHANGES if getattr(command, name) not in (None, ""))
    journal(turn, command, "update", " ".join(changed))
    turn.emit(
        _updated(
            run.steer or Steer(),
            run,
            changed,
            allocation=_other_allocation(run, command, changed),
            options=_other_options(run, command, changed),
            deadline=command.deadline,
            concurrency=command.concurrency,
        )
    )
    settle(turn)
    return answer(run, applied=True)


_LIMITS = ("concurrent_steps", "steps", "credits", "tokens", "tool_calls")
_CHANGES = ("concurrency", *_LIMITS, "deadline", "failure_policy", "retry")


def _other_allocation(run: Run, command: commands.Update, changed: tuple[str, ...]) -> Allocation:
    limits = {name: getattr(command, name) or None for name in _LIMITS if name in changed}
    return msgspec.structs.replace(run.allocation, **limits)


def _other_options(run: Run, command: commands.Update, changed: tuple[str, ...]) -> Options:
    policies = {name: getattr(command, name) for name in ("failure_policy", "retry") if name in changed}
    return msgspec.structs.replace(run.options, **policies)


def _wrong_update(turn: Turn, command: commands.Update) -> Failure | None:
    version = turn.run.steer.version if turn.run.steer is not None else 0
    if command.expected_version is not None and command.expected_version != version:
        return conflict(turn.run, "update", f"update: the version is {version}, not {command.expected_version}.")
    if all(getattr(command, name) in (None, "") for name in _CHANGES):
        return invalid("changes", "changes nothing", "update")
    if command.deadline is not None and command.deadline <= turn.now:
        return invalid("changes.deadline", "has passed", "update")
    return None


def _emit_update(turn: Turn, changed: tuple[str, ...], *, allocation: Allocation, deadline: int | None) -> None:
    run = turn.run
    turn.emit(
        _updated(run.steer or Steer(), run, changed, allocation=allocation, options=run.options, deadline=deadline)
    )


def _updated(
    steer: Steer,
    run: Run,
    changed: tuple[str, ...],
    *,
    allocation: Allocation,
    options: Options,
    deadline: int | None,
    concurrency: int | None = None,
) -> events.RunUpdated:
    return events.RunUpdated(
        version=steer.version + 1,
        allocation=allocation,
        options=options,
        deadline=deadline if "deadline" in changed else steer.deadline,
        concurrency=concurrency if "concurrency" in changed else steer.concurrency,
        changed=changed,
    )
