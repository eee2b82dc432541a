"""The catalogue of events: which class each type belongs to. What is not here is not published."""

from __future__ import annotations

from tierflow_contracts.events.v1 import event_pb2

CLASSES = {
    "swarm_created": "lifecycle",
    "swarm_state_changed": "lifecycle",
    "run_requested": "lifecycle",
    "run_taken": "lifecycle",
    "run_finished": "lifecycle",
    "swarm_ended": "lifecycle",
    "run_created": "lifecycle",
    "run_state_changed": "lifecycle",
    "run_ended": "lifecycle",
    "command_received": "audit",
    "items_expanded": "steps",
    "step_scheduled": "steps",
    "step_started": "steps",
    "step_completed": "steps",
    "step_retrying": "steps",
    "step_failed": "steps",
    "step_skipped": "steps",
    "step_cancelled": "steps",
    "late_result": "steps",
    "attempt_logged": "steps",
    "progress_reported": "progress",
}
"""Field name of the payload in `tierflow.events.v1.Event` to class."""


def class_of(event: event_pb2.Event) -> str:
    """The class of an event. Raises KeyError for one that is not in the catalogue."""
    return CLASSES[event.WhichOneof("payload") or ""]
