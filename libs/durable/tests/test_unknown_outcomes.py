"""Answers that are lost between a commit and who asked for it: what was decided is stored once, and what is answered is stored."""

import asyncio
import pathlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tierflow_durable import migrations
from tierflow_durable.ids import uuid7
from tierflow_durable.machine import RequestKey
from tierflow_durable.migrations import migrate
from tierflow_runtime.values import FailureError
from tierflow_testing.cable import Cable
from tierflow_testing.counter import Add, End, Node, Park
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.waiting import eventually

Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def cable(toy: str) -> AsyncIterator[Cable]:
    where = urlsplit(toy)
    async with Cable(where.hostname or "", where.port or 0) as made:
        yield made


@pytest.fixture
async def direct(toy: str) -> AsyncIterator[Any]:
    """A connection past the cable."""
    made = await asyncpg.connect(toy)
    yield made
    await made.close()


async def _rows(connection: Any, entity_id: str) -> list[tuple[int, int]]:
    found = await connection.fetch(
        "SELECT first_seq, seq FROM toy.journal WHERE entity_id = $1 ORDER BY seq", entity_id
    )
    return [(row["first_seq"], row["seq"]) for row in found]


class _Work:
    """Two changes and five creates that are decided at once, so that one commit holds all of them."""

    def __init__(self, node: Node, changed: list[str], key: str) -> None:
        loop = asyncio.get_running_loop()
        host = node.host
        self.changed = changed
        self.new = [uuid7() for _ in range(5)]
        self.key = RequestKey(tenant="t", request_id=key, body_hash=b"1")
        self.totals = [host.apply(host.entities[changed[0]], Add(n=10)), host.apply(host.entities[changed[1]], End())]
        self.answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(7)]
        for entity_id, answer in zip(changed, self.answers[:2], strict=True):
            host.when_committed(host.entities[entity_id], lambda answer=answer: answer.set_result(None))
        for entity_id, answer in zip(self.new, self.answers[2:], strict=True):
            host.create_now(entity_id, Add(n=7), self.key if entity_id == self.new[0] else None, answer.set_result)

    async def stored(self, connection: Any) -> bool:
        """Whether all of it is in the database."""
        return await _all_stored(connection, self.changed, self.new)


