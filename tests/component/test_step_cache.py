"""Stored results of steps in a real database."""

import asyncio
import hashlib
import os
import sys

import pytest
from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database
from tierflow_orchestrator.cache import StepCache
from tierflow_orchestrator.core.commands import StoreResult
from tierflow_runtime.values import BlobRef, Payload

HOUR = 3_600_000_000


class Clock(DatabaseClock):
    """One that can be set."""

    at = 1_700_000_000_000_000

    def now(self) -> int:
        return self.at


@pytest.fixture
def cache(migrated_database: str) -> StepCache:
    Clock.at = 1_700_000_000_000_000
    return StepCache(Database(migrated_database, "orchestrator"), Clock())


def result(output: Payload | None, key: str = "k", ttl: int = HOUR) -> StoreResult:
    return StoreResult(step_id="s", key_hash=key, output=output, ttl=ttl)


async def test_no_tenant_sees_anothers_results(cache: StepCache) -> None:
    """L4, Lesson 10: fifty tenants with the same key at once; each finds its own, and one that stored none finds none."""
    tenants = [f"t{number}" for number in range(50)]
    await asyncio.gather(*(cache.store(tenant, "run-" + tenant, result(f'"canary {tenant}"')) for tenant in tenants))
    answers = await asyncio.gather(*(cache.recall(tenant, {"a": "k", "b": "other"}) for tenant in [*tenants, "nobody"]))
    for tenant, (found, missed) in zip(tenants, answers[:-1], strict=True):
        assert (found.output, found.run_id, found.made_by) == (f'"canary {tenant}"', "run-" + tenant, "s")
        assert not missed.found
    assert not any(answer.found for answer in answers[-1])
    assert (cache.hits, cache.misses) == (50, 52)


async def test_the_latest_counts_until_it_expires(cache: StepCache) -> None:
    """Q15: and what has expired is dropped, in bounded statements."""
    await cache.store("t", "r1", result("1"))
    await cache.store("t", "r2", result("2", ttl=2 * HOUR))
    await cache.store("t", "r1", result("3", key="short"))
    Clock.at += HOUR
    found, gone = await cache.recall("t", {"a": "k", "b": "short"})
    assert (found.output, found.run_id, found.stored_at) == ("2", "r2", Clock.at - HOUR)
    assert not gone.found
    assert await cache.drop_expired() == 1
    assert await cache.drop_expired() == 0
    Clock.at += HOUR
    assert not (await cache.recall("t", {"a": "k"}))[0].found


async def test_a_large_result_is_named_and_found_only_while_it_is_there(
    cache: StepCache, migrated_database: str
) -> None:
    """R33, Q15: by its content; where that is gone, there is no result."""
    content = b"x" * 100_000
    ref = BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    await cache.store("t", "r", result(ref))
    assert not (await cache.recall("t", {"a": "k"}))[0].found
    connection = await Database(migrated_database, "orchestrator").session(writer=True)
    await connection.execute("INSERT INTO blob VALUES ($1, 0, 1, $2)", bytes.fromhex(ref.sha256), content)
    await connection.close()
    assert (await cache.recall("t", {"a": "k"}))[0].output == ref


async def test_many_keys_at_once(cache: StepCache) -> None:
    """Q8: a map of thousands is looked up in few statements; no output is one as well."""
    await cache.store("t", "r", result(None, key="k2999"))
    answers = await cache.recall("t", {f"m[{n}]": f"k{n}" for n in range(3000)})
    assert [answer.step_id for answer in answers if answer.found] == ["m[2999]"]
    assert answers[-1].output is None


async def test_results_are_dropped_by_hand(cache: StepCache, migrated_database: str) -> None:
    """L4, Q15: those of a tenant, or all, by the command; nobody else's go with them."""
    for tenant in ("a", "b"):
        for key in ("k", "l"):
            await cache.store(tenant, "r", result("1", key=key))

    async def purged(*tenant: str) -> str:
        command = [sys.executable, "-m", "tierflow_orchestrator", "purge-cache", *tenant]
        environment = {**os.environ, "TIERFLOW_DATABASE_URL": migrated_database}
        made = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        said, _ = await made.communicate()
        assert made.returncode == 0
        return said.decode()

    assert await purged("a") == "dropped 2 stored results\n"
    assert [(await cache.recall(tenant, {"s": "k"}))[0].found for tenant in ("a", "b")] == [False, True]
    assert await purged() == "dropped 2 stored results\n"
    assert not (await cache.recall("b", {"s": "k"}))[0].found
