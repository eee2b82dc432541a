"""The group commit and everything that turns a statement's text into its model."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import asyncpg
from tierflow_durable.batch import commit_statement
from tierflow_durable.sqlfile import Statement, blocks, statement

from simulation import letters, models, reads, statements
from simulation.database import Transaction
from simulation.tables import Row, Tables

MODELLED = (statements, reads, letters)
"""Where models are written down."""

_PACKAGES = (
    ("tierflow_durable", "queries.sql"),
    ("tierflow_durable", "dead_letters.sql"),
    ("tierflow_durable", "audit.sql"),
    ("tierflow_orchestrator", "flows.sql"),
    ("tierflow_orchestrator", "cache.sql"),
    ("tierflow_coordinator", "queries.sql"),
)
_CREATED = (
    "tenant", "user_id", "state", "reason", "name", "version", "parent_id", "trace_id", "correlation_id", "labels", "outcome", "generation", "created_at",
    "ended_at", "seq", "wake_at",
)  # fmt: skip
_UPDATED = ("state", "reason", "outcome", "generation", "ended_at", "seq", "wake_at")
_PARTS = ("requests", "creates", "updates", "endings", "acknowledgements", "journal", "snapshots", "blobs")


class Plan:
    """A statement that the simulated server knows."""

    __slots__ = ("_model", "name", "parameters", "writes")

    def __init__(self, name: str, parameters: tuple[str, ...], model: Callable[..., Any], *, writes: bool) -> None:
        self.name = name
        self.parameters = parameters
        self._model = model
        self.writes = writes

    def run(self, transaction: Transaction, tables: Tables, args: tuple[Any, ...]) -> list[Row]:
        rows: list[Row] = self._model(transaction, tables, dict(zip(self.parameters, args, strict=True)))
        return rows


class Engine:
    """The schemas of the server, and its statements."""

    def __init__(self) -> None:
        self._schemas: dict[str, Tables] = {}

    def tables(self, schema: str) -> Tables:
        found = self._schemas.get(schema)
        if found is None:
            found = self._schemas[schema] = Tables(schema)
        return found

    def plan(self, schema: str, text: str) -> Plan:
        return plan(text)


@functools.cache
def plan(text: str) -> Plan:
    """The model of a statement. Raises NotImplementedError for one that has none."""
    found = _named().get(text)
    if found is not None:
        function, writes = models.MODELS[found.name]
        return Plan(found.name, found.parameters, function, writes=writes)
    if text.startswith("WITH held"):
        return _commit_plan(text)
    raise NotImplementedError(
        f"the simulated database does not know this statement; model it in statements.py:\n{text}"
    )


@functools.cache
def _named() -> dict[str, Statement]:
    found: dict[str, Statement] = {}
    for package, filename in _PACKAGES:
        for name in blocks(package, filename):
            if name in models.MODELS:
                known = statement(name, filename, package)
                found[known.text] = known
    return found


def _commit_plan(text: str) -> Plan:
    """A group commit: which parts it has is read from its text, and the clauses on which safety rests as well."""
    marks = {"requests": "requested AS", "creates": "created AS", "updates": "updated AS", "endings": "ended AS", "acknowledgements": "acknowledged AS",
             "journal": "journaled AS", "snapshots": "snapped AS", "blobs": "stored AS"}  # fmt: skip
    parts = tuple(part for part in _PARTS if marks[part] + " (" in text)
    known = commit_statement(parts, keyed="requests" in parts)
    if known.text != text:
        raise NotImplementedError(f"this group commit is not made of the parts of commit.sql:\n{text}")
    clauses = Clauses(text)
    name = "commit_" + "_".join(part[0] for part in parts)
    return Plan(name, known.parameters, functools.partial(commit, clauses, parts), writes=True)


class Clauses:
    """What the text says in the places that rules R1 and R3 are about: the model does what the SQL says, also where that is wrong."""

    def __init__(self, text: str) -> None:
        fence = text[: text.index(")")]
        self.share = "FOR SHARE" in fence
        self.check = "NOT fenced" in fence
        updates = _cte(text, "updated")
        self.by_owner = "entity.owner IS NOT DISTINCT FROM held.id" in updates
        self.yields = "ON CONFLICT DO NOTHING" in _cte(text, "created")
        self.winners = "IN (SELECT id FROM created)" in _cte(text, "journaled")
        self.keyed = "IN (SELECT entity_id FROM requested)" in _cte(text, "created")


def _cte(text: str, name: str) -> str:
    match = re.search(rf"\b{name} AS \((.*?)\n\)", text, re.DOTALL)
    return match[1] if match else ""


def commit(clauses: Clauses, parts: tuple[str, ...], t: Transaction, tables: Tables, p: Row) -> list[Row]:
    """The group commit (rules R1 to R4)."""
    p = {name: _column(value) for name, value in p.items()}
    me = t.me = p["me"]
    is_held = models.held(t, tables, me, share=clauses.share, check=clauses.check)
    verdict: Row = {"held": int(is_held), "created": [] if "creates" in parts else None, "updated": 0}
    if not is_held:
        return [verdict]
    requested = _requests(t, tables, p) if "requests" in parts else set()
    if "creates" in parts:
        verdict["created"] = _creates(clauses, t, tables, p, requested)
    if "updates" in parts:
        verdict["updated"] = _updates(clauses, t, tables, p)
    if "endings" in parts:
        _endings(t, tables, p, verdict["created"])
    if "acknowledgements" in parts:
        _acknowledge(t, tables, p)
    if "journal" in parts:
        _journal(clauses, t, tables, p, verdict["created"])
    if "snapshots" in parts:
        columns = (p["s_entity_id"], p["s_seq"], p["s_data"], p["s_chain"], p["s_checksum"])
        for id_, seq, data, chain, checksum in zip(*columns, strict=True):
            if id_ not in tables.snapshot or tables.snapshot[id_]["seq"] < seq:
                row = {"entity_id": id_, "seq": seq, "data": data, "chain": chain, "checksum": checksum}
                t.write(tables.snapshot.__setitem__, id_, row)
    if "blobs" in parts:
        for name, chunk, data in zip(p["b_sha256"], p["b_chunk"], p["b_data"], strict=True):
            t.write(tables.put_chunk, name, chunk, data)
    return [verdict]


_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)')
_WORDS: dict[str, Any] = {"NULL": None, "True": True, "False": False}


def _word(text: str) -> Any:
    return _WORDS[text] if text in _WORDS else int(text)


def _column(value: Any) -> Any:
    """A parameter as the server reads it: the list, where it is an array in text."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    found = _ELEMENT.finditer(value)
    return [re.sub(r"\\(.)", r"\1", each[1]) if each[2] is None else _word(each[2]) for each in found]


