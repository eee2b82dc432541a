"""What the parts of the public API need of each other: the swarm or run that a caller may see, and the way to Tier 2."""

from __future__ import annotations

from typing import Any

from tierflow_runtime.security import Caller

from tierflow_coordinator.core.swarm import Swarm


class Reaching:
    """Base of those parts; the facade has the real ones, and comes before all of them."""

    async def _runs_stub(self) -> Any:
        """A stub of some orchestrator. Raises FailureError UNAVAILABLE."""
        raise NotImplementedError

    async def _run(self, run_id: str, caller: Caller) -> Any:
        """The run, if the caller may see it. Raises FailureError NOT_FOUND."""
        raise NotImplementedError

    async def _visible(self, swarm_id: str, caller: Caller, *, hide: bool = True) -> Swarm:
        """The swarm, if the caller may see it. Raises FailureError NOT_FOUND."""
        raise NotImplementedError

    def _call(self, caller: Caller) -> dict[str, Any]:
        """Arguments of a call to Tier 2 for this caller."""
        raise NotImplementedError
