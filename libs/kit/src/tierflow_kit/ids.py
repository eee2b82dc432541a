"""Ids of steps as runs have them, and the definitions that they come from."""

from __future__ import annotations

import re

_PLACE = re.compile(r"\[\d+\]|#\d+")
_CALLED_FOR = re.compile(r"[^/]*!\d*/")


def definition_of(step_id: str) -> str:
    """The id in the flow of a step of a run: of `each[3]/ship`, `each#2/ship` it is `each/ship`; of `trip/pay!2/rescue`, which stands beside, `trip/rescue`."""
    return _CALLED_FOR.sub("", _PLACE.sub("", step_id))