def _requests(t: Transaction, tables: Tables, p: Row) -> set[str]:
    requested: set[str] = set()
    seen: set[tuple[str, str]] = set()
    rows = zip(p["r_tenant"], p["r_request_id"], p["r_body_hash"], p["r_entity_id"], p["r_created_at"], strict=True)
    for tenant, request_id, body_hash, entity_id, created_at in rows:
        key = (tenant, request_id)
        t.exclusive(("request", tables.schema, key))
        if key in tables.request or key in seen:
            continue
        seen.add(key)
        requested.add(entity_id)
        row = {"entity_id": entity_id, "body_hash": body_hash, "created_at": created_at}
        t.write(tables.request.__setitem__, key, row)
    return requested


def _creates(clauses: Clauses, t: Transaction, tables: Tables, p: Row, requested: set[str]) -> list[str]:
    created: list[str] = []
    for place, id_ in enumerate(p["c_id"]):
        if clauses.keyed and p["c_keyed"][place] and id_ not in requested:
            continue
        t.exclusive(("entity", tables.schema, id_))
        if id_ in tables.entity or id_ in created:
            if not clauses.yields:
                raise asyncpg.UniqueViolationError("entity_pkey")
            continue
        row: Row = {name: p[f"c_{name}"][place] for name in _CREATED}
        row["id"] = id_
        row["owner"] = None if p["c_release"][place] else p["me"]
        row["adoptions"] = 0
        created.append(id_)
        t.write(tables.change_entity, id_, row)
    return created


def _updates(clauses: Clauses, t: Transaction, tables: Tables, p: Row) -> int:
    updated = 0
    for place, id_ in enumerate(p["u_id"]):
        row = tables.entity.get(id_)
        if row is None:
            continue
        t.exclusive(("entity", tables.schema, id_))
        if clauses.by_owner and row["owner"] != p["me"]:
            continue
        change: Row = {name: p[f"u_{name}"][place] for name in _UPDATED}
        change["adoptions"] = 0
        if p["u_release"][place]:
            change["owner"] = None
        t.write(tables.change_entity, id_, change)
        updated += 1
    return updated


def _endings(t: Transaction, tables: Tables, p: Row, created: list[str] | None) -> None:
    columns = (p["e_id"], p["e_generation"], p["e_ended_at"], p["e_new"])
    for id_, generation, ended_at, new in zip(*columns, strict=True):
        if not new or id_ in (created or ()):
            t.exclusive(("unacknowledged", tables.schema, id_))
            row = {"id": id_, "generation": generation, "ended_at": ended_at}
            t.write(tables.unacknowledged.__setitem__, id_, row)


def _acknowledge(t: Transaction, tables: Tables, p: Row) -> None:
    # A row is changed once by a statement: the ending comes first, and the acknowledgement finds nothing.
    ended = {args[0] for change, args in t.writes if change == tables.unacknowledged.__setitem__}
    for id_, generation in zip(p["a_id"], p["a_generation"], strict=True):
        row = tables.unacknowledged.get(id_)
        if row is not None and id_ not in ended and row["generation"] <= generation:
            t.exclusive(("unacknowledged", tables.schema, id_))
            t.write(tables.unacknowledged.pop, id_, None)


def _journal(clauses: Clauses, t: Transaction, tables: Tables, p: Row, created: list[str] | None) -> None:
    fresh: set[tuple[str, int]] = set()
    columns = ("entity_id", "seq", "first_seq", "position", "data", "chain", "new")
    for entity_id, seq, first_seq, position, data, chain, new in zip(
        *(p[f"j_{name}"] for name in columns), strict=True
    ):
        if clauses.winners and new and entity_id not in (created or ()):
            continue
        key = (entity_id, seq)
        t.exclusive(("journal", tables.schema, key))
        if key in tables.keys or key in fresh:
            raise asyncpg.UniqueViolationError("journal_pkey")
        fresh.add(key)
        row = {
            "entity_id": entity_id,
            "seq": seq,
            "first_seq": first_seq,
            "instance": p["me"],
            "position": position,
            "data": data,
            "chain": chain,
        }
        t.write(tables.add_journal, row)
