"""The orchestrators that are connected: who they are, where their frames go, how many slots each may use."""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_runtime.values import FailureError

from tierflow_executor.core.slots import shares
from tierflow_executor.outbox import Outbox
from tierflow_executor.wire import frame


class Stream:
    """One stream.

    Attributes:
        instance: The caller's instance.
        outbox: What goes to it.
        slots: What it was last told that it may use.
        refused: Whether it was closed because its instance was replaced.
        unreadable: What came that is no message, which ended it.
    """

    __slots__ = ("instance", "outbox", "refused", "slots", "unreadable")

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.outbox = Outbox()
        self.slots = 0
        self.refused = False
        self.unreadable: FailureError | None = None

    def close(self, *, refused: bool = False) -> None:
        """Ends the stream once what is in its outbox is written."""
        self.refused = self.refused or refused
        self.outbox.close()


class Streams:
    """The streams by instance; the newest of an instance counts. Addresses are remembered beyond the stream."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._addresses: dict[str, str] = {}

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, instance: str) -> Stream | None:
        """The stream of an instance, where it is connected."""
        return self._streams.get(instance)

    def address_of(self, instance: str) -> str:
        """The address of an instance for blobs; empty where it is not known."""
        return self._addresses.get(instance, "")

    def add(self, stream: Stream) -> None:
        """A stream opens; an older one of the same instance is closed."""
        old = self._streams.pop(stream.instance, None)
        if old is not None:
            old.close()
        self._streams[stream.instance] = stream

    def remove(self, stream: Stream) -> bool:
        """A stream has ended; says whether it was the one that counts."""
        if self._streams.get(stream.instance) is not stream:
            return False
        del self._streams[stream.instance]
        return True

    def heard(self, hello: pb.OrchestratorHello) -> None:
        """Notes the address of a caller."""
        if hello.address:
            self._addresses[hello.instance_id] = hello.address

    def forget(self, instance: str) -> None:
        """An instance was replaced: closes its stream."""
        self._addresses.pop(instance, None)
        stream = self._streams.pop(instance, None)
        if stream is not None:
            stream.close(refused=True)

    def share(self, usable: int, newcomer: Stream | None = None) -> None:
        """Divides the slots anew and tells those for whom that changes something; a newcomer is told by its hello."""
        for instance, slots in shares(usable, list(self._streams)).items():
            stream = self._streams[instance]
            if stream.slots != slots:
                stream.slots = slots
                if stream is not newcomer:
                    stream.outbox.put_first(frame(slots=slots))
