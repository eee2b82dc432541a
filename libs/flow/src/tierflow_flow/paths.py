"""Ids of the steps of a run, and the paths of their definitions in the flow.

Within a block a step's id tells the way to it: `group/step`, `group#2/step` where the block is run again, `map[3]/step`, `step!/handler`,
`step!compensate`. The path of its definition has nothing of what is counted: `group/step`, `map/step`, `handler`, `step!compensate`.
"""

from __future__ import annotations

import re
from typing import Final

_COUNTED: Final = re.compile(r"\[[0-9]+\]|#[0-9]+|[^/]*![0-9]*/")


def definition_path(step_id: str) -> str:
    """The path of the definition of a step of a run; of an item or an iteration, that of its map or loop."""
    return _COUNTED.sub("", step_id)
