"""What the expressions of a plan see: the plan's input, what became of its runs, the swarm's blackboard, the swarm."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.needs import branches_of_switches
from tierflow_expressions.scope import STATUS, Path, Scope, names_available, show_path, walk
from tierflow_expressions.values import loads
from tierflow_runtime.values import BlobRef, Failure, Payload

from tierflow_coordinator.core.plan import DECIDED, PlannedRun, Standing
from tierflow_coordinator.core.swarm import Swarm

RUN_FIELDS: Final = ("output", "state", "outcome", "failure", "flow")
"""What expressions can read of a run that has ended."""
SWARM_FIELDS: Final = ("id", "tenant", "user_id", "goal", "labels", "generation", "created_at")
"""What expressions can read of the swarm. `created_at` is microseconds since the epoch."""


class PlanScope(Scope):
    """A scope for one decision: what it parses, it keeps."""

    def __init__(self, swarm: Swarm, planned: PlannedRun | None = None) -> None:
        self._swarm = swarm
        self._planned = planned
        self._parsed: dict[tuple[str, str], Any] = {}

    def lookup(self, name: str, path: Path) -> Any:
        """The plain JSON value at `path` below `name`. Raises `ExpressionError` where there is none."""
        if name == "runs":
            return self._of_run(path)
        if name == "input":
            return walk(self._value(("input", ""), self._swarm.input, "the plan's input", {}), path, name)
        if name == "board":
            return self._of_board(path)
        if name == "swarm":
            return walk(self._facts(), path, name)
        if name == STATUS:
            return self._status(path)
        raise ExpressionError(f"{name} is not known here")

    def raw(self, name: str, path: Path) -> str | None:
        """The JSON text of what is handed on whole."""
        found: Payload | None = None
        if name == "input" and not path:
            found = self._swarm.input
        elif name == "runs" and len(path) == 2 and path[1] == "output":
            found = self._standing(path).output
        return found if isinstance(found, str) else None

    def whole(self, name: str, path: Path) -> Payload | None:
        """A value that nobody looks into: also one that is stored elsewhere."""
        if name == "input" and not path:
            return self._swarm.input
        if name == "runs" and len(path) == 2 and path[1] == "output":
            return self._standing(path).output
        return None

    def _standing(self, path: Path) -> Standing:
        plan = self._swarm.plan
        standing = None if plan is None or not path else plan.standings.get(str(path[0]))
        if standing is None:
            raise ExpressionError(f"{show_path('runs', path[:1])} is not a run of this plan")
        if standing.state not in DECIDED:
            raise ExpressionError(f"run {path[0]} has not ended: it is {standing.state}")
        return standing

    def _of_run(self, path: Path) -> Any:
        standing = self._standing(path)
        if len(path) < 2:
            return {field: self._field(str(path[0]), standing, field) for field in RUN_FIELDS}
        return walk(self._field(str(path[0]), standing, path[1]), path, "runs", start=2)

    def _field(self, planned_id: str, standing: Standing, field: str | int) -> Any:
        if field == "output":
            return self._value(("runs", planned_id), standing.output, f"the output of run {planned_id}", None)
        if field == "flow":
            return None if standing.flow is None else standing.flow.name
        if field == "failure":
            return None if standing.failure is None else _plain(standing.failure)
        if field in RUN_FIELDS:
            return getattr(standing, str(field))
        raise ExpressionError(f"runs.{planned_id}.{field} is not there; a run has: {', '.join(RUN_FIELDS)}")

    def _value(self, key: tuple[str, str], payload: Payload | None, what: str, otherwise: Any) -> Any:
        if payload is None:
            return otherwise
        if isinstance(payload, BlobRef):
            raise ExpressionError(
                f"{what} has {payload.size} bytes and is stored apart: a plan hands it on whole, and does not look into it"
            )
        if key not in self._parsed:
            self._parsed[key] = loads(payload)
        return self._parsed[key]

    def _of_board(self, path: Path) -> Any:
        entries = self._swarm.board.entries if self._swarm.board is not None else {}
        if not path:
            raise ExpressionError("board takes a key, written out: board.key")
        key = str(path[0])
        if key not in entries:
            raise ExpressionError(f"{show_path('board', path[:1])} is not there; board has: {names_available(entries)}")
        return walk(self._value(("board", key), entries[key].value, f"board.{key}", None), path, "board", start=1)

    def _facts(self) -> dict[str, Any]:
        swarm = self._swarm
        context = swarm.context
        return {
            "id": swarm.swarm_id,
            "tenant": context.tenant,
            "user_id": context.user_id,
            "goal": swarm.goal,
            "labels": dict(swarm.own_labels),
            "generation": swarm.generation,
            "created_at": swarm.created_at,
        }

    def _status(self, path: Path) -> bool:
        plan, planned = self._swarm.plan, self._planned
        if plan is None or planned is None:
            return path == ("success",)
        if path == ("failure",):
            return any(plan.standings[need].failing for need in planned.needs)
        return path == ("success",) and not any(hindered(self._swarm, planned))


def _plain(failure: Failure) -> Any:
    return msgspec.to_builtins(failure)


def hindered(swarm: Swarm, planned: PlannedRun) -> tuple[str, str]:
    """What keeps a run from starting although everything that it waits for is decided: the reason, and the choice that passed it over, where one did. Both empty: nothing."""
    plan = swarm.plan
    if plan is None:
        return "", ""
    for need in planned.needs:
        standing = plan.standings[need]
        if not (good(plan.run(need), standing) or standing.unchosen_by):
            return f"needs {need}, which is {standing.state}", ""
    lanes, lane_of = lanes_of(plan.runs)
    arrived = 0
    for need in planned.needs:
        if good(plan.run(need), plan.standings[need]):
            arrived |= lanes.get(need, 0)
    for need in planned.needs:
        choice = plan.standings[need].unchosen_by
        if choice and not arrived & lane_of.get(choice, 0):
            return f"needs {need}, which {choice} has not chosen", choice
    return "", ""


def good(planned: PlannedRun, standing: Standing) -> bool:
    """Whether what needs it may go on."""
    return standing.state == "COMPLETED" or (standing.state == "FAILED" and planned.tolerate)


def lanes_of(runs: tuple[PlannedRun, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """By run the choices that it comes after, as bits; and the bit of each choice."""
    bits, lanes = branches_of_switches(
        {run.id: run.needs for run in runs}, {named: run.id for run in runs for named in run.named}
    )
    return lanes, bits
