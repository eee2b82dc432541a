"""What the history of a run says of tool calls, against V52. Told again in the plainest way; it shares no code with the core."""

from __future__ import annotations

from typing import Any, Protocol

OUTCOMES = frozenset(("SUCCESS", "FAILURE", "CANCELLED", "LOST"))
_NAMES = {1: "SUCCESS", 2: "FAILURE", 3: "CANCELLED", 4: "LOST"}
"""As the numbers of ToolOutcome, where events are read from journals."""


class _Checker(Protocol):
    calls: dict[str, str]
    """By id of a call that is open: its attempt."""
    called: set[str]
    """Ids of calls that have begun."""

    def expect(self, holds: bool, invariant: str, text: str) -> None: ...
    def _step(self, name: str) -> Any: ...


class ToolRules:
    """V52: each tool call that begins ends once, while its attempt is in flight."""

    __slots__ = ()

    def on_ToolCallBegan(self: _Checker, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """An attempt calls a tool."""
        live = self._step(event.step_id).live
        self.expect(bool(live) and live == event.attempt_id, "V52", f"{event.call_id} begins without its attempt")
        self.expect(event.call_id not in self.called, "V52", f"{event.call_id} begins twice")
        own = event.call_id == event.attempt_id or event.call_id.startswith(f"{event.attempt_id}#")
        self.expect(own and bool(event.tool), "V52", f"{event.call_id} is no call of {event.attempt_id}")
        self.called.add(event.call_id)
        self.calls[event.call_id] = event.attempt_id

    def on_ToolCallEnded(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """A tool call is over."""
        attempt = self.calls.pop(event.call_id, None)
        self.expect(attempt == event.attempt_id, "V52", f"{event.call_id} ends and is not open")
        outcome = _NAMES.get(event.outcome, event.outcome)
        self.expect(outcome in OUTCOMES, "V52", f"{event.call_id} ended with outcome {outcome}")

    def no_call_open(self: _Checker, attempt_id: str) -> None:
        """An attempt is over: with it all that it called."""
        left = [call for call, attempt in self.calls.items() if attempt == attempt_id] if self.calls else []
        self.expect(not left, "V52", f"{attempt_id} ended before its tool calls {left[:5]}")
