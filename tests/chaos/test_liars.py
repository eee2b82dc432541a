"""An executor lies, beside honest ones and under load: every lie is refused with a type and counted, and nothing of it is in a journal (R23, R24, R26)."""

import asyncio
import pathlib
from collections.abc import Callable
from typing import Any

import asyncpg
import harness
import pytest
from evidence import Evidence
from liar import HARMLESS, UNSOUND, Liar
from scraping import metric
from steering_load import SteeredLoad
from tierflow import Client
from tierflow_orchestrator.claims import REASONS
from tierflow_testing.ports import free_port
from tierflow_testing.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
EACH = 20
PROMISED = (
    "every lie is refused with a type and counted, other attempts are not touched, nothing untrue is in a journal"
)


def _flow(kind: str) -> dict[str, Any]:
    n = "${{ input.n }}"
    return {
        "name": f"lied-{kind.replace('_', '-')}",
        "version": "1",
        "steps": {
            "s0": {"call": "echo", "with": {"n": n}},
            "s1": {"call": "chaos.effect", "needs": ["s0"], "with": {"n": n, "seconds": 0.5}},
            "lie": {
                "call": f"lie.{kind}",
                "needs": ["s0"],
                "with": {"n": n},
                "timeout": "1s",
                "retry": {"max_attempts": 3, "initial_delay": "10ms"},
            },
            "s2": {"call": "echo", "with": {"n": "${{ steps.s1.output.n }}", "m": "${{ steps.lie.output.n }}"}},
        },
        "output": "${{ steps.s2.output }}",
    }


async def _deceived(client: Client, kind: str, number: int, wrong: list[str]) -> None:
    handle = await client.submit(_flow(kind), {"n": number})
    result = await handle.wait()
    if kind in HARMLESS:
        if result.output != {"n": number, "m": number}:
            wrong.append(f"{kind}: {result.state}: {result.output} {result.failure}")
    elif result.state != "FAILED" or result.failure is None:
        wrong.append(f"{kind}: {result.state}: {str(result.output)[:100]}")


async def _lies_in(stack: Stack) -> int:
    """Journal rows and snapshots that hold something untrue."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        found = 0
        for schema in ("orchestrator", "coordinator"):
            for table in ("journal", "snapshot", "blob"):
                column = await connection.fetchval(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 AND data_type = 'bytea' "
                    "AND column_name IN ('data', 'state', 'events', 'content')",
                    schema,
                    table,
                )
                if column is not None:
                    query = f"SELECT count(*) FROM {schema}.{table} WHERE position('LIE'::bytea IN {column}) > 0"
                    found += await connection.fetchval(query)
        return found
    finally:
        await connection.close()


async def test_an_executor_lies(make_stack: Callable[..., Stack], tmp_path: pathlib.Path, evidence: Evidence) -> None:
    """O7, S13, R23, R24, R26, F22, Lesson 27: results twice, late, of others' attempts; never answered; progress after the end; wrong, hostile and too large outputs."""
    executions = tmp_path / "executions"
    async with Liar(free_port()) as liar:
        environment = {"TIERFLOW_EXECUTOR_LOST_SECONDS": "5"}
        stack = make_stack(
            **harness.options(executions, executors=2, guests=[liar.address], orchestrator_environment=environment)
        )
        wrong: list[str] = []
        async with Client(stack.address, timeout=60, patience=120) as client:
            await harness.ready(client)
            honest = SteeredLoad(client, harness.flow(seconds=0.1), in_flight=30)

            async def lied() -> list[harness.Fault]:
                kinds = [*HARMLESS, *UNSOUND]
                await asyncio.gather(
                    *(_deceived(client, kind, number, wrong) for kind in kinds for number in range(EACH))
                )
                return []

            await harness.under_load(honest, 60, lied())
        refused = {
            reason: int(await metric(stack.orchestrators[0], "tierflow_reports_refused", reason=reason))
            for reason in REASONS
        }
        report = await harness.examined(stack, executions, executors_lived=True, patience=60)
        lies = await _lies_in(stack)
    told = sum(liar.lies.values())
    holds = not wrong and not honest.wrong and report.ok and lies == 0 and all(refused.values())
    counted = ", ".join(f"{count} {reason}" for reason, count in refused.items())
    seen = (
        f"{told} attempts lied about in {len(liar.lies)} ways, refused: {counted}; {lies} journal rows with a lie; {honest.done} honest runs beside them, "
        f"{len(wrong) + len(honest.wrong)} wrong, {len(report.problems)} problems, {report.counts['executions_again']} executions again"
    )
    evidence.add("executors", "an executor lies, beside honest ones", told, PROMISED, seen, holds=holds)
    assert wrong == []
    assert honest.wrong == []
    assert report.problems == []
    assert lies == 0
    assert refused["foreign"] >= EACH
    assert refused["stale"] >= EACH
    assert refused["unsound"] == len(UNSOUND) * EACH
    assert refused["overdue"] >= EACH
    assert "\n".join(harness.complaints(stack)) == ""
