"""Faults that could be built into steering, sub-flows, approvals, compensation, generations; see `mutations`."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import msgspec
from tierflow_coordinator.core import commands as swarm_commands
from tierflow_durable.owning import Owning
from tierflow_orchestrator.children import Children
from tierflow_orchestrator.core import commands, compensation, events, open_effects, slots, steering
from tierflow_orchestrator.core.children import RUNS
from tierflow_orchestrator.core.step import Approval
from tierflow_orchestrator.engine import Engine

from simulation.patches import Mutation, Patches
from simulation.scenario import OVERTAKING

# By their names: the packages export functions that are called like the modules.
swarm_decide = importlib.import_module("tierflow_coordinator.core.decide")
run_evolve = importlib.import_module("tierflow_orchestrator.core.evolve")
run_state = importlib.import_module("tierflow_orchestrator.core.run")


def _retried_keeps_result(patches: Patches) -> None:
    """The result of the generation that failed, said again, is taken for that of the present one."""

    def finish(swarm: Any, command: Any) -> Any:
        if swarm.run is not None and command.generation < swarm.run.generation:
            command = msgspec.structs.replace(command, generation=swarm.run.generation)
        return before(swarm, command)

    before = patches.entry(swarm_decide._DECIDE, swarm_commands.FinishRun, finish)


def _approved_twice(patches: Patches) -> None:
    """Who has decided may decide again."""
    patches.put(Approval, "has_decided", lambda self, user: False)


def _child_forgotten(patches: Patches) -> None:
    """Whoever takes a parent over takes the runs of its steps for lost."""

    def opened(self: Any, entity: Any) -> None:
        before(self, entity)
        for effect in open_effects(entity.state):
            if isinstance(effect, commands.DispatchAttempt) and effect.executor_id == RUNS:
                lost = commands.ReportLost(attempt_id=effect.attempt_id, reason="the parent has another owner")
                asyncio.get_running_loop().call_soon(self._tell, entity.id, lost)

    before = patches.put(Engine, "opened", opened)


def _child_brought_once(patches: Patches) -> None:
    """The result of a step's run is brought once, whether its parent has stored it or not."""

    async def nothing(self: Any, *_: Any) -> None:
        await asyncio.Event().wait()

    patches.put(Children, "run_sweep", nothing)


def _start_while_pausing(patches: Patches) -> None:
    """What is ready starts, though its run is being paused."""
    starting = frozenset((*run_state.STARTING, "PAUSING"))
    for module in (run_state, slots):
        patches.put(module, "STARTING", starting)


def _compensated_forward(patches: Patches) -> None:
    """What completed first is undone first."""

    def plan(run: Any) -> list[str]:
        return before(run)[::-1]  # type: ignore[no-any-return]

    before = patches.put(compensation, "plan", plan)


def _signal_forgotten(patches: Patches) -> None:
    """A signal's id is not remembered: said twice, it comes twice."""

    def received(run: Any, event: Any, time: int) -> None:
        before(run, event, time)
        run.commands.pop(event.signal_id, None)

    before = patches.entry(run_evolve._BY_TYPE, events.SignalReceived, received)


def _overtaking(patches: Patches) -> None:
    """A pause that comes after the resume that followed it pauses the run."""
    patches.put(steering, "overtaken", lambda run, ids: ())


def _doubts_too_short(patches: Patches) -> None:
    """A claim without an answer is believed not to have been carried out, after a moment."""

    def doubt(self: Any) -> None:
        self._doubted_until = asyncio.get_running_loop().time() + 0.2

    patches.put(Owning, "_doubt", doubt)


STEERED: tuple[Mutation, ...] = (
    Mutation("retried-keeps-result", "a generation ends by the result of the one before it (R31)", _retried_keeps_result, ("V41",), 200),
    Mutation("approved-twice", "an approval is answered twice by the same person (V44)", _approved_twice, ("V44",), 200),
    Mutation("child-forgotten", "a parent forgets its child at takeover (R16, R23)", _child_forgotten, ("V32", "V42", "V50"), 200),
    Mutation("child-brought-once", "the result of a step's run is not brought again (R28)", _child_brought_once, ("V38",), 500),
    Mutation("start-while-pausing", "a pause lets a step start (V9)", _start_while_pausing, ("V9",), 200),
    Mutation("compensated-forward", "what was done first is undone first (V49)", _compensated_forward, ("V49",), 300),
    Mutation("signal-forgotten", "a signal that comes twice is taken twice (V16)", _signal_forgotten, ("V16",), 200),
    Mutation("overtaking", "a command that was overtaken takes effect (R14)", _overtaking, ("V51",), 60, OVERTAKING),
    Mutation("doubts-too-short", "a claim that is carried out late is never found (R14)", _doubts_too_short, ("V38",), 500, 175),
)  # fmt: skip
