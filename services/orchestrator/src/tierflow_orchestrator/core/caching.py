"""Results that are taken over: what a step's key is, and what becomes of the answer to the look-up.

A step with `cache` that may start is looked up first; until the answer is journaled it is not among those that wait for a slot. A stored result is never needed:
whoever cannot be asked has none.
"""

from __future__ import annotations

import hashlib
import json

from tierflow_expressions.errors import ExpressionError

from tierflow_orchestrator.core import commands, events, failures, outputs
from tierflow_orchestrator.core.navigator import fail, settle
from tierflow_orchestrator.core.payloads import failure_code
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, parse
from tierflow_orchestrator.core.setting import set_variables
from tierflow_orchestrator.core.step import CacheHit, Step
from tierflow_orchestrator.core.turn import Reply, Turn


def key_hash(run: Run, step: Step) -> str:
    """SHA-256 of everything that two steps must have in common for one's result to stand for the other's, the tenant aside. Raises `ExpressionError`."""
    spec = run.spec(step)
    if spec.cache is None:
        raise ExpressionError(f"{spec.id} is not cached")
    whose = {"tenant": "", "flow": run.flow_name, "run": run.id}[spec.cache.scope]
    key = parse(spec.cache.key.resolve_json(RunScope(run, step)))
    parts = [spec.cache.scope, whose, spec.handler, spec.cache.version, run.options.test_mode, key]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def recall(turn: Turn, command: commands.Recall) -> Reply:
    """The answer to a look-up: the step completes, or may start."""
    run = turn.run
    step = run.steps.get(command.step_id)
    if run.state != "RUNNING" or step is None or step.id not in run.lookups or step.held:
        return turn.refused(failures.stale(f"{command.step_id} waits for no stored result; the run is {run.state}."))
    try:
        key = key_hash(run, step)
    except ExpressionError as error:
        fail(turn, step, failures.of_step(step, failure_code(error), str(error), "cache"))
        settle(turn)
        return turn.applied()
    if not (command.found and command.key_hash == key and _taken(turn, step, command)):
        turn.emit(events.CacheMissed(step_id=step.id, key_hash=key))
    settle(turn)
    return turn.applied()


def _taken(turn: Turn, step: Step, command: commands.Recall) -> bool:
    """Completes a step with a stored result, where that is what the step may return today."""
    spec = turn.run.spec(step)
    checked = outputs.Found()
    if spec.output_schema is not None or spec.rules:
        checked = outputs.check(turn.run, step, spec, command.output)
        if checked.failure is not None:
            return False
    failure = None if step.is_item else set_variables(turn, step, command.output)
    if failure is not None:
        fail(turn, step, failure)
        return True
    hit = CacheHit(
        key_hash=command.key_hash, run_id=command.run_id, step_id=command.made_by, stored_at=command.stored_at
    )
    turn.emit(events.StepCompleted(step_id=step.id, output=command.output, warnings=checked.warnings, cached=hit))
    return True
