"""How a stream of JetStream stands: made where it is missing, and looked at for what only shows when somebody asks.

A stream can be replaced behind our back, can come back without its end (the disk was full, the power went away: JetStream acknowledges before it syncs, Lesson 41), and
can refuse everything for good: after a write that failed, NATS 2.15 takes nothing more until it is restarted or the stream is made anew, however much space there is.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Final, NamedTuple

import orjson
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from tierflow_runtime.logs import get_log

log = get_log(__name__)

_NAME_IN_USE: Final = 10058
_NO_STORAGE: Final = 10047
"""JetStream's error number for a stream that may grow larger than its disk."""
LEAST_BYTES: Final = 16 * 1024 * 1024
"""A stream of events that is not allowed as much is of no use."""

_NO_SUCH_MESSAGE: Final = 10**15
_NO_SPACE: Final = "no space left"
_WRITE: Final = "write "


class Standing(NamedTuple):
    """A stream, as the server tells it."""

    created: str
    made_here: bool
    """Whether it was made just now, by this process."""
    last_seq: int


class LastWord:
    """What JetStream said last, of all messages that were sent on one connection."""

    __slots__ = ("answer", "refused_since")

    def __init__(self) -> None:
        self.answer = b""
        """The newest acknowledgement of the present stream, as it came."""
        self.refused_since: float | None = None
        """When the first message failed of those since which none was acknowledged, while there is a connection."""

    @property
    def seq(self) -> int:
        """The place of the message that was acknowledged last; 0 where none was."""
        return int(orjson.loads(self.answer).get("seq", 0)) if self.answer else 0

    @property
    def refused_for(self) -> float:
        """Seconds for which messages were sent and none was acknowledged; 0 where the last one was."""
        return 0.0 if self.refused_since is None else time.monotonic() - self.refused_since

    def refused(self) -> None:
        """A message was refused, or not answered in time."""
        if self.refused_since is None:
            self.refused_since = time.monotonic()

    def forget(self) -> None:
        """The stream is another one: places on it have nothing to do with those before."""
        self.answer = b""
        self.refused_since = None


async def ensured(context: JetStreamContext, config: StreamConfig) -> Standing:
    """Makes a stream where it is missing, as large as the server has room for. One that exists keeps its limits: an operator may have set them."""
    try:
        return await _found(context, str(config.name))
    except NotFoundError:
        pass
    while True:
        try:
            made: Any = await context.add_stream(config)
        except NatsError as error:
            code = getattr(error, "err_code", None)
            if code == _NAME_IN_USE:  # a peer was faster, with other limits
                return await _found(context, str(config.name))
            half = (config.max_bytes or 0) // 2
            if code != _NO_STORAGE or half < LEAST_BYTES:
                raise
            log.warning("NATS has little storage; its stream is smaller", stream=config.name, mebibytes=half >> 20)
            config = dataclasses.replace(config, max_bytes=half)
        else:
            return Standing(str(made.created), bool(made.did_create), made.state.last_seq)


async def is_stuck(context: JetStreamContext, name: str) -> bool:
    """Whether the stream refuses every change because a write has failed: asked by the deletion of a message that cannot be there."""
    try:
        await context.delete_msg(name, _NO_SUCH_MESSAGE)
    except APIError as error:
        said = error.description or ""
        return said.startswith(_WRITE) or _NO_SPACE in said
    return False


async def remade(context: JetStreamContext, config: StreamConfig, created: str) -> Standing | None:
    """Makes a stuck stream anew, unless somebody has done so; None where it is not stuck. What it held is in the journals, from which it is filled."""
    name = str(config.name)
    if not await is_stuck(context, name):
        return None
    standing = await _found(context, name)
    if standing.created == created:
        log.error("a stream refuses everything since a write failed; it is made anew", stream=name)
        await context.delete_stream(name)
    return await ensured(context, config)


async def _found(context: JetStreamContext, name: str) -> Standing:
    info: Any = await context.stream_info(name)
    return Standing(str(info.created), False, info.state.last_seq)
