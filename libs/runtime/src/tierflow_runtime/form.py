"""In which form this process runs: compiled to machine code, or as Python (docs/adr/0021)."""

from __future__ import annotations

from typing import Final

COMPILED: Final = not __file__.endswith(".py")
"""Whether the hot path is compiled. This module is compiled with it."""
