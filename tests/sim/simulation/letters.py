"""What the statements about dead letters and the audit trail do; see `models`."""

from __future__ import annotations

from simulation.database import Transaction
from simulation.models import P, model
from simulation.tables import Tables


@model("note", writes=True)
def note(t: Transaction, tables: Tables, p: P) -> list[P]:
    key = (p["entity_id"], p["generation"], p["kind"], p["first_seq"])
    t.exclusive(("dead_letter", tables.schema, key))
    if key not in tables.dead_letter:
        t.write(tables.dead_letter.__setitem__, key, {**p, "state": "OPEN", "actor": "", "reason": ""})
    return []


@model("resolve_of", writes=True)
def resolve_of(t: Transaction, tables: Tables, p: P) -> list[P]:
    for key, row in tables.dead_letter.items():
        if key[0] == p["entity_id"] and key[1] < p["generation"] and row["state"] == "OPEN" and row["kind"] != "EVENTS":
            t.exclusive(("dead_letter", tables.schema, key))
            t.write(row.update, {"state": "RETRIED", "actor": p["actor"], "reason": p["reason"]})
    return []


@model("count_open")
def count_open(t: Transaction, tables: Tables, p: P) -> list[P]:
    counts: dict[str, int] = {}
    for row in tables.dead_letter.values():
        if row["state"] == "OPEN":
            counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    return [{"kind": kind, "n": n} for kind, n in counts.items()]


@model("unnoted")
def unnoted(t: Transaction, tables: Tables, p: P) -> list[P]:
    noted = {key[:2] for key in tables.dead_letter}
    rows = [
        {"id": id_} for id_, row in tables.entity.items()
        if row["outcome"] == "FAILURE" and row["reason"] == "DEAD_LETTER" and id_ > p["after"] and (id_, row["generation"]) not in noted
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["id"])[: p["limit"]]


@model("forget", writes=True)
def forget(t: Transaction, tables: Tables, p: P) -> list[P]:
    return [{"n": 0}]  # nothing here lives for days


@model("source")
def source(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.entity.get(p["id"])
    return [] if row is None else [row]


@model("begin", writes=True)
def begin(t: Transaction, tables: Tables, p: P) -> list[P]:
    t.write(tables.audit.__setitem__, p["id"], {**p, "code": ""})
    return []


@model("done", writes=True)
def done(t: Transaction, tables: Tables, p: P) -> list[P]:
    row = tables.audit.get(p["id"])
    if row is not None:
        t.write(row.update, {"code": p["code"], "subject": row["subject"] or p["subject"]})
    return []
