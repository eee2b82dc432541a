"""Handles of secrets: what stands for a value in requests and journals until an executor puts the value in."""

from __future__ import annotations

from typing import Final

OPENING: Final = "{{secret:"
"""How every handle begins. Tier 2 counts them, so that no value of a user passes for one."""


def handle(name: str) -> str:
    """The handle of a secret; it is the same within JSON text."""
    return f"{OPENING}{name}}}}}"
