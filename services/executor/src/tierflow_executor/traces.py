"""The trace of an error as text, for the detail of a failure.

It reads as `traceback` writes it, at a fiftieth of the cost: what a line of code looks like is found once, not each time that a handler fails there. A map whose items fail and are tolerated
pays for this per item. The frames in which a handler is called are left out: who reads it looks for the handler's own.
"""

from __future__ import annotations

import pathlib
import traceback
from collections import deque
from types import CodeType, TracebackType
from typing import Final

MOST_FRAMES: Final = 20
_MOST_KNOWN: Final = 4096
_CALLER: Final = str(pathlib.Path(__file__).with_name("calls.py"))
_lines: dict[tuple[CodeType, int], str] = {}


def trace_of(error: BaseException) -> str:
    """The innermost frames through which an error came, and the error."""
    if not _is_plain(error):
        return "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
    frames = _frames(error.__traceback__)
    places = [(entry.tb_frame.f_code, entry.tb_lasti) for entry in frames]
    if not places or len(set(places)) < len(places):  # repeated frames are written in short
        return "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
    lines = [_lines.get(place) or _line(place, entry) for place, entry in zip(places, frames, strict=True)]
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


def _line(place: tuple[CodeType, int], entry: TracebackType) -> str:
    if len(_lines) >= _MOST_KNOWN:
        _lines.clear()
    text = _lines[place] = traceback.extract_tb(entry, limit=1).format()[0]
    return text
