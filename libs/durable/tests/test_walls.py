"""What keeps tenants and users apart in the database itself (I12, L4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tierflow_durable.audit_trail import AuditFilter
from tierflow_durable.batch import commit_statement
from tierflow_durable.database import Viewer
from tierflow_durable.dead_letters import Letter, LetterFilter
from tierflow_durable.ids import uuid7
from tierflow_durable.reading import ListFilter
from tierflow_durable.sqlfile import blocks, statement
from tierflow_runtime.values import Failure
from tierflow_testing.counter import Add, Node
from tierflow_testing.postgres import EmbeddedPostgres

Start = Callable[..., Awaitable[Node]]
OWNERS = (("t", "ada"), ("t", "bob"), ("u", "eve"))
PARTS = ("requests", "creates", "updates", "acknowledgements", "journal", "snapshots", "blobs")


@pytest.fixture
async def filled(start_node: Start, toy: str) -> tuple[Node, dict[tuple[str, str], str]]:
    """An entity, a letter and an audit entry of each owner; the entities by owner."""
    node = await start_node("a")
    connection = await asyncpg.connect(toy)
    made = {}
    for tenant, user in OWNERS:
        made[tenant, user] = entity_id = uuid7()
        await node.host.create(entity_id, Add(n=1))
        await connection.execute(
            "UPDATE toy.entity SET tenant = $2, user_id = $3 WHERE id = $1", entity_id, tenant, user
        )
        await node.durable.audit.begin(tenant, user, "CancelSwarm", subject=entity_id)
        await node.durable.dead_letters.note(
            Letter(
                id=uuid7(), kind="RUN", tenant=tenant, user_id=user, entity_id=entity_id, generation=1, swarm_id=entity_id, name="f", version="1",
                trace_id="", failure=Failure(code="INTERNAL", message="x"),
            )
        )  # fmt: skip
    await connection.close()
    return node, made


async def test_a_list_without_its_condition_shows_nothing_of_others(
    filled: tuple[Node, dict[tuple[str, str], str]],
) -> None:
    """I12, L4: every list of the library, with its WHERE left out: still only the viewer's tenant, and user; a viewer without a tenant sees nothing."""
    node, made = filled
    database = node.durable.database
    forgotten = (
        statement("list", conditions="true"),
        statement("page", filename="dead_letters.sql", conditions="true"),
        statement("page", filename="audit.sql", audited="true", submitted="true"),
    )
    for query in forgotten:
        for viewer, owners in (
            (Viewer("t"), OWNERS[:2]), (Viewer("t", "bob"), OWNERS[1:2]), (Viewer("u"), OWNERS[2:]), (Viewer("u", "ada"), ()), (Viewer(""), ()),
        ):  # fmt: skip
            rows = await database.fetch_seen(viewer, query, limit=100)
            seen = {str(row.get("entity_id") or row.get("subject") or row["id"]) for row in rows}
            assert seen == {made[owner] for owner in owners}, (query.name, viewer)


async def test_lists_without_a_mistake_show_what_they_did(filled: tuple[Node, dict[tuple[str, str], str]]) -> None:
    """I12, Q14: of a tenant, of a user; what one list has said of its viewer does not hold for the next on the same connection."""
    node, made = filled
    for tenant, user in OWNERS:
        page = await node.durable.reader.page(ListFilter(tenant=tenant, user_id=user))
        assert [row.id for row in page.rows] == [made[tenant, user]]
        letters = await node.durable.dead_letters.page(LetterFilter(tenant=tenant, user_id=user))
        assert [letter.entity_id for letter in letters] == [made[tenant, user]]
        entries = await node.durable.audit.page(AuditFilter(tenant=tenant, user_id=user))
        assert {entry.subject for entry in entries} == {made[tenant, user]}
    assert {row.id for row in (await node.durable.reader.page(ListFilter(tenant="t"))).rows} == {
        made[owner] for owner in OWNERS[:2]
    }


def test_every_list_goes_through_the_wall() -> None:
    """I12: what is selected with conditions that are put together at run time is selected from the views."""
    for filename in ("queries.sql", "dead_letters.sql", "audit.sql"):
        for name, text in blocks("tierflow_durable", filename).items():
            if "{" in text:
                assert "seen_" in text, name


async def test_other_roles_see_their_tenant_or_nothing(
    filled: tuple[Node, dict[tuple[str, str], str]], toy: str, postgres_server: EmbeddedPostgres
) -> None:
    """I12: a plain role that is let in to read is bound by the policies: nothing without a tenant, its own with one, never a journal; it changes nothing."""
    _, made = filled
    name = urlsplit(toy).path[1:]
    role = f"report_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    postgres_server.execute(
        f"GRANT USAGE ON SCHEMA toy TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA toy TO {role}", name
    )
    try:
        connection = await asyncpg.connect(postgres_server.url(name, role))
        tables = ("entity", "dead_letter", "audit", "request", "journal", "snapshot", "checkpoint", "blob")
        partitions = [
            row["relid"] for row in await connection.fetch("SELECT relid::text FROM pg_partition_tree('toy.journal')")
        ]
        assert len(partitions) > 3
        for partition in partitions:
            assert await connection.fetchval(f"SELECT count(*) FROM {partition}") == 0, partition
        for table in tables:
            assert await connection.fetchval(f"SELECT count(*) FROM toy.{table}") == 0, table
        await connection.execute("SET tierflow.tenant = 't'")
        rows = await connection.fetch("SELECT id FROM toy.entity")
        assert {str(row["id"]) for row in rows} == {made[owner] for owner in OWNERS[:2]}
        assert await connection.fetchval("SELECT count(*) FROM toy.audit") == 2
        assert await connection.fetchval("SELECT count(*) FROM toy.journal") == 0
        assert await connection.execute("UPDATE toy.entity SET state = 'FAILED'") == "UPDATE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO toy.checkpoint VALUES (gen_random_uuid(), 'x', 1, '', '', '', 1)")
        await connection.close()
    finally:
        postgres_server.execute(f"DROP OWNED BY {role}", name)
        postgres_server.execute(f"DROP ROLE {role}")


async def test_the_wall_costs_the_writer_nothing(filled: tuple[Node, dict[tuple[str, str], Any]]) -> None:
    """I12: no plan of the group commit, nor of what finds rows by id, looks at a tenant's setting."""
    node, _ = filled
    connection = await node.durable.database.session(writer=True)
    for query in (commit_statement(PARTS, keyed=True), statement("row"), statement("journal_of")):
        plan = await connection.fetchval(
            f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {query.text}", *[None] * len(query.parameters)
        )
        assert "tierflow.tenant" not in plan
    await connection.close()
