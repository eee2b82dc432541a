"""What the simulation believes of each statement, against the real Postgres: the same statements in random order on both, the same answers, the same rows."""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from tierflow_durable.batch import commit_statement
from tierflow_durable.columns import number_array, text_array
from tierflow_durable.database import Database
from tierflow_durable.sqlfile import Statement, statement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))
from simulation import commits, models
from simulation.database import Transaction
from simulation.tables import Tables

SEEDS = 12
LENGTH = 150
OF_SESSIONS = frozenset(("now", "terminate", "this_session", "end_session", "try_lock"))
"""About sessions and locks of sessions, which are simulated otherwise."""
OF_RETENTION = frozenset(("partitions", "forget"))
"""Retention is not played."""
IN_ORDER = frozenset(
    ("journal_of", "journal_after", "journal_page", "unacknowledged", "unacknowledged_children", "blob_chunks")
)
CLOCKS = frozenset(("now", "server_start", "fenced_at", "stored_at"))
"""Columns that have the server's time."""
FILES = {
    "flows.sql": "tierflow_orchestrator", "cache.sql": "tierflow_orchestrator", "queries.sql": "tierflow_durable",
    "dead_letters.sql": "tierflow_durable", "audit.sql": "tierflow_durable",
}  # fmt: skip
HOUR = 3_600_000_000
TABLES = {
    "entity": "id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels::text AS labels, outcome, generation, created_at, ended_at, seq, owner, wake_at, adoptions",
    "unacknowledged": "id, generation, ended_at",
    "journal": "entity_id, seq, first_seq, instance, position, data, chain",
    "fence": "id, name, fenced, fenced_by",
    "instance": "id, name, address, backend_pid",
    "watermark": "id, position, relayer",
    "snapshot": "entity_id, seq, data, chain, checksum",
    "request": "tenant, request_id, body_hash, entity_id, created_at",
    "blob": "sha256, chunk, data",
    "step_cache": "tenant, key_hash, output, run_id, step_id, expires_at",
    "flow_version": "tenant, name, version, hash",
    "dead_letter": "entity_id, generation, kind, first_seq, state, actor, reason",
    "audit": "id, tenant, user_id, action, subject, code",
}  # fmt: skip


def plain(value: Any) -> Any:
    """A value as both sides can have it."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return sorted(map(plain, value), key=repr)
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return value


def row_of(row: Any, columns: Any) -> dict[str, Any]:
    found = {name: plain(row[name]) for name in columns if name not in CLOCKS}
    if "labels" in found:
        found["labels"] = json.loads(found["labels"])
    return found


class Both:
    """The real schema and its model."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.tables = Tables("orchestrator")
        server = SimpleNamespace(locks={}, started_at=0, sessions={}, advisory={})
        self.session: Any = SimpleNamespace(server=server, tables=self.tables)
        self.asked: set[str] = set()
        self.trail: list[str] = []

    async def ask(self, known: Statement, **values: Any) -> list[dict[str, Any]]:
        """Asks both; what the real one answers."""
        args = known.arguments(**values)
        self.trail.append(f"{known.name} {values}")
        clock = time.time_ns() // 1000
        real, refused = await self._really(known, args)
        model, believed = self._believed(known, args, clock)
        assert refused == believed, self._story(f"real {refused}, model {believed}")
        columns = list(real[0]) if real else []
        assert len(real) == len(model), self._story(f"real {real}, model {model}")
        seen = [row_of(row, columns) for row in real]
        thought = [row_of(row, columns) for row in model]
        if known.name not in IN_ORDER:
            seen.sort(key=repr)
            thought.sort(key=repr)
        assert seen == thought, self._story(f"real {seen}, model {thought}")
        return seen

    async def _really(self, known: Statement, args: list[Any]) -> tuple[list[Any], str]:
        try:
            return [dict(row) for row in await self.connection.fetch(known.text, *args)], ""
        except asyncpg.PostgresError as error:
            return [], type(error).__name__

    def _believed(self, known: Statement, args: list[Any], clock: int) -> tuple[list[Any], str]:
        transaction = Transaction(self.session, clock)
        plan = commits.plan(known.text)
        self.asked.add(plan.name)
        try:
            rows = plan.run(transaction, self.tables, tuple(args))
        except asyncpg.PostgresError as error:
            return [], type(error).__name__
        finally:
            transaction.release()
        assert plan.writes or not transaction.writes
        for change, given in transaction.writes:
            change(*given)
        return rows, ""

    def _story(self, what: str) -> str:
        return "\n".join([*self.trail[-8:], what])

    async def compare(self) -> None:
        """All rows of all tables."""
        t = self.tables
        believed: dict[str, list[Any]] = {
            "entity": list(t.entity.values()),
            "unacknowledged": list(t.unacknowledged.values()),
            "journal": [row for rows in t.journal.values() for row in rows],
            "fence": list(t.fence.values()),
            "instance": list(t.instance.values()),
            "watermark": list(t.watermark.values()),
            "snapshot": list(t.snapshot.values()),
            "request": [{"tenant": key[0], "request_id": key[1], **row} for key, row in t.request.items()],
            "blob": [{"sha256": name, "chunk": chunk, "data": data} for name, chunks in t.blob.items() for chunk, data in chunks.items()],
            "step_cache": list(t.step_cache.values()),
            "dead_letter": list(t.dead_letter.values()),
            "audit": list(t.audit.values()),
            "flow_version": [{"tenant": k[0], "name": k[1], "version": k[2], **row} for k, row in t.version.items()],
        }  # fmt: skip
        for name, columns in TABLES.items():
            real = await self.connection.fetch(f"SELECT {columns} FROM {name}")
            names = [column.rpartition(" AS ")[2] for column in columns.split(", ")]
            seen = sorted((row_of(row, names) for row in real), key=repr)
            thought = sorted((row_of(row, names) for row in believed[name]), key=repr)
            assert seen == thought, self._story(f"{name}")


