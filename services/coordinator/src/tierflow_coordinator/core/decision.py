"""What a decision consists of. Values only: modules of structs are not compiled (docs/adr/0021), so they are apart from what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tierflow_coordinator.core import commands, events


class Decision(msgspec.Struct, kw_only=True, gc=False):
    """Events, already applied to the state, and the answer."""

    events: Sequence[events.SwarmEvent]
    reply: commands.Reply
    blobs: Mapping[str, bytes] = {}
