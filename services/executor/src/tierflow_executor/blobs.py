"""Large values: read from and written to the orchestrator that owns the attempt, named by their content (rule R33)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import IO, TYPE_CHECKING

import grpc
import msgspec
from tierflow.context import Blob
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import BlobServiceStub
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.values import BlobRef, FailureError

from tierflow_executor.contexts import ContextCalls
from tierflow_executor.endings import LARGEST_OUTPUT, Ending, size_of
from tierflow_executor.running import Running

if TYPE_CHECKING:  # the types exist in the stubs only
    from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import BlobServiceAsyncStub

CHUNK = 256 * 1024
LARGEST_UNARY = 1 << 20
"""Bytes of the largest output that the unary form answers with, since its caller keeps no blobs."""
_SPOOLED = 4 << 20
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Blobs(ContextCalls):
    """Reads and writes values at the address of the instance that owns an attempt.

    A result is worth more than a wait: when the owner is away, storing is tried again for a long time, at whatever address its owner then has.

    Args:
        address_of: The address for blobs of an instance, where it is known.
        patience: Seconds for which storing an output is tried.
        connect: Opens a channel to an address.
    """

    def __init__(
        self,
        address_of: Callable[[str], str],
        *,
        patience: float,
        connect: Callable[[str], grpc.aio.Channel] | None = None,
    ) -> None:
        self._address_of = address_of
        self._patience = patience
        self._connect = connect or open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    def address_of(self, running: Running) -> str:
        """Where the values of an attempt are kept; empty where that is not known."""
        return self._address_of(running.attempt.owner)

    async def close(self) -> None:
        """Closes all connections."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(None)

    async def fetch(self, running: Running, blob: Blob) -> str:
        """A stored JSON text.

        Raises:
            FailureError: It is not there, does not match its name, or cannot be had now.
        """
        if blob.size > LARGEST_OUTPUT:
            raise _too_large(blob.size)
        started = asyncio.get_running_loop().time()
        for pause in _pauses():
            try:
                return b"".join([chunk async for chunk in self.read(running, blob)]).decode()
            except FailureError as error:
                if error.failure.code != "UNAVAILABLE" or asyncio.get_running_loop().time() - started > min(
                    30.0, self._patience
                ):
                    raise
            except UnicodeDecodeError as error:
                raise FailureError(
                    failure("INPUT_INVALID", f"blob {blob.sha256} is not UTF-8 text", component="blobs")
                ) from error
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the pauses have no end")

    async def read(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value and checks it against its name; the check comes after the last chunk.

        Raises:
            FailureError: It is not there, does not match its name, or cannot be had now.
        """
        digest = hashlib.sha256()
        stub = self._stub(running)
        try:
            async for message in stub.GetBlob(pb.GetBlobRequest(sha256=blob.sha256), metadata=_identity(running)):
                digest.update(message.chunk)
                yield message.chunk
        except grpc.aio.AioRpcError as error:
            raise FailureError(failure_of(error)) from error
        if digest.hexdigest() != blob.sha256:
            text = f"blob {blob.sha256} came with other content ({digest.hexdigest()})"
            raise FailureError(failure("UNAVAILABLE", text, component="blobs", operation="read"))

    async def store(self, running: Running, ending: Ending) -> Ending:
        """The ending with its output stored and referred to.

        Raises:
            FailureError: It is larger than any value may be, for good; or it could not be stored in all the time there was.
        """
        size = size_of(ending)
        if size > LARGEST_OUTPUT:
            raise _too_large(size)
        assert isinstance(ending.output, str)
        if not running.attempt.owner:
            if size > LARGEST_UNARY:
                raise _too_large(size, LARGEST_UNARY)
            return ending
        content = ending.output.encode()
        sha256 = hashlib.sha256(content).hexdigest()
        loop = asyncio.get_running_loop()
        started = loop.time()
        for pause in _pauses():
            try:
                await self._put(running, sha256, _pieces(content))
                break
            except FailureError as error:
                if not error.failure.retryable or loop.time() - started > self._patience:
                    raise
            await asyncio.sleep(pause)
        return Ending(
            ending.state, BlobRef(sha256=sha256, size=size), outcome=ending.outcome, more_steps=ending.more_steps
        )

    async def write(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value that a handler hands over, whole or in pieces.

        Raises:
            FailureError: It is too large, or cannot be stored now.
        """
        digest = hashlib.sha256()
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spool:
            size = 0
            async for piece in _stream(content):
                size += len(piece)
                if size > LARGEST_OUTPUT:
                    raise _too_large(size)
                digest.update(piece)
                spool.write(piece)
            spool.seek(0)
            await self._put(running, digest.hexdigest(), _from_file(spool))
        return Blob(sha256=digest.hexdigest(), size=size, media_type=media_type)

    async def _put(self, running: Running, sha256: str, pieces: AsyncIterator[bytes]) -> None:
        async def messages() -> AsyncIterator[pb.PutBlobRequest]:
            yield pb.PutBlobRequest(sha256=sha256)
            async for piece in pieces:
                yield pb.PutBlobRequest(chunk=piece)

        try:
            await self._stub(running).PutBlob(messages(), metadata=_identity(running))
        except grpc.aio.AioRpcError as error:
            raise FailureError(
                msgspec.structs.replace(failure_of(error), component="blobs", operation="write")
            ) from error

    def _stub(self, running: Running) -> BlobServiceAsyncStub:
        return BlobServiceStub(self.channel(running))

    def channel(self, running: Running) -> grpc.aio.Channel:
        """The channel to the instance that owns an attempt. Raises FailureError UNAVAILABLE where it is not known."""
        address = self.address_of(running)
        if not address:
            text = "nobody who keeps large values is connected"
            raise FailureError(failure("UNAVAILABLE", text, component="blobs", operation="connect"))
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._connect(address)
        return channel


def _identity(running: Running) -> tuple[tuple[str, str], ...]:
    context = running.request.context
    return (("tierflow-tenant", context.tenant), ("tierflow-user", context.user_id))


def _too_large(size: int, most: int = LARGEST_OUTPUT) -> FailureError:
    text = f"a value of {size} bytes is larger than the {most} that may be handed on; write it elsewhere and return where it is"
    return FailureError(failure("PAYLOAD_TOO_LARGE", text, component="blobs", retryable=False))


def _pauses() -> Iterator[float]:
    return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


async def _stream(content: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
    else:
        async for piece in content:
            yield piece


async def _from_file(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece
