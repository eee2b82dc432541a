"""The life of an attempt in an executor, as a table. The names are what is shown; the numbers only make looking up quick."""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """Where an attempt is."""

    QUEUED = auto()  # accepted, waits for a slot
    RUNNING = auto()  # its handler was called
    STOPPING = auto()  # told to stop, not yet known to have stopped
    ENDED = auto()  # its result is held until it is acknowledged
    LINGERING = auto()  # its result is held, but what it started has not stopped: the slot stays taken
    FORGOTTEN = auto()  # acknowledged or expired: only its id is remembered


class Move(IntEnum):
    """What can happen to an attempt."""

    START = auto()  # its handler is called
    STOP = auto()  # it is told to stop
    END = auto()  # it has a result, and nothing of it is alive
    GIVE_UP = auto()  # it has a result, although it could not be stopped
    VANISH = auto()  # what lingered has stopped after all
    FORGET = auto()  # its result was acknowledged or has expired


TRANSITIONS: dict[tuple[State, Move], State] = {
    (State.QUEUED, Move.START): State.RUNNING,
    (State.QUEUED, Move.END): State.ENDED,
    (State.RUNNING, Move.STOP): State.STOPPING,
    (State.RUNNING, Move.END): State.ENDED,
    (State.STOPPING, Move.STOP): State.STOPPING,
    (State.STOPPING, Move.END): State.ENDED,
    (State.STOPPING, Move.GIVE_UP): State.LINGERING,
    (State.LINGERING, Move.VANISH): State.ENDED,
    (State.LINGERING, Move.FORGET): State.FORGOTTEN,
    (State.ENDED, Move.FORGET): State.FORGOTTEN,
}
"""Everything that may happen; whatever is not here is refused."""


class IllegalMove(Exception):
    """Something happened to an attempt that cannot happen in its state: a defect."""

    def __init__(self, attempt_id: str, state: State, move: Move) -> None:
        super().__init__(f"attempt {attempt_id} is {state.name}: {move.name} is not possible")


def moved(attempt_id: str, state: State, move: Move) -> State:
    """The state after a move.

    Raises:
        IllegalMove: The table does not have it.
    """
    after = TRANSITIONS.get((state, move))
    if after is None:
        raise IllegalMove(attempt_id, state, move)
    return after
