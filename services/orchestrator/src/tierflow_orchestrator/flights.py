"""Attempts in flight, and what is to be told of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.values import Failure

from tierflow_orchestrator.link import Link

REPLACED = "the executor was replaced by a new process of its name"


def name_of(key: str) -> str:
    """The name in the key of an executor: name and id of a process."""
    return key.rpartition("/")[0]


class Flight:
    """An attempt in flight: which run's, at which executor, and how to send it (again)."""

    __slots__ = (
        "attempt_id",
        "due",
        "executor",
        "link",
        "make",
        "overdue",
        "run_id",
        "sent",
        "since",
        "step_id",
        "stop_reason",
    )

    def __init__(self, attempt_id: str, run_id: str, step_id: str, executor: str, link: Link | None) -> None:
        self.attempt_id = attempt_id
        self.run_id = run_id
        self.step_id = step_id
        self.executor = executor
        self.link = link
        self.make: Callable[[], step_pb2.StepExecutionRequest] | None = None
        self.sent = False
        self.stop_reason: str | None = None
        self.since = time.monotonic()
        self.due = 0.0
        """Monotonic seconds at which its executor must have answered; 0: nothing is known of that."""
        self.overdue = False
        """Its time is over, and its executor was told to stop it."""

    def answered(self, now: float) -> float:
        """When its executor was last known to be there, monotonic seconds."""
        link = self.link
        if link is None or (link.lost_since is None and link.key != self.executor):
            return self.since
        if link.connected and link.key == self.executor:
            return now
        return self.since if link.lost_since is None else link.lost_since


class Reports:
    """What the dispatcher tells the engine."""

    def result(self, link: Link, result: step_pb2.StepExecutionResult) -> None:
        """An attempt ended."""

    def started(self, run_id: str, attempt_id: str, started_at: int) -> None:
        """An attempt has started."""

    def lost(self, run_id: str, attempt_id: str, reason: str) -> None:
        """Nobody knows how an attempt ended."""

    def refused(self, run_id: str, attempt_id: str, failure: Failure) -> None:
        """An attempt cannot be sent to any executor."""

    def stopped(self, run_id: str, attempt_id: str) -> None:
        """A cancelled attempt was never begun, and never will be."""

    def unconfirmed(self, run_id: str, attempt_id: str) -> None:
        """A cancelled attempt may still be alive."""

    def progress(self, progress: pb.AttemptProgress) -> None:
        """A handler reported progress."""

    def may_start(self, run_id: str, handler: str) -> bool:
        """A slot is free for a run that waited for one. Takes one slot, or none; returns whether the run still waits."""
        return False
