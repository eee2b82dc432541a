"""Runs as their journals have them, followed row by row: what holds of histories (V1 to V22, V44 to V49) is looked at at every commit."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

from tierflow_flow import parse
from tierflow_orchestrator.machine import RunMachine
from tierflow_testing.history import _Checker as Checker
from tierflow_testing.history import shape_of
from tierflow_testing.history_documents import DocumentChecker

from simulation.committed import short
from simulation.steered_flows import STEERED, TEXTS, next_version

_CORE = pathlib.Path(__file__).parents[3] / "services" / "orchestrator" / "tests" / "core" / "invariants.py"


def _look_at_memory() -> Callable[[Any], None]:
    """`check_invariants` of the core's tests: what must hold of a run in memory."""
    spec = importlib.util.spec_from_file_location("core_invariants", _CORE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Any], None] = module.check_invariants
    return found


_check_memory = _look_at_memory()
_FLOWS = {flow.hash: flow for flow in (parse(text, "json") for text in (*TEXTS, *map(next_version, STEERED)))}


class Runs:
    """All runs of one world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.machine = RunMachine()
        self.states: dict[str, Any] = {}
        self.checkers: dict[str, Checker] = {}

    def row(self, run_id: str, data: bytes) -> None:
        """A row of a run's journal is committed."""
        events = [(event, time) for _, time, event in self.machine.decode(data)]
        state = self.states.get(run_id)
        if state is None:
            state = self._begin(run_id, events[0][0])
        checker = self.checkers[run_id]
        for event, time in events:
            self.machine.evolve(state, event, time)
            checker.event(event, time)
        for breach in checker.breaches[:1]:
            self.world.violated(breach.invariant, f"run {short(run_id)}: {breach}")
        if state.flow is not None and state.flow.program is None:  # Documents have no needs to count.
            self._look(run_id, state)

    def has_ended(self, run_id: str) -> bool:
        """Whether its last generation has."""
        return self.checkers[run_id].state in ("COMPLETED", "FAILED", "CANCELLED")

    def _begin(self, run_id: str, created: Any) -> Any:
        flow = _FLOWS.get(created.flow_hash)
        state = self.states[run_id] = self.machine.fresh(run_id)
        state.flow = flow
        if flow is None:
            self.checkers[run_id] = Checker(None, {}, None)
        elif flow.navigator == "serverless":
            self.checkers[run_id] = DocumentChecker(None, {}, None)
        else:
            shape = shape_of(flow)
            self.checkers[run_id] = Checker(shape["needs"], shape["joins"], shape["blocks"])
        return state

    def _look(self, run_id: str, state: Any) -> None:
        try:
            _check_memory(state)
        except AssertionError as error:
            self.world.violated(str(error).partition(":")[0][:3], f"run {short(run_id)}, {state.state}: {error}")
