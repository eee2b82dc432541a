"""Subjects of events: `tierflow.v1.<tenant>.<swarm>.<run or ->.<class>`, built once per entity (H10, H16).

So that one can follow all of a tenant (`tierflow.v1.acme.>`), a swarm, a run or one class, by wildcards.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from tierflow_contracts.events.v1.event_pb2 import Event, EventClass

from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

ROOT: Final = "tierflow.v1"
RELIABLE: Final[dict[EventClass.ValueType, str]] = {
    EventClass.EVENT_CLASS_LIFECYCLE: "lifecycle",
    EventClass.EVENT_CLASS_STEPS: "steps",
    EventClass.EVENT_CLASS_TOOLS: "tools",
    EventClass.EVENT_CLASS_APPROVALS: "approvals",
    EventClass.EVENT_CLASS_AUDIT: "audit",
}
"""Classes that are delivered reliably, with the last part of their subjects. Progress is the one that is not (H11)."""
PROGRESS: Final = "progress"
RELIABLE_SUBJECTS: Final = tuple(f"{ROOT}.*.*.*.{name}" for name in RELIABLE.values())
PROGRESS_SUBJECTS: Final = (f"{ROOT}.*.*.*.{PROGRESS}.>",)

CATALOGUE: Final[dict[str, EventClass.ValueType]] = {
    "swarm_created": EventClass.EVENT_CLASS_LIFECYCLE,
    "swarm_state_changed": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_requested": EventClass.EVENT_CLASS_LIFECYCLE,
    "plan_decided": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_taken": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_finished": EventClass.EVENT_CLASS_LIFECYCLE,
    "swarm_ended": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_created": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_state_changed": EventClass.EVENT_CLASS_LIFECYCLE,
    "run_ended": EventClass.EVENT_CLASS_LIFECYCLE,
    "command_received": EventClass.EVENT_CLASS_AUDIT,
    "items_expanded": EventClass.EVENT_CLASS_STEPS,
    "step_scheduled": EventClass.EVENT_CLASS_STEPS,
    "step_started": EventClass.EVENT_CLASS_STEPS,
    "step_completed": EventClass.EVENT_CLASS_STEPS,
    "step_retrying": EventClass.EVENT_CLASS_STEPS,
    "step_failed": EventClass.EVENT_CLASS_STEPS,
    "step_skipped": EventClass.EVENT_CLASS_STEPS,
    "step_cancelled": EventClass.EVENT_CLASS_STEPS,
    "step_stopping": EventClass.EVENT_CLASS_STEPS,
    "variables_set": EventClass.EVENT_CLASS_STEPS,
    "cache_missed": EventClass.EVENT_CLASS_STEPS,
    "late_result": EventClass.EVENT_CLASS_STEPS,
    "hold_charged": EventClass.EVENT_CLASS_STEPS,
    "attempt_logged": EventClass.EVENT_CLASS_STEPS,
    "step_waiting": EventClass.EVENT_CLASS_STEPS,
    "event_emitted": EventClass.EVENT_CLASS_STEPS,
    "signal_received": EventClass.EVENT_CLASS_AUDIT,
    "child_told": EventClass.EVENT_CLASS_STEPS,
    "approval_requested": EventClass.EVENT_CLASS_APPROVALS,
    "approval_decided": EventClass.EVENT_CLASS_APPROVALS,
    "approval_escalated": EventClass.EVENT_CLASS_APPROVALS,
    "approval_resolved": EventClass.EVENT_CLASS_APPROVALS,
    "step_reused": EventClass.EVENT_CLASS_STEPS,
    "step_interrupted": EventClass.EVENT_CLASS_STEPS,
    "step_held": EventClass.EVENT_CLASS_STEPS,
    "step_released": EventClass.EVENT_CLASS_STEPS,
    "breakpoints_set": EventClass.EVENT_CLASS_AUDIT,
    "run_updated": EventClass.EVENT_CLASS_AUDIT,
    "run_migrated": EventClass.EVENT_CLASS_AUDIT,
    "signal_answered": EventClass.EVENT_CLASS_AUDIT,
    "block_began": EventClass.EVENT_CLASS_STEPS,
    "iteration_began": EventClass.EVENT_CLASS_STEPS,
    "handler_called": EventClass.EVENT_CLASS_STEPS,
    "step_grown": EventClass.EVENT_CLASS_STEPS,
    "step_reset": EventClass.EVENT_CLASS_STEPS,
    "compensation_began": EventClass.EVENT_CLASS_STEPS,
    "step_compensated": EventClass.EVENT_CLASS_STEPS,
    "compensation_failed": EventClass.EVENT_CLASS_STEPS,
    "step_entered": EventClass.EVENT_CLASS_STEPS,
    "context_exported": EventClass.EVENT_CLASS_STEPS,
    "event_consumed": EventClass.EVENT_CLASS_STEPS,
    "tool_call_began": EventClass.EVENT_CLASS_TOOLS,
    "tool_call_ended": EventClass.EVENT_CLASS_TOOLS,
    "context_updated": EventClass.EVENT_CLASS_AUDIT,
    "blackboard_changed": EventClass.EVENT_CLASS_AUDIT,
    "context_checkpointed": EventClass.EVENT_CLASS_AUDIT,
    "context_restored": EventClass.EVENT_CLASS_AUDIT,
    "schedule_created": EventClass.EVENT_CLASS_LIFECYCLE,
    "schedule_updated": EventClass.EVENT_CLASS_LIFECYCLE,
    "schedule_state_changed": EventClass.EVENT_CLASS_LIFECYCLE,
    "firing_changed": EventClass.EVENT_CLASS_LIFECYCLE,
    "times_missed": EventClass.EVENT_CLASS_LIFECYCLE,
    "backfill_requested": EventClass.EVENT_CLASS_LIFECYCLE,
    "progress_reported": EventClass.EVENT_CLASS_PROGRESS,
}
"""Every kind of event (its field in `Event.payload`) and its class. What is not here is not published (A11)."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")