async def test_a_lost_answer(start_node: Start, toy: str, cable: Cable, direct: Any) -> None:
    """R4, J2, C5: the connection breaks after the commit and before its answer: creates, changes and ends are stored once, and answered right."""
    node = await start_node(url=cable.url(toy), lease=30.0)
    ids = [uuid7() for _ in range(4)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
    before = _Work(node, ids[:2], "before")  # the statement of this form is prepared now
    await asyncio.gather(*before.answers)
    cable.mute()
    work = _Work(node, ids[2:], "lost")
    await eventually(lambda: work.stored(direct))
    assert not any(answer.done() for answer in work.answers)
    await cable.cut()
    made = (await asyncio.wait_for(asyncio.gather(*work.answers), 60))[2:]
    assert all(each.created and each.reply == 7 for each in made)
    assert [await _rows(direct, each) for each in ids[2:]] == [[(1, 1), (2, 2)]] * 2
    assert [await _rows(direct, each) for each in work.new] == [[(1, 1)]] * 5
    assert await node.durable.reader.wait_ended(ids[3], 60)
    assert await node.durable.router.command(ids[2], Add(n=1)) == 12
    assert await node.durable.router.command(work.new[0], Add(n=1)) == 8
    again = await node.host.create(uuid7(), Add(n=7), work.key)
    assert (again.created, again.entity_id) == (False, work.new[0])
    assert not node.fenced.done()


async def test_a_connection_dead_in_silence(start_node: Start, toy: str, cable: Cable, direct: Any) -> None:
    """R4, R9, O7: a firewall forgets the connections and tells nobody: the writer waits no longer than the server would, and sends the batch again on another."""
    node = await start_node(url=cable.url(toy), lease=3.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    cable.strand()
    assert await asyncio.wait_for(node.durable.router.command(entity_id, Add(n=10)), 60) == 11
    assert await _rows(direct, entity_id) == [(1, 1), (2, 2)]
    assert not node.fenced.done()


async def _all_stored(connection: Any, changed: list[str], made: list[str]) -> bool:
    query = "SELECT count(*) FROM toy.journal WHERE (entity_id = ANY($1::uuid[]) AND seq = 2) OR entity_id = ANY($2::uuid[])"
    return await connection.fetchval(query, changed, made) == len(changed) + len(made)


@pytest.mark.parametrize("commits_first", [False, True])
async def test_a_commit_that_still_waits(
    start_node: Start, toy: str, cable: Cable, direct: Any, commits_first: bool
) -> None:
    """R4, R2: the connection breaks while the statement waits for a lock at the server: it does not commit behind the back of its repetition."""
    node = await start_node(url=cable.url(toy), lease=30.0)
    old, new = uuid7(), uuid7()
    await node.host.create(old, Add(n=1))
    holding = direct.transaction()
    await holding.start()
    await direct.execute("LOCK TABLE toy.journal IN SHARE MODE")
    asked = [
        asyncio.create_task(node.durable.router.command(old, Add(n=10))),
        asyncio.create_task(node.host.create(new, Add(n=7))),
    ]
    first = await eventually(lambda: _waiting(direct))
    await cable.cut(refuse=commits_first)
    if commits_first:
        # The statement gets its lock before the writer is back.
        await holding.rollback()
        await eventually(lambda: _all_stored(direct, [old], [new]))
        cable.mend()
    else:
        # The writer is back first, finds nothing stored, and sends it again.

        async def sent_again() -> bool:
            return bool(await _waiting(direct) - first)

        await eventually(sent_again)
        await holding.rollback()
    total, made = await asyncio.wait_for(asyncio.gather(*asked), 60)
    assert total == 11
    assert made.created
    assert await _rows(direct, old) == [(1, 1), (2, 2)]
    assert await _rows(direct, new) == [(1, 1)]
    assert await node.durable.router.command(new, Add(n=1)) == 8
    assert await direct.fetchval("SELECT count(*) FROM toy.entity WHERE owner = $1", node.durable.instance_id) == 2
    assert not node.fenced.done()


async def _waiting(connection: Any) -> set[int]:
    """The sessions that wait for a lock on the journal."""
    query = "SELECT pid FROM pg_locks WHERE relation = 'toy.journal'::regclass AND NOT granted"
    return {row["pid"] for row in await connection.fetch(query)}


async def test_a_lost_answer_to_letting_go(
    start_node: Start, toy: str, cable: Cable, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4, R15: an entity is let go by a commit whose answer is lost: sent again it changes nothing, and the instance goes on."""
    monkeypatch.setattr("tierflow_durable.host.PARK_AFTER", 600_000_000)
    node = await start_node(url=cable.url(toy), lease=30.0)
    before, entity_id = uuid7(), uuid7()
    for each in (before, entity_id):
        await node.host.create(each, Add(n=1))
        await node.durable.router.command(each, Park(wake_at=node.durable.clock.now() + 300_000_000))
    monkeypatch.setattr("tierflow_durable.host.PARK_AFTER", 0)
    node.host.touch(node.host.entities[before])  # the statement of this form is prepared now
    await eventually(lambda: before not in node.host.entities)
    assert entity_id in node.host.entities
    cable.mute()
    node.host.touch(node.host.entities[entity_id])

    async def released() -> bool:
        return await direct.fetchval("SELECT owner FROM toy.entity WHERE id = $1", entity_id) is None

    await eventually(released)
    await cable.cut()
    await eventually(lambda: entity_id not in node.host.entities)
    assert await node.durable.router.command(entity_id, Add(n=1)) == 2
    assert not node.fenced.done()


async def test_a_claim_that_is_carried_out_late(
    start_node: Start, toy: str, cable: Cable, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14, K11: the claim of a parked entity got no answer, and is carried out seconds later: its owner finds it."""
    monkeypatch.setattr("tierflow_durable.host.PARK_AFTER", 0)
    node = await start_node(url=cable.url(toy), lease=30.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(entity_id, Park(wake_at=node.durable.clock.now() + 600_000_000))
    await eventually(lambda: entity_id not in node.host.entities)
    holding = direct.transaction()
    await holding.start()
    await direct.execute("SELECT 1 FROM toy.entity WHERE id = $1 FOR UPDATE", entity_id)
    asked = asyncio.create_task(node.durable.router.command(entity_id, Add(n=10)))
    await eventually(lambda: _claiming(direct))
    await cable.cut()
    with pytest.raises(FailureError):
        await asked
    owning, looks = node.host.owning, []
    while len(looks) < 4:  # Whoever looks only for a moment finds nothing.
        looks.append(owning._next_look)
        await eventually(lambda: owning._next_look > looks[-1])
    await holding.rollback()
    await eventually(lambda: entity_id in node.host.entities)
    assert await node.durable.router.command(entity_id, Add(n=1)) in (2, 12)


async def _claiming(connection: Any) -> bool:
    """Whether a claim waits for its row."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%entity%'"
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return bool(await connection.fetchval(query))


async def test_answers_wait_for_the_commit(start_node: Start, direct: Any) -> None:
    """R7, C1: while a commit is held up nobody is told what it will say: not who asked, not who reads, not who waits for an end."""
    node = await start_node(lease=30.0)
    seen, ended, new = uuid7(), uuid7(), uuid7()
    for entity_id in (seen, ended):
        await node.host.create(entity_id, Add(n=1))
    holding = direct.transaction()
    await holding.start()
    await direct.execute("LOCK TABLE toy.journal IN SHARE MODE")
    command = asyncio.create_task(node.durable.router.command(seen, Add(n=10)))
    end = asyncio.create_task(node.durable.router.command(ended, End()))
    created = asyncio.create_task(node.host.create(new, Add(n=7)))
    await eventually(lambda: node.host.entities[seen].state.total == 11)
    reads = [
        asyncio.create_task(node.durable.reader.view(seen, lambda state: state.total)),
        asyncio.create_task(node.durable.reader.view(new, lambda state: state.total)),
        asyncio.create_task(node.durable.reader.wait_ended(ended, 60)),
    ]
    await eventually(lambda: _waiting(direct))
    done, _ = await asyncio.wait({command, end, created, *reads}, timeout=0.5)
    assert done == set()
    assert [row.seq for row in await node.durable.reader.events(seen, 0)] == [1]
    assert len(await node.durable.database.fetch("owner", id=new)) == 0
    await holding.rollback()
    assert await asyncio.gather(command, *reads) == [11, 11, 7, True]
    assert (await created).created
    await end


async def test_nothing_is_answered_past_the_lease(start_node: Start, toy: str, cable: Cable, direct: Any) -> None:
    """R7, R9: an instance that cannot renew its lease refuses commands, and reads what is stored instead of what it remembers."""
    node = await start_node(url=cable.url(toy), lease=1.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await cable.cut(refuse=True)
    await eventually(lambda: not node.durable.instance.alive)
    with pytest.raises(FailureError) as refused:
        await node.durable.router.command(entity_id, Add(n=1))
    assert refused.value.failure.code == "DATABASE_UNAVAILABLE"
    with pytest.raises(FailureError) as unread:
        await node.durable.reader.view(entity_id, lambda state: state.total)
    assert unread.value.failure.code == "DATABASE_UNAVAILABLE"
    assert not node.durable.ready
    cable.mend()
    await eventually(lambda: node.durable.ready)  # nobody has fenced it: it renews (rule R10)
    assert await node.durable.router.command(entity_id, Add(n=1)) == 2


async def test_what_cannot_be_undone_by_us_is_dropped(
    start_node: Start, toy: str, cable: Cable, direct: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """F26, F31, C5: nobody can say whether a broken commit was undone: it is an event in the log, its session is dropped and ended at the server."""
    node = await start_node(url=cable.url(toy), lease=30.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    pid = node.host.writer.backend_pid
    holding = direct.transaction()
    await holding.start()
    await direct.execute("LOCK TABLE toy.journal IN SHARE MODE")
    asked = asyncio.create_task(node.durable.router.command(entity_id, Add(n=10)))
    assert await eventually(lambda: _waiting(direct)) == {pid}
    await cable.cut()

    async def ended() -> bool:
        await direct.execute("SELECT pg_stat_clear_snapshot()")
        return await direct.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid) == 0

    await eventually(ended)
    await holding.rollback()
    assert await asyncio.wait_for(asked, 60) == 11
    assert node.host.writer.backend_pid != pid
    assert [record for record in caplog.records if record.getMessage() == "the database is away; commits wait"]
    query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert await direct.fetchval(query) == 0


async def test_a_migration_that_breaks_off(toy: str, direct: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """F26, I16: a migration whose session dies in the middle, or that fails, leaves nothing; the next try begins where it began."""
    for last in ("SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1 / 0"):
        text = f"CREATE TABLE half (n integer); {last}"
        monkeypatch.setattr(migrations, "migrations_of", lambda *_, text=text: [migrations.Migration("x/9", text)])
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await migrate(toy, "toy")
        assert await direct.fetchval("SELECT to_regclass('toy.half')") is None
        assert await direct.fetchval("SELECT count(*) FROM toy.migration WHERE name = 'x/9'") == 0
    monkeypatch.setattr(
        migrations, "migrations_of", lambda *_: [migrations.Migration("x/9", "CREATE TABLE half (n integer)")]
    )
    assert await migrate(toy, "toy") == ["x/9"]


@pytest.mark.parametrize("busy", [True, False])
async def test_an_older_database(own_postgres: EmbeddedPostgres, busy: bool) -> None:
    """R18: the database comes back as it was before an acknowledged commit: the instance ends, whether it wants to write or only rests."""
    url = own_postgres.create_database("older")
    await migrate(url, "toy")
    node = Node(url, "a", lease=30.0)
    await node.durable.start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    own_postgres.stop()
    kept = own_postgres.data.with_name("kept")
    await _copy(own_postgres.data, kept)
    own_postgres.start()
    assert await asyncio.wait_for(node.durable.router.command(entity_id, Add(n=10)), 60) == 11
    own_postgres.stop()
    shutil.rmtree(own_postgres.data)
    await _copy(kept, own_postgres.data)
    own_postgres.start()
    if busy:
        node.host.apply(node.host.entities[entity_id], Add(n=100))
    assert "lost a commit" in await asyncio.wait_for(node.fenced, 60)
    connection = await asyncpg.connect(url)
    assert await _rows(connection, entity_id) == [(1, 1)]
    await connection.close()
    await node.durable.close()
    other = Node(url, "a", lease=30.0)
    await other.durable.start()
    await eventually(lambda: entity_id in other.host.entities)
    assert await other.durable.router.command(entity_id, Add(n=1)) == 2
    await other.durable.close()


async def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """With owners and rights: Postgres looks at them."""
    await asyncio.to_thread(subprocess.run, ["cp", "-a", source, target], check=True)