class Drawn:
    """Statements with arguments that now and then hit something."""

    def __init__(self, both: Both, seed: int) -> None:
        self.both = both
        self.chance = random.Random(seed)
        self.now = 1_800_000_000_000_000
        self.ids = [self._id() for _ in range(8)]
        self.instances: list[str] = []
        self.moments = iter(range(1, 10_000_000))
        self.positions = iter(range(1, 10_000_000))
        self.entries: list[str] = []
        """Of the audit trail."""

    def _id(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def entry(self) -> str:
        self.entries.append(self._id())
        return self.entries[-1]

    def me(self) -> str:
        return self.chance.choice(self.instances)

    def entity(self) -> str:
        return self.chance.choice(self.ids)

    def some(self, values: Any) -> list[Any]:
        return [value for value in values if self.chance.random() < 0.5]

    async def step(self) -> None:
        """One statement."""
        if len(self.instances) < 2 or self.chance.random() < 0.03:
            self.instances.append(self._id())
            await self.named(
                "register",
                id=self.instances[-1],
                name=self.chance.choice("ab"),
                address="x",
                lease=self.chance.choice((HOUR, -HOUR)),
                pid=7,
                position=0,
            )
        elif self.chance.random() < 0.4:
            await self.commit()
        else:
            name = self.chance.choice(sorted(ARGUMENTS))
            await self.named(name, **ARGUMENTS[name](self))

    async def named(self, name: str, /, **values: Any) -> None:
        for filename, package in FILES.items():
            try:
                known = statement(name, filename, package)
            except KeyError:
                continue
            await self.both.ask(known, **values)
            return
        raise AssertionError(f"no statement {name}")

    # --- the group commit ---

    async def commit(self) -> None:
        """Any parts of it, with winners and losers."""
        chosen = sorted(self.some(self.ids)) or [self.entity()]
        creates = self.some(chosen)
        updates = [id_ for id_ in chosen if id_ not in creates]
        values: dict[str, Any] = {"me": self.me()}
        keyed = {id_: self.chance.random() < 0.5 for id_ in creates}
        self._requests(values, [id_ for id_ in creates if keyed[id_]])
        self._creates(values, creates, keyed)
        self._updates(values, updates)
        self._endings(values, creates, updates)
        if acknowledged := self.some(self.ids):
            values |= {
                "a_id": text_array(acknowledged),
                "a_generation": number_array([self.chance.choice((1, 2)) for _ in acknowledged]),
            }
        self._journal(values, creates, updates)
        self._rest(values)
        parts = tuple(part for part in commits._PARTS if any(name.startswith(f"{part[0]}_") for name in values))
        await self.both.ask(commit_statement(parts, keyed="requests" in parts), **values)

    def _requests(self, values: dict[str, Any], ids: list[str]) -> None:
        if ids:
            names = sorted(self.chance.choice(("k1", "k2", "k3", "k4")) + str(self.chance.randrange(3)) for _ in ids)
            values |= {
                "r_tenant": text_array(["t"] * len(ids)), "r_request_id": text_array(names), "r_body_hash": [b"h"] * len(ids),
                "r_entity_id": text_array(ids), "r_created_at": number_array([next(self.moments) for _ in ids]),
            }  # fmt: skip

    def _creates(self, values: dict[str, Any], ids: list[str], keyed: dict[str, bool]) -> None:
        if not ids:
            return
        texts = ("tenant", "user_id", "reason", "name", "version", "trace_id", "correlation_id")
        values |= {f"c_{name}": text_array([self.chance.choice(("x", 'y"\\', "")) for _ in ids]) for name in texts}
        ended = [self.chance.choice((None, None, next(self.moments))) for _ in ids]
        labels = [self.chance.choice(("{}", '{"tierflow.parent":"p"}', '{"a":"b"}')) for _ in ids]
        release = [self.chance.random() < 0.4 for _ in ids]
        values |= {
            "c_id": text_array(ids), "c_keyed": number_array([keyed[id_] for id_ in ids]), "c_labels": text_array(labels),
            "c_seq": number_array([1] * len(ids)), "c_release": number_array(release), "c_wake_at": number_array([next(self.moments) if each and self.chance.random() < 0.7 else None for each in release]),
            "c_state": text_array(["RUNNING"] * len(ids)), "c_parent_id": text_array([self.chance.choice((None, self._id())) for _ in ids]),
            "c_outcome": text_array([""] * len(ids)), "c_generation": number_array([1] * len(ids)), "c_created_at": number_array([5] * len(ids)),
            "c_ended_at": number_array(ended),
        }  # fmt: skip

    def _updates(self, values: dict[str, Any], ids: list[str]) -> None:
        if not ids:
            return
        ended = [self.chance.choice((None, None, next(self.moments))) for _ in ids]
        release = [self.chance.random() < 0.4 for _ in ids]
        values |= {
            "u_id": text_array(ids), "u_seq": number_array([2] * len(ids)), "u_release": number_array(release),
            "u_wake_at": number_array([next(self.moments) if each else None for each in release]), "u_state": text_array([self.chance.choice(("RUNNING", "FAILED")) for _ in ids]),
            "u_reason": text_array([self.chance.choice(("r", "DEAD_LETTER")) for _ in ids]), "u_outcome": text_array([self.chance.choice(("o", "FAILURE")) for _ in ids]), "u_generation": number_array([self.chance.choice((1, 2)) for _ in ids]),
            "u_ended_at": number_array(ended),
        }  # fmt: skip

    def _endings(self, values: dict[str, Any], creates: list[str], updates: list[str]) -> None:
        if ids := sorted(self.some([*creates, *updates])):
            values |= {
                "e_id": text_array(ids), "e_generation": number_array([self.chance.choice((1, 2)) for _ in ids]),
                "e_ended_at": number_array([next(self.moments) for _ in ids]), "e_new": number_array([id_ in creates for id_ in ids]),
            }  # fmt: skip

    def _journal(self, values: dict[str, Any], creates: list[str], updates: list[str]) -> None:
        rows = [
            (id_, id_ in creates, self.chance.choice((1, 2, 3, next(self.moments))))
            for id_ in sorted(self.some([*creates, *updates]))
        ]
        if rows:
            values |= {
                "j_entity_id": text_array([row[0] for row in rows]), "j_new": number_array([row[1] for row in rows]), "j_seq": number_array([row[2] for row in rows]),
                "j_first_seq": number_array([row[2] for row in rows]), "j_position": number_array([next(self.positions) for _ in rows]),
                "j_data": [b"d"] * len(rows), "j_chain": [b"c"] * len(rows),
            }  # fmt: skip

    def _rest(self, values: dict[str, Any]) -> None:
        if snapped := self.some(self.ids[:4]):
            values |= {
                "s_entity_id": text_array(snapped), "s_seq": number_array([self.chance.randrange(5) for _ in snapped]), "s_data": [b"s"] * len(snapped),
                "s_chain": [b"c"] * len(snapped), "s_checksum": [b"k"] * len(snapped),
            }  # fmt: skip
        if self.chance.random() < 0.2:
            values |= {
                "b_sha256": [b"n1"],
                "b_chunk": number_array([0]),
                "b_chunks": number_array([1]),
                "b_data": [b"content"],
            }


ARGUMENTS: dict[str, Callable[[Drawn], dict[str, Any]]] = {
    "old_backends": lambda d: {"ids": d.some(d.instances)},
    "heartbeat": lambda d: {"id": d.me(), "lease": d.chance.choice((HOUR, -HOUR)), "pid": d.chance.randrange(9), "address": "y"},
    "expired": lambda d: {"me": d.me()},
    "fence": lambda d: {"id": d.me(), "me": d.me()},
    "fenced_owners": lambda d: {},
    "fenced_of": lambda d: {"ids": d.some(d.instances)},
    "living": lambda d: {},
    "leave": lambda d: {"id": d.me()},
    "forget_instances": lambda d: {"before": d.chance.choice((0, 4_000_000_000_000_000))},
    "adopt": lambda d: {"me": d.me(), "from": d.me(), "limit": 100},
    "due": lambda d: {"me": d.me(), "now": d.chance.choice((0, next(d.moments))), "limit": d.chance.choice((1, 3, 100))},
    "claim": lambda d: {"me": d.me(), "id": d.entity(), "from": d.chance.choice((None, None, d.me()))},
    "owned": lambda d: {"me": d.me()},
    "put_off": lambda d: (lambda ids: {"me": d.me(), "ids": ids, "moments": [next(d.moments) for _ in ids]})(d.some(d.ids)),
    "release": lambda d: {"me": d.me(), "ids": d.some(d.ids), "now": next(d.moments)} if d.chance.random() < 0.3 else {"me": d.me(), "ids": [d.entity()], "now": next(d.moments)},
    "quarantine": lambda d: {"me": d.me(), "id": d.entity(), "state": "SUSPENDED"},
    "owner": lambda d: {"id": d.entity()},
    "snapshots_of": lambda d: {"ids": d.some(d.ids)},
    "journal_of": lambda d: {"id": d.entity(), "after": d.chance.randrange(3), "limit": d.chance.choice((1, 100))},
    "journal_written": lambda d: {"me": d.me(), "ids": d.ids, "seqs": [d.chance.randrange(4) for _ in d.ids]},
    "entity_end": lambda d: {"id": d.entity()},
    "journal_after": lambda d: {"instance": d.me(), "after": d.chance.randrange(20), "limit": d.chance.choice((2, 100))},
    "journal_page": lambda d: {"after_id": d.entity(), "after_seq": d.chance.randrange(3), "limit": d.chance.choice((2, 100))},
    "row": lambda d: {"id": d.entity()},
    "count_states": lambda d: {},
    "unacknowledged": lambda d: {"before": next(d.moments), "after": d.entity(), "limit": d.chance.choice((1, 100))},
    "unacknowledged_children": lambda d: {"before": next(d.moments), "limit": d.chance.choice((1, 100))},
    "request_winner": lambda d: {"tenant": "t", "request_id": f"k{d.chance.randrange(1, 5)}{d.chance.randrange(3)}"},
    "forget_requests": lambda d: {"before": d.chance.choice((0, next(d.moments))), "limit": 100},
    "save_watermark": lambda d: {"id": d.me(), "position": d.chance.randrange(40)},
    "orphaned_watermarks": lambda d: {"me": d.me()},
    "drop_watermark": lambda d: {"id": d.me()},
    "waive_watermark": lambda d: {"id": d.me()} if d.chance.random() < 0.2 else {"id": d.entity()},
    "rewind_watermark": lambda d: {"id": d.me()},
    "stream_filled": lambda d: {"created": d.chance.choice(("s1", "s2"))},
    "note_stream_filled": lambda d: {"created": d.chance.choice(("s1", "s2")), "now": next(d.moments)},
    "blob_chunks": lambda d: {"sha256": d.chance.choice((b"n1", b"n2"))},
    "touch_blob": lambda d: {"sha256": d.chance.choice((b"n1", b"n2"))},
    "put_blob": lambda d: {"me": d.me(), "b_sha256": [b"n2", b"n2"], "b_chunk": [0, 1], "b_chunks": [2, 2], "b_data": [b"1", b"2"]},
    "put_flow": lambda d: {"hash": d.chance.choice(("f1", "f2")), "name": "n", "version": "1", "description": "", "definition": "{}", "handlers": ["h"], "steps": 1, "created_at": 1},
    "put_version": lambda d: {"tenant": "t", "name": d.chance.choice("ab"), "version": d.chance.choice("123"), "hash": d.chance.choice(("f1", "f2")), "created_at": d.chance.randrange(4)},
    "get_flow": lambda d: {"hash": d.chance.choice(("f1", "f2"))},
    "get_version": lambda d: {"tenant": "t", "name": "a", "version": d.chance.choice("123")},
    "get_newest": lambda d: {"tenant": "t", "name": d.chance.choice("ab")},
    "find_results": lambda d: {"tenant": "t", "keys": ["c1", "c2"], "now": d.chance.randrange(50)},
    "put_result": lambda d: {"tenant": "t", "key_hash": d.chance.choice(("c1", "c2", "c3")), "output": "1", "sha256": None, "size": 1, "run_id": d.ids[0], "step_id": "s", "now": 1, "expires_at": next(d.moments)},
    "note": lambda d: {"id": d._id(), "kind": d.chance.choice(("RUN", "EVENTS")), "tenant": "t", "user_id": "u", "entity_id": d.entity(), "generation": d.chance.choice((1, 2)), "swarm_id": None, "name": "n", "version": "1", "trace_id": "", "failure": b"f", "first_seq": d.chance.choice((0, 1)), "last_seq": 1, "created_at": 1},
    "resolve_of": lambda d: {"entity_id": d.entity(), "generation": d.chance.choice((2, 3)), "actor": "ann", "reason": "r", "now": 2},
    "count_open": lambda d: {},
    "unnoted": lambda d: {"after": d.entity(), "limit": d.chance.choice((1, 100))},
    "source": lambda d: {"id": d.entity()},
    "begin": lambda d: {"id": d.entry(), "tenant": "t", "user_id": "u", "action": "A", "subject": d.chance.choice(("", "s")), "command_id": "", "reason": ""},
    "done": lambda d: {"id": d.chance.choice(d.entries or [d.entity()]), "code": "OK", "subject": "made", "result": ""},
    "drop_expired_results": lambda d: {"now": d.chance.choice((0, next(d.moments))), "limit": d.chance.choice((1, 100))},
}  # fmt: skip
"""By statement: arguments."""


@pytest.fixture
async def both(migrated_database: str) -> AsyncIterator[Both]:
    connection = await Database(migrated_database, "orchestrator").session()
    yield Both(connection)
    await connection.close()


def test_every_model_is_compared() -> None:
    """No model of a statement stays believed only."""
    assert set(models.MODELS) == set(ARGUMENTS) | {"register"} | OF_SESSIONS | OF_RETENTION


async def test_the_models_do_what_postgres_does(both: Both) -> None:
    """R1, R3, R8, R11, R14, R15, R19: random sequences of the statements that the simulation knows: the same answers, and the same rows afterwards."""
    tables = [*TABLES, "flow", "event_stream"]
    for seed in range(SEEDS):
        drawn = Drawn(both, seed)
        for _ in range(LENGTH):
            await drawn.step()
        await both.compare()
        await both.connection.execute("TRUNCATE " + ", ".join(tables))
        both.tables.__init__("orchestrator")  # type: ignore[misc]
    assert set(ARGUMENTS) <= both.asked
    commits_seen = {name for name in both.asked if name.startswith("commit_")}
    assert len(commits_seen) > 20
