"""The load processes of a product, seen from the benchmark: started, told what to do, asked for what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.install import ROOT

PATIENCE = 60.0


class LoadFailed(RuntimeError):
    """A load process ended or said nothing; has the end of its log."""


class Load:
    """One process that runs a product's load program in the product's environment."""

    def __init__(self, python: pathlib.Path, module: str, settings: Mapping[str, Any], *, log: pathlib.Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [python, "-m", module, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._rest = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, **what: Any) -> None:
        """Sends a line. Raises `LoadFailed` where it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("is gone") from None

    def answer(self, patience: float = PATIENCE) -> Any:
        """The next line. Raises `LoadFailed` where none comes within `patience` seconds."""
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        until = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([source], [], [], max(0.0, until - time.monotonic()))[0]:
                raise self._failed(f"said nothing for {patience} s")
            part = os.read(source, 1 << 20)
            if not part:
                raise self._failed("ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """Lets it end; kills it where it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _failed(self, what: str) -> LoadFailed:
        end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return LoadFailed(f"the load {what}; the end of {self.log}:\n{end}")


@dataclass(frozen=True, slots=True)
class Took:
    """What came of an operation, over all load processes."""

    seconds: float
    latencies: list[float]
    errors: list[str]

    @property
    def rate(self) -> float:
        """Runs per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def perform(loads: Sequence[Load], operation: str, count: int, at_once: int, limit: float = 240.0) -> Took:
    """Performs an operation, shared out evenly over the loads; by the first alone where there is less than one run at once for each."""
    loads = loads if at_once >= len(loads) else loads[:1]
    for load in loads:
        load.tell(operation=operation, count=count // len(loads), at_once=at_once // len(loads), limit=limit)
    answers = [load.answer(limit + PATIENCE) for load in loads]
    return Took(
        max(answer["seconds"] for answer in answers),
        [latency for answer in answers for latency in answer["latencies"]],
        [error for answer in answers for error in answer["errors"]],
    )
