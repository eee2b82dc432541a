"""Results of steps in the database, for steps of the same key. A cache that need not be right: what cannot be read is not there, what cannot be stored is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database
from tierflow_durable.sqlfile import Statement, statement
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import BlobRef, FailureError, Payload

from tierflow_orchestrator.core import commands

log = get_log(__name__)

AT_ONCE = 1_000
"""Keys that are looked up, and results that are dropped, in one statement."""
SWEEP_EVERY = 60.0
"""Seconds between looks for results that have expired."""


def _query(name: str) -> Statement:
    return statement(name, "cache.sql", "tierflow_orchestrator")


class StepCache:
    """Stored results of all tenants; each is asked for by its tenant."""

    def __init__(self, database: Database, clock: DatabaseClock) -> None:
        self._database = database
        self._clock = clock
        self.hits = 0
        self.misses = 0

    async def recall(self, tenant: str, wanted: Mapping[str, str]) -> list[commands.Recall]:
        """The answers for steps, by their ids, with these keys."""
        found: dict[str, commands.Recall] = {}
        keys = sorted({key for key in wanted.values() if key})
        for start in range(0, len(keys), AT_ONCE):
            found |= await self._find(tenant, keys[start : start + AT_ONCE])
        answers = []
        for step_id, key in wanted.items():
            hit = found.get(key)
            self.hits += hit is not None
            self.misses += hit is None
            answers.append(_answer(step_id, key, hit))
        return answers

    async def _find(self, tenant: str, keys: Sequence[str]) -> dict[str, commands.Recall]:
        try:
            rows = await self._database.fetch(_query("find_results"), tenant=tenant, keys=keys, now=self._clock.now())
            rows = [row for row in rows if row["sha256"] is None or await self._take_up(row["sha256"])]
        except FailureError as error:
            log.info("stored results cannot be read; steps are performed", reason=str(error))
            return {}
        return {
            row["key_hash"]: commands.Recall(
                step_id="",
                key_hash=row["key_hash"],
                found=True,
                output=_output(row["output"], row["sha256"], row["size"]),
                run_id=row["run_id"],
                made_by=row["step_id"],
                stored_at=row["stored_at"],
            )
            for row in rows
        }

    async def _take_up(self, sha256: str) -> bool:
        """Whether a large value is still there; who refers to it keeps it (R34)."""
        row = await self._database.fetchrow("touch_blob", sha256=bytes.fromhex(sha256))
        return row is not None and bool(row["exists"])

    async def store(self, tenant: str, run_id: str, effect: commands.StoreResult) -> None:
        """Keeps a result; the latest of a key counts."""
        output, now = effect.output, self._clock.now()
        ref = output if isinstance(output, BlobRef) else None
        try:
            await self._database.fetch(
                _query("put_result"),
                tenant=tenant,
                key_hash=effect.key_hash,
                output=None if ref is not None else output,
                sha256=None if ref is None else ref.sha256,
                size=0 if ref is None else ref.size,
                run_id=run_id,
                step_id=effect.step_id,
                now=now,
                expires_at=now + effect.ttl,
            )
        except FailureError as error:
            log.info("a result is not kept for others", run_id=run_id, step_id=effect.step_id, reason=str(error))

    async def run_sweep(self) -> None:
        """Drops results that have expired, for ever."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                await self.drop_expired()
            except FailureError as error:
                log.info("dropping expired results waits", reason=str(error))

    async def drop_expired(self) -> int:
        """Drops results that have expired; how many. Raises FailureError DATABASE_UNAVAILABLE."""
        dropped = 0
        while True:
            rows = await self._database.fetch(_query("drop_expired_results"), now=self._clock.now(), limit=AT_ONCE)
            dropped += len(rows)
            if len(rows) < AT_ONCE:
                return dropped

    async def purge(self, tenant: str | None = None) -> int:
        """Drops all results, or those of a tenant; how many. Raises FailureError DATABASE_UNAVAILABLE."""
        dropped = 0
        while True:
            if tenant is None:
                rows = await self._database.fetch(_query("drop_results"), limit=AT_ONCE)
            else:
                rows = await self._database.fetch(_query("drop_results_of_tenant"), tenant=tenant, limit=AT_ONCE)
            dropped += len(rows)
            if len(rows) < AT_ONCE:
                return dropped


def _output(text: str | None, sha256: str | None, size: int) -> Payload | None:
    return text if sha256 is None else BlobRef(sha256=sha256, size=size)


def _answer(step_id: str, key: str, hit: commands.Recall | None) -> commands.Recall:
    if hit is None:
        return commands.Recall(step_id=step_id, key_hash=key)
    return commands.Recall(
        step_id=step_id,
        key_hash=key,
        found=True,
        output=hit.output,
        run_id=hit.run_id,
        made_by=hit.made_by,
        stored_at=hit.stored_at,
    )
