"""What admission makes of a request. Values only: modules of structs are not compiled (docs/adr/0021), so they are apart from what is."""

from __future__ import annotations

import msgspec
from tierflow_durable.machine import RequestKey

from tierflow_coordinator.core import commands


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A request that passed: the new swarm's command, and the key under which a repetition is known."""

    command: commands.CreateSwarm
    request_key: RequestKey | None
    parent_traceparent: str
    """The client's, or an empty string."""

    @property
    def swarm_id(self) -> str:
        """The id chosen for the swarm."""
        return self.command.context.swarm_id
