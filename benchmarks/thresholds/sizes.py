"""What things weigh: messages, memory, snapshots; and how soon a service is there."""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from tierflow_durable.ids import uuid7
from tierflow_flow import parse
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.decide import decide
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.machine import RunMachine
from tierflow_runtime import wire
from tierflow_runtime.requests import run_request, step_request
from tierflow_runtime.values import Allocation, Context, Options
from tierflow_testing.stack import Stack

from benchmarks.curves.memory import TIERS
from benchmarks.curves.stage import Size, client_of, fill_asleep, memory, system, total
from benchmarks.thresholds.figures import Figure
from benchmarks.workloads import FAN_OUT

NOW = 1_700_000_000_000_000


def _context(labels: int = 0) -> Context:
    name = uuid7()
    return Context(
        tenant="default", user_id="somebody", swarm_id=name, run_id=name, root_id=name, correlation_id=name, parent_id=name, depth=1,
        traceparent=f"00-{name.replace('-', '')}-{'b' * 16}-01", labels={f"label-{n}": f"value-{n}" for n in range(labels)},
    )  # fmt: skip


def messages() -> list[Figure]:
    """P15, P4: bytes of the requests between tiers of a one-step run, and what a context costs a hop."""
    context, allocation, options = _context(), Allocation(), Options(timeout=30_000_000)
    from tierflow_contracts.common.v1.flow_pb2 import FlowRef

    run = run_request(
        context, FlowRef(name="f", version="1", hash="0" * 64), input='{"i":1}', allocation=allocation, options=options
    )
    step = step_request(
        context, "echo", input='{"i":1}', allocation=allocation, options=options, step_id="only", attempt=1, epoch=1,
        attempt_id=f"{context.run_id}/only/1", idempotency_key=f"{context.run_id}/only", grant_token=f"{context.run_id}/only/1",
    )  # fmt: skip
    mean = statistics.mean((run.ByteSize(), step.ByteSize()))
    return [
        Figure("P15", "mean size of a request between tiers", round(mean), 1024, "bytes"),
        Figure("P4", "a context of no labels: made, sent, read", round(_hop(_context()), 2), 50, "us"),
        Figure("P4", "a context of 32 labels: made, sent, read", round(_hop(_context(32)), 2), 100, "us"),
    ]


def _hop(context: Context) -> float:
    """Microseconds to encode and decode a context, the best of many."""
    best = float("inf")
    for _ in range(2000):
        began = time.perf_counter()
        wire.context_from_proto(
            type(wire.context_to_proto(context)).FromString(wire.context_to_proto(context).SerializeToString())
        )
        best = min(best, time.perf_counter() - began)
    return best * 1e6


def snapshot() -> Figure:
    """P15: the state of a run of a thousand steps as a snapshot."""
    flow = parse(json.dumps(FAN_OUT), "json")
    context = _context()
    run = Run(context.run_id)
    run.flow = flow
    create = commands.CreateRun(
        context=context, flow_hash=flow.hash, flow_name=flow.name, flow_version=flow.version,
        input=json.dumps({"items": list(range(1000))}), allocation=Allocation(), options=Options(),
    )  # fmt: skip
    decide(run, create, NOW)
    while (step_id := run.next_ready("echo")) not in (None, "join"):
        decide(run, commands.AssignSlot(step_id=str(step_id), executor_id="e/1"), NOW)
        step = run.steps[str(step_id)]
        decide(run, commands.ReportResult(attempt_id=step.attempt_id, state="COMPLETED", output=step.input), NOW)
    machine = RunMachine()
    took = []
    for _ in range(20):
        began = time.perf_counter()
        machine.dump(run)
        took.append(time.perf_counter() - began)
    return Figure(
        "P15", "a snapshot of a run of 1,000 steps, median", round(statistics.median(took) * 1000, 2), 20, "ms"
    )


async def starts(stack: Stack) -> list[Figure]:
    """P6: each service, from its start until it serves."""
    found = []
    for service in (stack.executors[0], stack.orchestrators[0], stack.coordinators[0]):
        took = []
        for _ in range(3):
            await asyncio.to_thread(service.stop)
            began = time.perf_counter()
            await asyncio.to_thread(service.start)
            took.append(time.perf_counter() - began)
        name = service.name.partition("-")[0]
        found.append(Figure("P6", f"the {name} serves, median of three", round(statistics.median(took), 2), 2.0, "s"))
    return found


async def idle(size: Size) -> Figure:
    """P1, P5: memory of the services for each of many swarms that wait for a day."""
    count = size.pick(20, 1000)
    environment = {"TIERFLOW_PARK_SECONDS": "1"}
    async with system(audited=False, coordinator_environment=environment) as stack, client_of(stack):
        before = total(memory(stack), *TIERS)
        await fill_asleep(stack, count)
        grown = total(memory(stack), *TIERS) - before
    each = round(max(0.0, grown) * 1024 / count, 2)
    return Figure("P1, P5", f"memory of the services for each of {count} idle swarms", each, 100, "KiB")
