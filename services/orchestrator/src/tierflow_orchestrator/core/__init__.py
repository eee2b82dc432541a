"""The pure core of Tier 2: what a run is and how it moves. No input or output, no clock, no chance."""

from tierflow_orchestrator.core.decide import decide, missing_blobs
from tierflow_orchestrator.core.evolve import evolve
from tierflow_orchestrator.core.react import open_effects, react
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.snapshot import dump, load
from tierflow_orchestrator.core.states import IllegalTransition
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Decision, Reply

__all__ = [
    "Decision",
    "IllegalTransition",
    "Reply",
    "Run",
    "Step",
    "decide",
    "dump",
    "evolve",
    "load",
    "missing_blobs",
    "open_effects",
    "react",
]
