"""One hostile call: what is sent, how it ended, and whether it may end so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from tierflow_runtime.errors import failure_of
from tierflow_runtime.values import Failure

ALWAYS = frozenset(("OK", "UNAUTHENTICATED"))
"""Statuses with which any call may end."""
NEVER = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS"))
"""Statuses that say that something is broken, whatever was sent."""
LEAKS = ("Traceback (most recent", 'File "/', "asyncpg.", "SELECT ", "INSERT INTO", "0x7f")
"""What a caller must not read in a status."""
GRACE = 20.0
"""Seconds by which an answer may be later than the deadline: of the network, of this process and of a machine under load, not of the service."""
MOST_READ = 2_000
"""Answers read of one stream."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call.

    Attributes:
        name: `seed/service/method/number`, by which it is made again.
        method: What is called.
        frames: The coded request messages, in order; any number, whatever the method takes.
        deadline: Seconds.
        metadata: Sent along.
        half_close: Whether the sending side is closed after the last frame; else the call is cancelled a moment later.
        patient: Whether the call may last until its deadline by its nature: watching, waiting.
        sound: Whether every frame is a message of the method's type.
    """

    name: str
    method: MethodDescriptor
    frames: Sequence[bytes]
    deadline: float = 5.0
    metadata: Sequence[tuple[str, str]] = ()
    half_close: bool = True
    patient: bool = False
    sound: bool = True

    @property
    def path(self) -> str:
        """The method as gRPC addresses it."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def __str__(self) -> str:
        """What is needed to see it again: the name, and every message as text."""
        lines = [
            f"case {self.name}: {self.path}, {len(self.frames)} messages, {'half-closed' if self.half_close else 'cancelled'}"
        ]
        lines.extend(f"metadata {key}: {value!r}" for key, value in self.metadata)
        lines.extend(_shown(self.method, frame) for frame in self.frames[:20])
        return "\n".join(lines)


@dataclass(slots=True)
class Outcome:
    """How a call ended."""

    case: Case
    status: str
    took: float
    failure: Failure | None = None
    details: str = ""
    answers: list[Message] = field(default_factory=list)
    by_us: bool = False
    """Whether it ended because this side cancelled it or gave up."""

    @property
    def reason(self) -> str:
        """The code of the failure, where the service named one."""
        return self.failure.code if self.failure is not None else ""


def _shown(method: MethodDescriptor, frame: bytes) -> str:
    try:
        message = GetMessageClass(method.input_type).FromString(frame)
    except DecodeError:
        return f"  bytes {frame[:400].hex()}{'…' if len(frame) > 400 else ''}"
    text = text_format.MessageToString(message, as_one_line=True)
    return f"  {text[:1500]}{f'… ({len(text)} characters)' if len(text) > 1500 else ''}"


def _note(outcome: Outcome, error: grpc.aio.AioRpcError) -> None:
    outcome.status, outcome.details = error.code().name, error.details() or ""
    trailing: Any = error.trailing_metadata() or ()
    reported = any(key == "grpc-status-details-bin" for key, _ in trailing)
    outcome.failure = failure_of(error) if reported else None


async def make_call(channel: grpc.aio.Channel, case: Case) -> Outcome:
    """Sends a case and reads what comes. Never raises for what the service does."""
    answer_type = GetMessageClass(case.method.output_type)
    call = channel.stream_stream(case.path, request_serializer=None, response_deserializer=None)(
        _sending(case), timeout=case.deadline, metadata=grpc.aio.Metadata(*case.metadata)
    )
    outcome = Outcome(case, "OK", 0.0)
    began = time.monotonic()
    stopping = None if case.half_close else asyncio.get_running_loop().call_later(0.3, call.cancel)
    try:
        async with asyncio.timeout(case.deadline + GRACE):
            async for raw in call:
                if len(outcome.answers) < MOST_READ:
                    outcome.answers.append(answer_type.FromString(raw))
            outcome.status = (await call.code()).name
    except grpc.aio.AioRpcError as error:
        _note(outcome, error)
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        outcome.status = "CANCELLED"
    except TimeoutError:
        call.cancel()
        outcome.status = "HUNG"
    finally:
        outcome.by_us = stopping is not None and outcome.status == "CANCELLED"
        if stopping is not None:
            stopping.cancel()
    outcome.took = time.monotonic() - began
    return outcome


async def _sending(case: Case) -> AsyncIterator[bytes]:
    for frame in case.frames:
        yield frame
    if not case.half_close:
        await asyncio.sleep(case.deadline)


def _unanswered(case: Case) -> str:
    return "" if case.patient else f"no answer within its deadline of {case.deadline} s"


def _hung(outcome: Outcome) -> bool:
    return outcome.status == "HUNG" or outcome.took > outcome.case.deadline + GRACE


def _leak(outcome: Outcome) -> str:
    leaked = [leak for leak in LEAKS if leak in outcome.details]
    return f"{outcome.status} tells internals ({leaked[0]}): {outcome.details}" if leaked else ""


def complaint(outcome: Outcome, documented: Mapping[str, frozenset[str]]) -> str:
    """What is wrong with how a call ended; empty where nothing is.

    Args:
        outcome: How it ended.
        documented: By method: the statuses that its contract names. What it does not have is not compared.
    """
    case, status = outcome.case, outcome.status
    if _hung(outcome):
        return f"ended {outcome.took:.1f} s after its start; its deadline was {case.deadline} s"
    if outcome.failure is None and outcome.details == "Internal error from Core":
        return ""  # of this side: the call had ended before everything was sent
    if status in NEVER:
        return f"{status} {outcome.reason}: {outcome.details}"
    if outcome.by_us or status == "OK":
        return ""
    if status == "DEADLINE_EXCEEDED" and outcome.failure is None:
        return _unanswered(case)
    return _leak(outcome) or _undocumented(outcome, documented.get(case.path, frozenset()))


def _undocumented(outcome: Outcome, named: frozenset[str]) -> str:
    status = outcome.status
    if outcome.failure is None:
        # gRPC itself refuses messages beyond its limit before anything of ours sees them.
        return (
            ""
            if status == "RESOURCE_EXHAUSTED" and "larger than max" in outcome.details
            else f"{status} without ErrorInfo: {outcome.details}"
        )
    if not named or status in named or status in ALWAYS:
        return ""
    if status == "INVALID_ARGUMENT" and not outcome.case.sound:
        return ""
    return f"{status} {outcome.reason} is not in its contract ({', '.join(sorted(named))}): {outcome.details}"