def class_of(event: Event) -> EventClass.ValueType:
    """The class of an event. Raises FailureError with INTERNAL for one without a payload or of a kind that the catalogue does not have (A11)."""
    kind = event.WhichOneof("payload")
    event_class = CATALOGUE.get(kind) if kind else None
    if event_class is None:
        raise FailureError(
            failure(
                "INTERNAL",
                "An event of an unknown kind was not published.",
                component="messaging",
                operation="class_of",
                detail=f"{kind}, seq {event.seq}",
            )
        )
    return event_class


def token(text: str) -> str:
    """A text as one part of a subject: what is not a letter, digit, `_` or `-` becomes `=` and two hex digits per byte; nothing becomes `-`.

    Different texts have different tokens; `untoken` gives the text back.
    """
    if not text:
        return "-"
    if text == "-":
        return "=2D"
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda match: "".join(f"={byte:02X}" for byte in match[0].encode()), text)


def untoken(part: str) -> str:
    """The text of a token."""
    if part == "-":
        return ""
    head, *encoded = part.split("=")
    raw = head.encode() + b"".join(bytes.fromhex(piece[:2]) + piece[2:].encode() for piece in encoded)
    return raw.decode()


def prefix_of(tenant: str, swarm_id: str, run_id: str) -> str:
    """What the subjects of an entity's events begin with; the class follows after a dot."""
    return f"{ROOT}.{token(tenant)}.{token(swarm_id)}.{token(run_id)}"


class EntitySubjects:
    """The subjects of one swarm's or run's events."""

    __slots__ = ("_by_class", "_progress", "prefix")

    def __init__(self, tenant: str, swarm_id: str, run_id: str) -> None:
        self.prefix = prefix_of(tenant, swarm_id, run_id)
        self._by_class = {event_class: f"{self.prefix}.{name}" for event_class, name in RELIABLE.items()}
        self._progress = f"{self.prefix}.{PROGRESS}."

    def of(self, event_class: EventClass.ValueType) -> str:
        """The subject of a reliable class."""
        return self._by_class[event_class]

    def progress(self, step_id: str) -> str:
        """The subject of a step's progress."""
        return self._progress + token(step_id)


@lru_cache(maxsize=8192)
def subjects_of(tenant: str, swarm_id: str, run_id: str = "") -> EntitySubjects:
    """The subjects of an entity's events; built once and kept while it is busy. `run_id` is empty for a swarm's own events."""
    return EntitySubjects(tenant, swarm_id, run_id)
