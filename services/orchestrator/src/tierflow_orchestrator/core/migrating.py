"""Letting a paused run go on with another version of its flow (Q21): only where everything that has happened would have been possible in that version, too."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from tierflow_flow.definition import Flow, FlowError
from tierflow_runtime.values import Failure, Violation

from tierflow_orchestrator.core import commands, events, failures, growth
from tierflow_orchestrator.core.generations import not_begun
from tierflow_orchestrator.core.navigator import settle
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steering import answer, conflict, invalid, journal, known
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Difference, Reply, Turn


def migrate(turn: Turn, command: commands.Migrate) -> Reply:
    """Checks another version against what has happened, shows what differs, and goes on with it."""
    run = turn.run
    if (reply := known(run, command)) is not None:
        return reply
    if (failure := conflict(run, "migrate")) is not None:
        return turn.refused(failure)
    flow: Flow | None = command.flow
    if flow is None:
        return turn.refused(invalid("flow", "is not there", "migrate"))
    difference = differ(run.definition(), flow)
    if (failure := _impossible(run, flow)) is not None:
        return turn.refused(failure)
    if command.only_check:
        return msgspec.structs.replace(answer(run, applied=False), difference=difference)
    journal(turn, command, "migrate", f"{flow.name} {flow.version}")
    turn.emit(
        events.RunMigrated(
            flow_hash=flow.hash,
            flow_name=flow.name,
            flow_version=flow.version,
            definition=command.definition,
            flow=flow,
        )
    )
    settle(turn)
    return msgspec.structs.replace(answer(run, applied=True), difference=difference)


def differ(before: Flow, after: Flow) -> Difference:
    """What differs between two versions."""
    both = [spec.id for spec in before.steps if spec.id in after.by_id]
    old, new = _texts(before), _texts(after)
    return Difference(
        from_hash=before.hash,
        to_hash=after.hash,
        from_version=before.version,
        to_version=after.version,
        added=tuple(spec.id for spec in after.steps if spec.id not in before.by_id),
        removed=tuple(spec.id for spec in before.steps if spec.id not in after.by_id),
        changed=tuple(step_id for step_id in both if old.get(step_id) != new.get(step_id)),
    )


def _texts(flow: Flow) -> Mapping[str, bytes]:
    """The canonical definition of each step."""
    steps = msgspec.json.decode(flow.canonical).get("steps", {})
    pairs = steps.items() if isinstance(steps, dict) else ((step.get("id", ""), step) for step in steps)
    return {step_id: msgspec.json.encode(step) for step_id, step in pairs}


def _impossible(run: Run, flow: Flow) -> Failure | None:
    """Why the run cannot go on with this version: all reasons."""
    if flow.name != run.flow_name:
        return invalid("flow", f"is {flow.name!r}, another flow than {run.flow_name!r}", "migrate")
    found = [
        Violation(field=f"flow.steps.{step.id}", description=why)
        for step in run.steps.values()
        if not step.above and not not_begun(step) and (why := _wrong(run, flow, step))
    ]
    found += _ungrown(run, flow)
    if not found:
        return None
    message = f"migrate: {found[0].field} {found[0].description}."
    return failures.made("STATE_CONFLICT", message, "migrate", violations=tuple(found))


def _ungrown(run: Run, flow: Flow) -> list[Violation]:
    """Why what has grown in the run could not have grown in this version."""
    if not all(step_id in flow.by_id for step_id in run.grown):
        return []  # It has begun and is not part of it: said already.
    try:
        growth.whole(run, flow)
    except FlowError as error:
        return [
            Violation(field=f"flow.{problem.path}", description=f"{problem.description} (it has grown in this run)")
            for problem in error.problems[:20]
        ]
    return []


def _wrong(run: Run, flow: Flow, step: Step) -> str:
    """What is wrong with the new definition of a step that has begun or ended; empty where nothing is."""
    spec, before = flow.by_id.get(step.id), run.definition().by_id[step.id]
    if spec is None:
        return f"is {step.state} and not part of this version"
    if spec.kind != before.kind:
        return f"is {step.state} as a step of kind {before.kind}, not {spec.kind}"
    if step.state == "READY":
        return ""
    unmet = [need for need in spec.needs if need not in run.steps or not run.steps[need].ended]
    if unmet:
        return f"is {step.state} and needs {unmet[0]}, which has not ended"
    if not step.ended and _texts(run.definition())[step.id] != _texts(flow)[step.id]:
        return f"is {step.state} and defined otherwise"
    return ""
