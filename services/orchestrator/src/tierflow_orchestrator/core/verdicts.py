"""What checks of calls and of outputs find. Values only, as in `decision`."""

from __future__ import annotations

import msgspec
from tierflow_flow.definition import Norm
from tierflow_runtime.values import Failure


class Denied(msgspec.Struct, frozen=True):
    """The call may not be made: the norm that says so (`policy:` or `flow:` and its name), and why."""

    norm: str
    reason: str


class Asked(msgspec.Struct, frozen=True):
    """People must approve the call first, as this norm says."""

    key: str
    norm: Norm


class Found(msgspec.Struct, frozen=True):
    """What checking an output found: why the attempt failed, or what is to be noted."""

    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
