"""Compiled flows by hash, the least recently used dropped first. Bounded by the bytes of their definitions; a miss only costs time."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from tierflow_flow.definition import Flow


class FlowCache:
    """A cache of flows; safe for threads."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._flows: OrderedDict[str, Flow] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._flows)

    def get(self, digest: str) -> Flow | None:
        """The flow of this hash, if it is here."""
        with self._lock:
            flow = self._flows.get(digest)
            if flow is not None:
                self._flows.move_to_end(digest)
            return flow

    def put(self, flow: Flow) -> None:
        """Keep a flow; drops others where there are too many bytes, but never this one."""
        with self._lock:
            if flow.hash in self._flows:
                return
            self._flows[flow.hash] = flow
            self._bytes += len(flow.canonical)
            while self._bytes > self._max_bytes and len(self._flows) > 1:
                _, dropped = self._flows.popitem(last=False)
                self._bytes -= len(dropped.canonical)
