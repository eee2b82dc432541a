"""Troubles with the database, by kind: a number to alert on, a word in the log, an attribute of the span (F25)."""

from __future__ import annotations

from functools import partial
from typing import Final, get_args

from tierflow_runtime.classify import DatabaseTrouble, database_trouble
from tierflow_runtime.metrics import Metrics

KINDS: Final[tuple[DatabaseTrouble, ...]] = get_args(DatabaseTrouble)


class Troubles:
    """How often the database failed one process, by kind."""

    def __init__(self) -> None:
        self.counts: dict[DatabaseTrouble, int] = dict.fromkeys(KINDS, 0)

    def note(self, error: BaseException) -> DatabaseTrouble:
        """Counts an error of the database, and says of what kind it is."""
        kind = database_trouble(error, database=True) or "connection"
        self.counts[kind] += 1
        return kind

    def show(self, metrics: Metrics) -> None:
        """Shows them as `tierflow_database_troubles`."""
        gauge = metrics.gauge("database_troubles", "Calls that the database failed since the start, by kind", ("kind",))
        for kind in KINDS:
            gauge.labels(kind).set_function(partial(self.counts.__getitem__, kind))
