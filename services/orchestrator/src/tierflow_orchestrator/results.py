"""Results of ended runs that no coordinator has acknowledged, as far as they fit into memory; the rest is read from the journal when it is sent (rule R28)."""

from __future__ import annotations

from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_runtime.values import Micros

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of results that are kept in memory: with no coordinator to take them, more would gather without end."""


class Results:
    """Results by run, with the moment of the end and their size."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._results: dict[str, tuple[Micros, run_pb2.RunExecutionResult, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._results

    def keep(self, run_id: str, ended_at: Micros, result: run_pb2.RunExecutionResult) -> bool:
        """Keeps a result, if there is room; whether there was."""
        self.forget(run_id)
        size = result.ByteSize()
        if self._bytes + size > self._most_bytes:
            return False
        self._results[run_id] = (ended_at, result, size)
        self._bytes += size
        return True

    def get(self, run_id: str) -> run_pb2.RunExecutionResult | None:
        """The result of a run, if it is here."""
        found = self._results.get(run_id)
        return None if found is None else found[1]

    def forget(self, run_id: str) -> None:
        """It is acknowledged."""
        found = self._results.pop(run_id, None)
        if found is not None:
            self._bytes -= found[2]

    def items(self) -> list[tuple[str, run_pb2.RunExecutionResult]]:
        """All that are here."""
        return [(run_id, result) for run_id, (_, result, _) in self._results.items()]

    def ended_before(self, moment: Micros) -> list[str]:
        """Runs that ended before a moment."""
        return [run_id for run_id, (ended_at, _, _) in self._results.items() if ended_at < moment]
