"""The events of steering: what somebody's commands lead to, beyond the moves that all runs make."""

from __future__ import annotations

from typing import Any

from tierflow_runtime.values import NO_USAGE, Allocation, Micros, Options, Payload, Usage

from tierflow_orchestrator.core.event import Event


class StepReused(Event):
    """A step's result was taken over from another run."""

    step_id: str
    run_id: str
    output: Payload | None = None
    outcome: str = "SUCCESS"


class StepInterrupted(Event):
    """An attempt was stopped and its step is READY again; the attempt does not count against the retry policy."""

    step_id: str
    attempt: int
    attempt_id: str
    reason: str
    usage: Usage = NO_USAGE


class StepHeld(Event):
    """A step could start, and waits at a breakpoint."""

    step_id: str


class StepReleased(Event):
    """A step may pass its breakpoint."""

    step_id: str


class BreakpointsSet(Event):
    """Before which steps the run pauses from now on."""

    breakpoints: tuple[str, ...] = ()


class RunUpdated(Event):
    """The limits and policies that the run has from now on; `changed` names what was changed."""

    version: int
    allocation: Allocation
    options: Options
    deadline: Micros | None = None
    concurrency: int | None = None
    changed: tuple[str, ...] = ()


class RunMigrated(Event):
    """The run goes on with another version of its flow; `definition` is its canonical text, `flow` is that, compiled by the shell."""

    flow_hash: str
    flow_name: str
    flow_version: str
    definition: str
    flow: Any


class SignalAnswered(Event):
    """The answer that a step gave to a signal."""

    step_id: str
    signal_id: str
    payload: Payload
