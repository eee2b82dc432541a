"""Changes of state, as they are committed: a line in the log at level debug, and a moment in the span of what changed (C11)."""

from __future__ import annotations

from tierflow_runtime.logs import get_log, ids
from tierflow_runtime.telemetry import Move, Telemetry
from tierflow_runtime.values import Context, Micros

log = get_log(__name__)

MOST = 200
"""Moments that one span may have; the journal has all."""


class Moves:
    """Notes what swarms or runs have done; costs next to nothing where nobody looks."""

    def __init__(self, kind: str, telemetry: Telemetry) -> None:
        self._event = f"{kind} changed"
        self._telemetry = telemetry
        self._noted: dict[str, list[Move]] = {}

    @property
    def wanted(self) -> bool:
        """Whether anybody looks at what is noted."""
        return self._telemetry.enabled or log.debugging

    def note(
        self,
        entity_id: str,
        context: Context,
        time: Micros,
        *,
        before: str,
        after: str,
        reason: str = "",
        actor: str = "",
    ) -> None:
        """A change that is committed. `time` in microseconds; `actor` is empty where the engine changed it by itself."""
        recording = self._telemetry.enabled
        if not recording and not log.debugging:
            return
        named = {"from": before, "to": after, "reason": reason, "actor": actor}
        facts = {name: value for name, value in named.items() if value}
        if log.debugging:
            log.debug(self._event, **ids(context), **facts)
        if recording:
            noted = self._noted.setdefault(entity_id, [])
            if len(noted) < MOST:
                noted.append(Move(after, time, {f"tierflow.{name}": value for name, value in facts.items()}))

    def take(self, entity_id: str) -> list[Move]:
        """What was noted of it, for its span; it is forgotten."""
        return self._noted.pop(entity_id, [])
