"""How models of statements are written down.

Each is a function of the transaction, the tables of its schema and its parameters by name: it takes its locks, reads what is committed, and writes with `t.write`.
`tests/component/test_statement_models.py` holds them against the real Postgres: a statement that changes must be changed here by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.database import Transaction
from simulation.tables import Tables

P = dict[str, Any]
MODELS: dict[str, tuple[Callable[[Transaction, Tables, P], list[P]], bool]] = {}
"""By name: the model, and whether it writes."""


def model(name: str, *, writes: bool = False) -> Callable[[Any], Any]:
    """Registers the model of a statement."""

    def keep(function: Any) -> Any:
        MODELS[name] = (function, writes)
        return function

    return keep


def held(t: Transaction, tables: Tables, me: str, *, share: bool = True, check: bool = True) -> bool:
    """The CTE of that name: the fence row FOR SHARE, if it is not fenced."""
    row = tables.fence.get(me)
    if row is None:
        return False
    if share:
        t.share(("fence", tables.schema, me))
    return not (check and row["fenced"])
