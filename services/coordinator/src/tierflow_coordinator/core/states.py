"""The states of a swarm: which there are, which may follow which, and what each command does in each of them.

These tables are the only place that knows; the docs' picture and the tests are made from them. Names are those of `SwarmState` without prefix; the state before the first event is an empty string.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tierflow_runtime.values import Failure, FailureError

NEW = ""
STARTING = "STARTING"
RUNNING = "RUNNING"
IDLE = "IDLE"
PAUSING = "PAUSING"
PAUSED = "PAUSED"
STOPPING = "STOPPING"
STOPPED = "STOPPED"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
TERMINATED = "TERMINATED"

STATES = (STARTING, RUNNING, IDLE, PAUSING, PAUSED, STOPPING, STOPPED, COMPLETED, FAILED, TERMINATED)
ENDED = frozenset((STOPPED, COMPLETED, FAILED, TERMINATED))
ALIVE = tuple(state for state in STATES if state not in ENDED)

TRANSITIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        NEW: frozenset((STARTING,)),
        STARTING: frozenset((RUNNING, PAUSING, STOPPING, *ENDED)),
        RUNNING: frozenset((IDLE, PAUSING, STOPPING, *ENDED)),
        IDLE: frozenset((RUNNING, PAUSED, STOPPING, *ENDED)),
        # A result may overtake a pause: what the run says is the truth.
        PAUSING: frozenset((PAUSED, STARTING, RUNNING, STOPPING, *ENDED)),
        PAUSED: frozenset((STARTING, RUNNING, IDLE, STOPPING, *ENDED)),
        STOPPING: ENDED,
        STOPPED: frozenset(),
        COMPLETED: frozenset(),
        # Into the next generation (rule R31); to STARTING where no orchestrator had taken the run.
        FAILED: frozenset((STARTING, RUNNING)),
        TERMINATED: frozenset(),
    }
)

PAUSE = "pause"
INTERRUPT = "interrupt"
"""A pause that stops attempts in flight."""
RETRY = "retry"
RESUME = "resume"
CANCEL = "cancel"
STOP = "stop"
TERMINATE = "terminate"

COMMANDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        PAUSE: MappingProxyType({STARTING: PAUSING, RUNNING: PAUSING, IDLE: PAUSED}),
        INTERRUPT: MappingProxyType({STARTING: PAUSING, RUNNING: PAUSING, IDLE: PAUSED, PAUSING: PAUSING}),
        RETRY: MappingProxyType({FAILED: RUNNING}),
        # Back to STARTING where no orchestrator has taken the run yet: see `resumed`.
        RESUME: MappingProxyType({PAUSING: RUNNING, PAUSED: RUNNING}),
        # STOPPING to STOPPING: a cancel makes a graceful stop an immediate one.
        CANCEL: MappingProxyType(
            {
                STARTING: STOPPING,
                RUNNING: STOPPING,
                IDLE: STOPPING,
                PAUSING: STOPPING,
                PAUSED: STOPPING,
                STOPPING: STOPPING,
            }
        ),
        STOP: MappingProxyType(dict.fromkeys((STARTING, RUNNING, IDLE, PAUSING, PAUSED), STOPPING)),
        TERMINATE: MappingProxyType(dict.fromkeys(ALIVE, TERMINATED)),
    }
)
"""For each command: the states in which it applies, and where it leads. Anywhere else it is answered with the stored state and changes nothing."""

RUN_ENDS: Mapping[str, str] = MappingProxyType({"COMPLETED": COMPLETED, "FAILED": FAILED, "CANCELLED": STOPPED})
"""Where the final state of its run leads a swarm."""


def check(before: str, after: str) -> None:
    """Refuses a transition that is not in the table.

    Raises:
        FailureError: STATE_CONFLICT, naming both states.
    """
    if after not in TRANSITIONS.get(before, frozenset()):
        raise FailureError(
            Failure(
                code="STATE_CONFLICT",
                message=f"A swarm cannot go from {before or 'nothing'} to {after}.",
                tier=1,
                component="swarm",
                operation="transition",
            )
        )
