"""Every named statement, against the real schemas with many rows: it can be prepared, and it finds its rows by an index."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from tierflow_durable.batch import commit_statement
from tierflow_durable.columns import number_array, text_array
from tierflow_durable.database import Database, Viewer
from tierflow_durable.reading import ListFilter, Reader
from tierflow_durable.sqlfile import Statement, blocks, statement
from tierflow_testing.postgres import EmbeddedPostgres

ROWS = 30_000
STEP = 1000 * 65536 * 1000
"""Microseconds between the moments of two ids."""
PARTS = ("requests", "creates", "updates", "endings", "acknowledgements", "journal", "snapshots", "blobs")
LARGE = re.compile(r"^(entity|journal\w*|request|snapshot|blob)$")
FILES = [
    ("tierflow_durable", "queries.sql", "coordinator"),
    ("tierflow_durable", "queries.sql", "orchestrator"),
    ("tierflow_durable", "dead_letters.sql", "coordinator"),
    ("tierflow_durable", "audit.sql", "orchestrator"),
    ("tierflow_coordinator", "queries.sql", "coordinator"),
    ("tierflow_orchestrator", "flows.sql", "orchestrator"),
    ("tierflow_orchestrator", "cache.sql", "orchestrator"),
]

FILL = f"""
INSERT INTO entity (id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels, outcome, generation, created_at, ended_at,
                    seq, owner, wake_at)
SELECT ids.id, 't' || n % 10, 'u' || n % 500, CASE WHEN n % 100 = 0 THEN 'RUNNING' WHEN n % 1000 = 11 THEN 'FAILED' ELSE 'COMPLETED' END, '', 'flow' || n % 50, '1', ids.id,
       md5(n::text), '', CASE WHEN n % 3 = 0 THEN jsonb_build_object('k', 'v' || n % 1000) ELSE '{{}}' END,
       CASE WHEN n % 100 = 0 THEN '' WHEN n % 1000 = 11 THEN 'FAILURE' ELSE 'SUCCESS' END, 1, n * {STEP}, CASE WHEN n % 100 = 0 THEN NULL ELSE 2 END,
       2, CASE WHEN n % 300 = 0 THEN '00000000-0000-0000-0000-00000000000a'::uuid END, CASE WHEN n % 300 = 100 THEN n END
FROM generate_series(1, {ROWS}) AS n, LATERAL (SELECT (lpad(to_hex(n * 1000), 8, '0') || '00007000800000000000' || lpad(to_hex(n), 4, '0'))::uuid AS id) ids;
INSERT INTO unacknowledged SELECT id, 1, 2 FROM entity WHERE created_at / {STEP} % 500 = 1;
INSERT INTO journal (entity_id, seq, first_seq, instance, position, data)
SELECT id, 2, 1, '00000000-0000-0000-0000-00000000000a', row_number() OVER (ORDER BY id), '\\x00' FROM entity ORDER BY id;
INSERT INTO snapshot SELECT id, 2, '\\x00' FROM entity;
INSERT INTO request SELECT 't', id::text, '\\x00', id, row_number() OVER (ORDER BY id) FROM entity;
INSERT INTO blob SELECT sha256(id::text::bytea), 0, 1, '\\x00' FROM entity;
INSERT INTO watermark VALUES ('00000000-0000-0000-0000-00000000000a', {ROWS} - 100);
INSERT INTO fence VALUES ('00000000-0000-0000-0000-00000000000a', 'a');
INSERT INTO instance VALUES ('00000000-0000-0000-0000-00000000000a', 'a', '', 1, 1, 1);
"""


@pytest.fixture(scope="module")
def filled(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Both schemas, with many rows in that of Tier 2; almost all of them ended long ago."""
    name = "filled_statements"
    url = postgres_server.create_database(name, template=migrated_template)
    postgres_server.execute(f"SET search_path = orchestrator; {FILL}", name)
    postgres_server.execute("VACUUM ANALYZE", name)
    yield url
    postgres_server.drop_database(name)


@pytest.fixture
async def connect(filled: str) -> AsyncIterator[Callable[..., Any]]:
    made: list[Any] = []

    async def make(schema: str, *, writer: bool = False) -> Any:
        made.append(await Database(filled, schema).session(writer=writer))
        return made[-1]

    yield make
    for connection in made:
        await connection.close()


def _statements(package: str, filename: str) -> list[Statement]:
    named = [name for name, text in blocks(package, filename).items() if "{" not in text]
    return [statement(name, filename, package) for name in named]


@pytest.mark.parametrize(("package", "filename", "schema"), FILES)
async def test_every_statement_can_be_prepared(connect: Any, package: str, filename: str, schema: str) -> None:
    """I5, B13: the server knows every table and column that our SQL names, and the types fit."""
    connection = await connect(schema)
    for each in _statements(package, filename):
        try:
            prepared = await connection.prepare(each.text)
        except asyncpg.PostgresError as error:
            raise AssertionError(f"{filename}, {each.name}: {error}") from error
        assert len(prepared.get_parameters()) == len(each.parameters)


