"""Values of the blackboard on their way in and out: checked, named by their content, compressed where that pays, and large ones kept apart."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Final

from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.common.v1 import payload_pb2
from tierflow_durable.batch import blob_name
from tierflow_durable.durable import Durable
from tierflow_runtime.contract_payloads import check_payload
from tierflow_runtime.payloads import payload_from_proto, payload_to_proto
from tierflow_runtime.values import BlobRef, Payload, Violation
from tierflow_runtime.wire import timestamp

from tierflow_coordinator.core import commands
from tierflow_coordinator.core.board import Entry

INLINE: Final = 4 * 1024
"""Bytes of the largest value that is in the journal, and in the memory of the swarm's owner; larger ones are stored by themselves, and read when they are used."""
LARGEST: Final = 1 << 20
WORTH_COMPRESSING: Final = 512
LARGEST_ANSWER: Final = 2 << 20
"""Bytes of the values in one answer, as they travel."""
ZLIB: Final = "zlib"
_LEVEL: Final = 3
_BYTES: Final = "application/octet-stream"


def text_of(path: str, change: bb.BlackboardChange, found: list[Violation]) -> bytes | None:
    """The JSON text of a value that comes in, checked; None where it is not sound, which `found` then says."""
    value = change.value
    if change.compressed:
        unpacked = _unpacked(path + ".compressed", change.compressed, found)
        if unpacked is None:
            return None
        value = payload_pb2.Payload(json=unpacked)
    known = len(found)
    check_payload(path + ".value", value, found)
    text = payload_from_proto(value)
    if isinstance(text, BlobRef):
        what = "is a reference; put the reference into a JSON value, or the value itself here"
        found.append(Violation(field=path + ".value.ref", description=what))
        return None
    if text is None:
        found.append(Violation(field=path + ".value", description="required, unless `delete` is set"))
        return None
    return None if len(found) > known else text.encode()


def _unpacked(path: str, packed: bytes, found: list[Violation]) -> str | None:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, LARGEST + 1)
        if len(content) <= LARGEST and unpacker.eof:
            return content.decode()
        wrong = f"holds more than {LARGEST} bytes" if len(content) > LARGEST else "ends too early"
    except (zlib.error, UnicodeDecodeError) as error:
        wrong = f"is not a JSON text in zlib's format: {error}"
    found.append(Violation(field=path, description=wrong))
    return None


async def stored(durable: Durable, key: str, text: bytes, expected: int | None) -> commands.KeyChange:
    """A change with its value as it is kept. A large one is stored now; what is stored in vain is forgotten as all values that nobody uses are."""
    sha256 = hashlib.sha256(text).hexdigest()
    if len(text) <= INLINE:
        return commands.KeyChange(key=key, value=text.decode(), size=len(text), sha256=sha256, expected=expected)
    packed = zlib.compress(text, _LEVEL)
    encoding, content = (ZLIB, packed) if len(packed) < len(text) else ("", text)
    name = blob_name(content)
    await durable.host.writer.put_blob(name, content)
    ref = BlobRef(sha256=name, size=len(content), media_type=_BYTES)
    return commands.KeyChange(key=key, value=ref, encoding=encoding, size=len(text), sha256=sha256, expected=expected)


def entry_message(key: str, entry: Entry) -> bb.BlackboardEntry:
    """A key without its value."""
    return bb.BlackboardEntry(
        key=key,
        version=entry.version,
        size=entry.size,
        sha256=entry.sha256,
        actor=entry.actor,
        run_id=entry.run_id,
        step_id=entry.step_id,
        written_at=timestamp(entry.time),
    )


class Reading:
    """Fills values into entries of one answer, as far as there is room."""

    def __init__(self, durable: Durable, *, compressed: bool, readable: bool = False) -> None:
        self._durable = durable
        self._compressed = compressed
        self._readable = readable
        self._size = 0
        self.fetched = 0
        """Values that had to be fetched from where large ones are kept."""

    async def fill(self, message: bb.BlackboardEntry, value: Payload, encoding: str) -> None:
        """Puts a value into its entry, or says that it was left out. Raises FailureError NOT_FOUND where the stored bytes are gone."""
        if self._size and self._size + (value.size if isinstance(value, BlobRef) else len(value)) > LARGEST_ANSWER:
            message.left_out = True
            return
        if isinstance(value, BlobRef):
            self.fetched += 1
            content = await self._durable.reader.blob(value.sha256)
            self._fill_bytes(message, content, encoding)
        elif self._compressed and len(value) > WORTH_COMPRESSING:
            self._fill_bytes(message, value.encode(), "")
        else:
            self._size += len(value)
            self._fill_text(message, value)

    def _fill_bytes(self, message: bb.BlackboardEntry, content: bytes, encoding: str) -> None:
        if self._compressed:
            packed = content if encoding == ZLIB else zlib.compress(content, _LEVEL)
            if len(packed) < message.size:
                self._size += len(packed)
                message.compressed = packed
                return
        text = zlib.decompress(content).decode() if encoding == ZLIB else content.decode()
        self._size += len(text)
        self._fill_text(message, text)

    def _fill_text(self, message: bb.BlackboardEntry, text: str) -> None:
        message.value.CopyFrom(payload_to_proto(text, readable=self._readable) or payload_pb2.Payload())


def told_twice(changes: Sequence[bb.BlackboardChange]) -> set[str]:
    """Keys that are named more than once."""
    keys = [change.key for change in changes]
    return {key for key in keys if keys.count(key) > 1}


def policy_text(payload: payload_pb2.Payload) -> str | None:
    """The JSON text of a policy; None where there is none."""
    text = payload_from_proto(payload)
    return text if isinstance(text, str) else None
