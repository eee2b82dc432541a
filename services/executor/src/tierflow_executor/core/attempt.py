"""One attempt as the executor remembers it."""

from __future__ import annotations

from typing import Any

from tierflow_executor.core.states import Move, State, moved


class Attempt:
    """One attempt: whose it is, where it is, and its result once it has ended.

    Attributes:
        attempt_id: Its id; run once.
        run_id: The run it belongs to.
        owner: The instance that its result goes to; empty for a caller of the unary form.
        state: Where it is; changed by `move` only.
        result: The coded result; empty before it has ended.
        result_state: The number of the result's StepState.
        ended_at: When it ended, microseconds.
        work: What the engine needs while it runs; None once it has ended.
    """

    __slots__ = ("attempt_id", "ended_at", "owner", "result", "result_state", "run_id", "state", "work")

    def __init__(self, attempt_id: str, run_id: str, owner: str) -> None:
        self.attempt_id = attempt_id
        self.run_id = run_id
        self.owner = owner
        self.state = State.QUEUED
        self.result = b""
        self.result_state = 0
        self.ended_at = 0
        self.work: Any = None

    def move(self, what: Move) -> None:
        """Changes the state by the table.

        Raises:
            IllegalMove: The table does not have it.
        """
        self.state = moved(self.attempt_id, self.state, what)

    @property
    def has_result(self) -> bool:
        """Whether it ended, as far as its owner is concerned."""
        return self.state is State.ENDED or self.state is State.LINGERING
