"""Explanations with what the shell knows: executors, slots, who paused a run (S5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from tierflow_contracts.common.v1 import explanation_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.durable import Durable
from tierflow_runtime import wire
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

from tierflow_orchestrator.checks import sound_texts, valid_id
from tierflow_orchestrator.core.explaining import Blocker, Explained, earliest, explain
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.dispatcher import Dispatcher

ROWS_BACK = 500
"""Journal rows that are read to find who paused a run."""


class Explaining:
    """Why runs and steps wait."""

    _durable: Durable
    _dispatcher: Dispatcher

    async def ExplainRun(self, request: pb.ExplainRunRequest, context: Any) -> pb.ExplainRunResponse:  # noqa: N802
        """See the proto."""
        valid_id("run_id", request.run_id)
        sound_texts(step_id=request.step_id)
        row = await self._durable.reader.row(request.run_id)
        seen: Explained | None = await self._durable.reader.view(
            request.run_id, lambda run: self._explained(run, request.step_id)
        )
        if row is None or seen is None:
            message = f"run {request.run_id} has no step {request.step_id[:80]}"
            raise FailureError(failure("NOT_FOUND", message, component="orchestrator", operation="explain_run"))
        blockers = [await self._with_person(request.run_id, row.seq, blocker) for blocker in seen.blockers]
        if row.reason == "QUARANTINED":
            text = "it was set aside after it could not be decided for; look at the log of its last owners"
            blockers.insert(0, Blocker(kind="OPERATOR", description=text))
        return pb.ExplainRunResponse(explanation=shown(request.run_id, request.step_id, seen, blockers))

    def _explained(self, run: Run, step_id: str) -> Explained | None:
        found = explain(run, step_id)
        if found is None:
            return None
        blockers = tuple(self._with_executors(run, each) if each.kind == "SLOT" else each for each in found.blockers)
        return msgspec.structs.replace(found, blockers=blockers)

    def _with_executors(self, run: Run, blocker: Blocker) -> Blocker:
        """Who could take the step, and why nobody does."""
        step = run.steps[blocker.step_id]
        labels = run.spec(step).labels
        able = [link for link in self._dispatcher.links() if link.offers(step.handler, labels)]
        if not any(link.connected for link in able):
            wanted = step.handler + "".join(f" {name}={value}" for name, value in labels.items())
            text = f"no living executor offers {wanted}: start one"
            named = tuple(link.key for link in able)
            return msgspec.structs.replace(blocker, kind="NO_EXECUTOR", description=text, held_by=named)
        used, slots = sum(link.used for link in able), sum(link.slots for link in able)
        position = self._dispatcher.slots.position(run.id, step.handler, labels)
        text = f"{used} of {slots} slots for {step.handler} are in use by this orchestrator"
        named = tuple(link.key for link in able)
        return msgspec.structs.replace(blocker, description=text, held_by=named, position=position)

    async def _with_person(self, run_id: str, seq: int, blocker: Blocker) -> Blocker:
        """Who paused the run: the last of its events that says so."""
        if blocker.kind != "PAUSE":
            return blocker
        rows = await self._durable.reader.events(run_id, max(0, seq - ROWS_BACK), ROWS_BACK)
        for row in reversed(rows):
            for event in reversed(event_pb2.EventBatch.FromString(row.data).events):
                change = event.run_state_changed
                if event.HasField("run_state_changed") and wire.RUN_STATES.name(change.to) == "PAUSING":
                    return msgspec.structs.replace(blocker, held_by=(change.actor,) if change.actor else ())
        return blocker


def shown(entity_id: str, step_id: str, seen: Explained, blockers: Iterable[Blocker]) -> explanation_pb2.Explanation:
    """An explanation as a message."""
    listed = tuple(blockers)
    soonest = earliest(listed)
    return explanation_pb2.Explanation(
        entity_id=entity_id,
        step_id=step_id,
        state=seen.state,
        blockers=[_message(blocker) for blocker in listed],
        earliest=None if soonest is None else wire.timestamp(soonest),
        deadline=None if seen.deadline is None else wire.timestamp(seen.deadline),
    )


def _message(blocker: Blocker) -> explanation_pb2.Blocker:
    return explanation_pb2.Blocker(
        kind=explanation_pb2.BlockerKind.Value(f"BLOCKER_KIND_{blocker.kind}"),
        step_id=blocker.step_id,
        description=blocker.description,
        held_by=blocker.held_by,
        until=None if blocker.until is None else wire.timestamp(blocker.until),
        position=blocker.position,
    )
