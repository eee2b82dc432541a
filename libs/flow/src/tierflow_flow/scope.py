"""What expressions can read of the things that a flow has."""

from __future__ import annotations

LOOP_FIELDS = ("index", "last")
"""What expressions can read of the loop around them."""
ERROR_FIELDS = ("code", "message", "step", "attempt", "retryable", "failure")
"""What a handler step can read of `last_error`."""
STEP_FIELDS = ("output", "state", "outcome", "failure")
"""What expressions can read of a step that has ended."""
RUN_FIELDS = (
    "id",
    "tenant",
    "user_id",
    "swarm_id",
    "correlation_id",
    "generation",
    "labels",
    "flow",
    "version",
    "created_at",
    "roles",
)
"""What expressions can read of the run. `created_at` is microseconds since the epoch."""
CALL_FIELDS = ("handler", "step", "attempt", "side_effecting", "input")
"""What the expressions of norms can read of the call that is to be made."""