async def test_every_form_of_the_commit_can_be_prepared(connect: Any) -> None:
    """I5, R1: whatever a batch is made of, it is one valid statement that begins with the fence."""
    connection = await connect("orchestrator", writer=True)
    for bits in range(1, 1 << len(PARTS)):
        parts = tuple(part for place, part in enumerate(PARTS) if bits >> place & 1)
        if "requests" in parts and "creates" not in parts:
            continue
        each = commit_statement(parts, keyed="requests" in parts)
        assert each.text.startswith("WITH held AS MATERIALIZED")
        await connection.prepare(each.text)


def _scans(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and table of every node of a plan."""
    yield plan["Node Type"], plan.get("Relation Name", "")
    for below in plan.get("Plans", ()):
        yield from _scans(below)


async def _explained(connection: Any, text: str, arguments: list[Any], options: str = "") -> list[tuple[str, str]]:
    rows = await connection.fetch(f"EXPLAIN (FORMAT JSON{options}) {text}", *arguments)
    return list(_scans(json.loads(rows[0][0])[0]["Plan"]))


def _whole(nodes: list[tuple[str, str]]) -> list[str]:
    return [table for kind, table in nodes if kind == "Seq Scan" and LARGE.match(table)]


ID = "00003039-0000-7000-8000-000000003039"
ME = "00000000-0000-0000-0000-00000000000a"
VALUES: dict[str, Any] = {
    "id": ID, "ids": [ID], "me": ME, "from": ME, "instance": ME, "limit": 100, "now": 50, "before": 5, "after": ROWS - 50, "seqs": [2], "moments": [1],
    "state": "RUNNING", "low": "00003000-0000-0000-0000-000000000000", "high": "00003100-0000-0000-0000-000000000000", "horizon": 10,
    "below": "00000001-0000-0000-0000-000000000000", "tenant": "t", "request_id": ID, "sha256": b"\x00" * 32, "after_id": ID, "after_seq": 1,
    "floor": "00000001-0000-0000-0000-000000000000",
}  # fmt: skip
ELSEWHERE = {"b_sha256", "name", "key", "pid"}
"""Parameters of statements that read no large table."""


async def test_every_query_uses_an_index(connect: Any) -> None:
    """I5, Lesson 39, R14, R15, R19: with 30,000 rows no query of the durable library reads entities, journal, snapshots, requests or blobs from end to end."""
    connection = await connect("orchestrator")
    looked_at = []
    for each in _statements("tierflow_durable", "queries.sql"):
        if ELSEWHERE & set(each.parameters) or not re.search(
            r"\b(entity|unacknowledged|journal|snapshot|request|blob)\b", each.text
        ):
            continue
        values = VALUES | {
            "journal_of": {"after": 1},
            "unacknowledged": {"after": ID},
            "forget_blobs": {"after": b""},
        }.get(each.name, {})
        nodes = await _explained(connection, each.text, [values[name] for name in each.parameters])
        assert _whole(nodes) == [], f"{each.name}: {nodes}"
        looked_at.append(each.name)
    assert len(looked_at) > 25
    assert {"due", "adopt", "count_states", "journal_after", "unacknowledged", "range_busy", "owned"} <= set(looked_at)


_LISTS: dict[str, ListFilter] = {
    "all of a tenant": ListFilter(tenant="t1"),
    "of a user": ListFilter(tenant="t1", user_id="u1"),
    "of a flow": ListFilter(tenant="t1", name="flow1"),
    "of a swarm": ListFilter(tenant="t1", parent_id=ID),
    "of a trace": ListFilter(tenant="t1", trace_id="c4ca4238a0b923820dcc509a6f75849b"),
    "active": ListFilter(tenant="t0", states=("RUNNING",)),
    "ended": ListFilter(tenant="t1", states=("COMPLETED", "FAILED")),
    "failed": ListFilter(tenant="t1", states=("FAILED",)),
    "cancelled, of which there are none": ListFilter(tenant="t1", states=("CANCELLED", "STOPPED")),
    "labelled": ListFilter(tenant="t1", labels={"k": "v1"}),
    "labelled, of a user": ListFilter(tenant="t1", user_id="u1", labels={"k": "v1"}),
    "young": ListFilter(tenant="t1", created_after=(ROWS - 50) * STEP),
    "old": ListFilter(tenant="t1", created_before=500 * STEP),
    "a later page": ListFilter(tenant="t1", before_id=ID),
    "a later page of a user's failures": ListFilter(tenant="t1", user_id="u1", states=("FAILED",), before_id=ID),
}


class _Spy:
    """Takes what the reader asks."""

    def __init__(self) -> None:
        self.asked: tuple[Statement, dict[str, Any]]

    async def fetch_seen(self, viewer: Viewer, query: Statement, /, **values: Any) -> list[Any]:
        self.asked = query, values
        return []


async def _listing(wanted: ListFilter) -> tuple[Statement, list[Any]]:
    spy = _Spy()
    reader: Reader[Any] = Reader(SimpleNamespace(database=spy))  # type: ignore[arg-type]
    await reader.page(wanted)
    query, values = spy.asked
    return query, query.arguments(**values)


@pytest.mark.parametrize("what", list(_LISTS))
async def test_every_list_uses_an_index(connect: Any, what: str) -> None:
    """I5, Q14, Lesson 39: lists by user, flow, state, swarm, trace, label and time read about the rows that they show, found by an index."""
    query, arguments = await _listing(_LISTS[what])
    connection = await connect("orchestrator")
    await connection.execute(f"SET tierflow.tenant = '{_LISTS[what].tenant}'")
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON) {query.text}", *arguments)
    plan = json.loads(rows[0][0])[0]["Plan"]
    nodes = list(_scans(plan))
    assert _whole(nodes) == [], nodes
    assert any("Index" in kind for kind, _ in nodes)
    assert _read(plan) <= 20 * (_LISTS[what].limit + 1), rows[0][0]


@pytest.mark.parametrize("what", list(_LISTS))
async def test_every_list_keeps_its_plan(connect: Any, what: str) -> None:
    """I5, Lesson 39: the plan that serves all values is no sequential scan either."""
    query, arguments = await _listing(_LISTS[what])
    nodes = await _explained(await connect("orchestrator"), query.text, arguments, ", GENERIC_PLAN")
    assert _whole(nodes) == [], nodes


def _read(plan: dict[str, Any]) -> int:
    """Rows of the entity table that were looked at."""
    here = 0
    if plan.get("Relation Name") == "entity":
        here = plan["Actual Rows"] * plan["Actual Loops"] + plan.get("Rows Removed by Filter", 0)
    return int(here) + sum(_read(below) for below in plan.get("Plans", ()))


async def test_the_commit_keeps_its_plan(connect: Any) -> None:
    """Lesson 39, R1: with 30,000 stored entities the group commit finds the rows that it changes by their index, in every form, with the plan it is run with."""
    connection = await connect("orchestrator", writer=True)
    assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
    for parts in (("updates",), ("updates", "journal"), ("acknowledgements",), PARTS):
        each = commit_statement(parts, keyed="requests" in parts)
        nodes = await _explained(connection, each.text, [None] * len(each.parameters), ", GENERIC_PLAN")
        assert _whole(nodes) == [], nodes
        assert not {"Hash Join", "Merge Join"} & {kind for kind, _ in nodes}
        assert any(kind == "Index Scan" and table in ("entity", "unacknowledged") for kind, table in nodes)


async def test_a_new_database_has_the_same_plan(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    """Lesson 39, R1: also where nothing is known of the tables yet, rows are found by their ids, not by their owner, of whom all that are active may be."""
    name = "new_statements"
    url = postgres_server.create_database(name, template=migrated_template)
    connection = await Database(url, "orchestrator").session(writer=True)
    for parts in (("updates",), ("updates", "journal"), ("acknowledgements", "journal"), PARTS):
        each = commit_statement(parts, keyed="requests" in parts)
        text = f"EXPLAIN (FORMAT JSON, GENERIC_PLAN) {each.text}"
        rows = await connection.fetch(text, *[None] * len(each.parameters))
        used = set(re.findall(r'"Index Name": "((?:entity|unacknowledged)_\w+)"', rows[0][0]))
        assert used
        assert used <= {"entity_pkey", "unacknowledged_pkey"}
        assert len(re.findall(r'"Index Cond": "\(\w*id = ', rows[0][0])) >= len(used)  # none of them is read whole
    await connection.close()
    postgres_server.drop_database(name)


async def test_a_changed_state_moves_no_index(connect: Any) -> None:
    """Lesson 39, R6: an update that changes state, reason and version only is done in place: no index is touched, so none grows."""
    connection = await connect("orchestrator", writer=True)
    await connection.execute("UPDATE fence SET fenced = false WHERE id = $1", ME)
    rows = await connection.fetch("SELECT id FROM entity WHERE owner = $1 ORDER BY id LIMIT 100", ME)
    ids = [str(row["id"]) for row in rows]
    each, n = commit_statement(("updates",), keyed=False), len(rows)
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'orchestrator' AND relname = 'entity'"
    before = await connection.fetchrow(query)
    for state in ("PAUSING", "PAUSED", "RUNNING"):
        values = {
            "me": ME, "u_id": text_array(ids), "u_state": text_array([state] * n), "u_reason": text_array([state.lower()] * n),
            "u_outcome": text_array([""] * n), "u_generation": number_array([1] * n), "u_ended_at": number_array([None] * n),
            "u_seq": number_array([3] * n), "u_release": number_array([False] * n), "u_wake_at": number_array([None] * n),
        }  # fmt: skip
        verdict = await connection.fetchrow(each.text, *each.arguments(**values))
        assert verdict["updated"] == n
    await connection.execute("SELECT pg_stat_force_next_flush()")
    after = await connection.fetchrow(query)
    assert after["n_tup_upd"] - before["n_tup_upd"] == 3 * n
    assert after["n_tup_hot_upd"] - before["n_tup_hot_upd"] > 0.9 * 3 * n  # rarely a page has no room left
