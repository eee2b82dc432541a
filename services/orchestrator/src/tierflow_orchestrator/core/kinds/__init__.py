"""How steps of each kind go on once everything they need has ended: one entry here for each kind of the language, and a module that says the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tierflow_orchestrator.core.kinds.approval import ApprovalKind
from tierflow_orchestrator.core.kinds.base import Kind
from tierflow_orchestrator.core.kinds.call import Call
from tierflow_orchestrator.core.kinds.emit import Emit
from tierflow_orchestrator.core.kinds.fail import FailKind
from tierflow_orchestrator.core.kinds.group import Group
from tierflow_orchestrator.core.kinds.loop import Loop
from tierflow_orchestrator.core.kinds.map import Map, MapBlock
from tierflow_orchestrator.core.kinds.signal import SignalKind
from tierflow_orchestrator.core.kinds.switch import Switch
from tierflow_orchestrator.core.kinds.wait import WaitKind

KINDS: Final[Mapping[str, Kind]] = {
    "approval": ApprovalKind(),
    "call": Call(),
    "map": Map(),
    "map_block": MapBlock(),
    "group": Group(),
    "loop": Loop(),
    "flow": Call(),
    "emit": Emit(),
    "fail": FailKind(),
    "signal": SignalKind(),
    "switch": Switch(),
    "wait": WaitKind(),
}
"""By the name that `tierflow_flow.kinds` has for it."""
