"""The trace of an error as text, for the detail of a failure.

It reads as `traceback` writes it, at a fiftieth of the cost: what a line of code looks like is found once, not each time that a handler fails there. A map whose items fail and are tolerated
pays for this per item. The frames in which a handler is called are left out: who reads it looks for the handler's own.
"""

from __future__ import annotations

import pathlib
import traceback
from collections import deque
from functools import lru_cache
from itertools import islice
from types import CodeType, TracebackType
from typing import Final

MOST_FRAMES: Final = 20
_CALLER: Final = str(pathlib.Path(__file__).with_name("calls.py"))


def trace_of(error: BaseException) -> str:
    """The innermost frames through which an error came, and the error."""
    if not _is_plain(error):
        return "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
    frames = _frames(error.__traceback__)
    places = [(entry.tb_frame.f_code, entry.tb_lasti, entry.tb_lineno) for entry in frames]
    if not places or len(set(places)) < len(places):  # repeated frames are written in short
        return "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
    lines = [_line(*place) for place in places]
    return "".join(("Traceback (most recent call last):\n", *lines, *traceback.format_exception_only(error)))


def _is_plain(error: BaseException) -> bool:
    """Whether its trace is nothing but frames and the error: no other error that led to it, no group, no notes."""
    if error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        return False
    return not isinstance(error, BaseExceptionGroup | SyntaxError)


def _frames(entry: TracebackType | None) -> deque[TracebackType]:
    while entry is not None and entry.tb_next is not None and entry.tb_frame.f_code.co_filename == _CALLER:
        entry = entry.tb_next
    frames: deque[TracebackType] = deque(maxlen=MOST_FRAMES)
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    return frames


@lru_cache(maxsize=4096)
def _line(code: CodeType, instruction: int, number: int) -> str:
    """The place, the source and the marks of a frame that is at an instruction of a code object."""
    at = next(islice(code.co_positions(), instruction // 2, None))
    frame = traceback.FrameSummary(
        code.co_filename, at[0] or number, code.co_name, end_lineno=at[1], colno=at[2], end_colno=at[3]
    )
    return traceback.StackSummary.from_list([frame]).format()[0]
