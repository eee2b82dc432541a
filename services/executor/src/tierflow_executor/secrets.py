"""Secrets by handle: a flow names them, Tier 2 sends handles, and only here do values take their place (E15, L16).

A value comes from the variable `TIERFLOW_SECRET_<NAME>`, or from a file below `TIERFLOW_SECRETS_DIR`: `<tenant>/<NAME>`, which only runs of that tenant get, else `<NAME>`.
What an attempt returns, reports or writes afterwards is looked through for the values that it was given: they leave as `***`.
"""

from __future__ import annotations

import os
import pathlib
import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence

import msgspec
from tierflow_contracts.common.v1.blackboard_pb2 import BlackboardChange, ContextCall
from tierflow_runtime.errors import failure
from tierflow_runtime.secrets import handle
from tierflow_runtime.values import BlobRef, Failure, FailureError, Violation

from tierflow_executor.endings import Ending

MASK = "***"
SHORTEST = 4
"""Values shorter than this are not looked for in what leaves: they would be found everywhere."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Secrets:
    """The values that one attempt was given."""

    __slots__ = ("_pattern", "_shown", "_values")

    def __init__(self, names: Sequence[str], tenant: str) -> None:
        self._values = {name: value_of(name, tenant) for name in names}
        self._shown: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in self._values.values():
            self.add(value)

    def add(self, value: str) -> None:
        """A value that is not to leave either."""
        if len(value) < SHORTEST or value in self._shown:
            return
        self._shown |= _forms(value)
        longest_first = sorted(self._shown, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def fill(self, text: str) -> str:
        """An input's JSON text with values in place of handles."""
        for name, value in self._values.items():
            text = text.replace(handle(name), _written(value))
        return text

    def masked(self, text: str) -> str:
        """A text without the values."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    async def stream(self, content: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Bytes without the values, also where a value is spread over pieces."""
        pattern = re.compile("|".join(re.escape(text) for text in sorted(self._shown, key=len, reverse=True)).encode())
        longest = max((len(text.encode()) for text in self._shown), default=1)
        rest = b""
        async for piece in _pieces(content):
            rest += piece
            if self._shown:
                rest = pattern.sub(MASK.encode(), rest)
            ready = len(rest) - longest + 1
            if ready > 0:
                yield rest[:ready]
                rest = rest[ready:]
        if rest:
            yield rest

    def hide_in(self, call: ContextCall) -> None:
        """Takes the values out of what a call writes."""
        kind = call.WhichOneof("kind")
        if kind == "write":
            for change in call.write.changes:
                self._hide_in_value(change)
        elif kind == "tool_call":
            report = call.tool_call
            report.tool, report.code = self.masked(report.tool), self.masked(report.code)
        elif kind == "update_context":
            update, changes = call.update_context, call.update_context.changes
            update.reason = self.masked(update.reason)
            if changes.HasField("goal"):
                changes.goal = self.masked(changes.goal)
            if changes.HasField("policy"):
                changes.policy.json = self.masked(changes.policy.json)

    def _hide_in_value(self, change: BlackboardChange) -> None:
        if change.compressed:
            text = zlib.decompress(change.compressed).decode()
            change.compressed = zlib.compress(self.masked(text).encode())
        elif change.HasField("value"):
            change.value.json = self.masked(change.value.json)

    def ending(self, ending: Ending) -> Ending:
        """An ending without the values; an output that is stored already is as the handler stored it."""
        output = (
            ending.output if ending.output is None or isinstance(ending.output, BlobRef) else self.masked(ending.output)
        )
        found = None if ending.failure is None else self._failure(ending.failure)
        return Ending(ending.state, output, found, ending.outcome, self.masked(ending.more_steps), ending.bare)

    def _failure(self, found: Failure) -> Failure:
        violations = tuple(
            Violation(field=self.masked(v.field), description=self.masked(v.description), line=v.line)
            for v in found.violations
        )
        return msgspec.structs.replace(
            found,
            message=self.masked(found.message),
            detail=self.masked(found.detail),
            violations=violations,
            cause=None if found.cause is None else self._failure(found.cause),
        )


async def _pieces(content: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield piece


def _written(value: str) -> str:
    """A text as it is within JSON text."""
    return msgspec.json.encode(value).decode()[1:-1]


def _forms(value: str) -> set[str]:
    """How a value may look in what leaves: as it is, and within JSON texts."""
    return {value, _written(value), value.strip()} if len(value.strip()) >= SHORTEST else {value}


def value_of(name: str, tenant: str) -> str:
    """The value of a secret. Raises FailureError INPUT_INVALID where this executor does not have it."""
    if _NAME.fullmatch(name):
        for path in _files(name, tenant):
            if path.is_file():
                return path.read_text().removesuffix("\n")
        value = os.environ.get(f"TIERFLOW_SECRET_{name}")
        if value is not None:
            return value
    message = f"this executor has no secret {name[:100]!r}: set TIERFLOW_SECRET_{name[:100]}, or put it into TIERFLOW_SECRETS_DIR"
    raise FailureError(
        failure(
            "INPUT_INVALID",
            message,
            tier=3,
            component="secrets",
            operation="attempt",
            retryable=False,
            violations=(Violation(field=f"secrets.{name[:100]}", description="is not known here"),),
        )
    )


def _files(name: str, tenant: str) -> list[pathlib.Path]:
    directory = os.environ.get("TIERFLOW_SECRETS_DIR")
    if not directory:
        return []
    root = pathlib.Path(directory)
    own = [root / tenant / name] if _TENANT.fullmatch(tenant) else []
    return [*own, root / name]
