"""How swarms, runs, steps, logs, executors and the queue are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import click
from tierflow.results import story, trace_id, whole
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.execution_pb2 import Balance, ReusedSteps, Usage
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.common.v1.plan_pb2 import PlannedRunStatus
from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import GetQueueResponse
from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm
from tierflow_contracts.executor.v1.executor_service_pb2 import HandlerInfo
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2 import AttemptLog, ConnectedExecutor
from tierflow_contracts.orchestrator.v1.run_pb2 import Run, Step

from tierflow_cli import text

_WIDTH = 400
"""Longest value shown in a description; the whole is in --json."""


def swarm_state(number: int) -> str:
    """Short name of a swarm's state."""
    return text.name_of(state_pb2.SwarmState, number, "SWARM_STATE_")


def run_state(number: int) -> str:
    """Short name of a run's state."""
    return text.name_of(state_pb2.RunState, number, "RUN_STATE_")


def step_state(number: int) -> str:
    """Short name of a step's state."""
    return text.name_of(state_pb2.StepState, number, "STEP_STATE_")


def list_swarms(swarms: Iterable[Swarm]) -> None:
    """Swarms, one a line."""
    rows = [
        (
            s.context.swarm_id,
            text.state(swarm_state(s.state)),
            _flow(s),
            text.ago(s.created_at),
            text.duration(s.duration),
            s.context.user_id,
            s.reason or _made_of(s.origin),
        )
        for s in swarms
    ]
    text.table(("SWARM", "STATE", "FLOW", "ACCEPTED", "TOOK", "USER", "REASON"), rows)


def list_runs(runs: Iterable[Run]) -> None:
    """Runs, one a line."""
    rows = [
        (
            r.context.run_id,
            text.state(run_state(r.state)),
            _flow(r),
            f"{r.counts.completed}/{r.counts.total}" if r.counts.total else "",
            text.ago(r.created_at),
            text.duration(r.duration),
            r.context.user_id,
            r.reason or _made_of(r.reuse),
        )
        for r in runs
    ]
    text.table(("RUN", "STATE", "FLOW", "STEPS", "ACCEPTED", "TOOK", "USER", "REASON"), rows)


def _flow(thing: Swarm | Run) -> str:
    return f"{thing.flow_name}@{thing.flow_version}" if thing.flow_version else thing.flow_name


def show_swarm(swarm: Swarm) -> None:
    """One swarm in full."""
    name = swarm_state(swarm.state)
    outcome = text.name_of(state_pb2.Outcome, swarm.outcome, "OUTCOME_") if swarm.outcome else ""
    text.fields(
        [
            ("swarm", text.bold(swarm.context.swarm_id)),
            (
                "state",
                " ".join(
                    part
                    for part in (
                        text.state(name),
                        text.state(outcome) if outcome != name else "",
                        _because(swarm.reason),
                    )
                    if part
                ),
            ),
            ("flow", _flow(swarm)),
            *_common(swarm),
            ("made of", _made_of(swarm.origin)),
            ("runs", "" if swarm.plan else ", ".join(swarm.run_ids)),
        ]
    )
    if swarm.plan:
        click.echo()
        show_plan(swarm.plan)


def show_plan(plan: Iterable[PlannedRunStatus]) -> None:
    """The runs of a plan, one a line, with why each is what it is."""
    rows = [
        (
            each.id,
            text.state(step_state(each.state)),
            f"{each.flow.name}@{each.flow.version}" if each.flow.version else each.flow.name,
            each.run_id,
            click.style(story(each.failure), fg="red") if each.HasField("failure") else each.reason,
        )
        for each in plan
    ]
    text.table(("RUN", "STATE", "FLOW", "ID", ""), rows)


def show_run(run: Run, steps: Sequence[Step], *, within: Swarm | None = None) -> None:
    """One run in full, or what it adds to its swarm, and its steps."""
    name = run_state(run.state)
    pairs = [
        ("state", " ".join(part for part in (text.state(name), f"{run.percent:.0f} %", _because(run.reason)) if part))
    ]
    if within is None:
        pairs = [
            ("run", text.bold(run.context.run_id)),
            ("swarm", run.context.swarm_id),
            *pairs,
            ("flow", _flow(run)),
            *_common(run),
            ("made of", _made_of(run.reuse)),
        ]
    pairs += [("wakes", text.moment(run.wake_at)), ("steps", _counts(run))]
    text.fields(pairs)
    if steps:
        click.echo()
        show_steps(steps)
    if run.counts.total > len(steps):
        click.echo(text.dim(f"... {len(steps)} of {run.counts.total} steps; all of them: --steps {run.counts.total}"))


def _made_of(origin: ReusedSteps) -> str:
    """Of which other swarm, how, and with what of it."""
    if not origin.swarm_id:
        return ""
    at = f" at {origin.checkpoint} (event {origin.at_seq})" if origin.checkpoint else ""
    kept = f", with {', '.join(origin.step_ids)}" if origin.step_ids else ""
    return f"{origin.kind} of {origin.swarm_id}{at}{kept}"


def _because(reason: str) -> str:
    return text.dim(f"({reason})") if reason else ""


def _common(thing: Swarm | Run) -> list[tuple[str, str]]:
    context = thing.context
    return [
        ("trace", trace_id(context.traceparent)),
        ("tenant / user", f"{context.tenant} / {context.user_id}"),
        ("request id", context.request_id),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(context.labels.items()))),
        ("accepted", f"{text.moment(thing.created_at)}  {text.dim(text.ago(thing.created_at))}"),
        ("ended", text.moment(thing.ended_at)),
        ("took", text.duration(thing.duration)),
        ("used", usage(thing.usage)),
        ("budget", budget(thing.balance)),
        ("input", payload(thing.input)),
        ("output", payload(thing.output)),
        ("failure", click.style(story(thing.failure), fg="red") if thing.HasField("failure") else ""),
        ("owner", thing.owner),
    ]


def _counts(run: Run) -> str:
    counts = run.counts
    parts = [
        (counts.running, "running"),
        (counts.pending, "pending"),
        (counts.completed, "completed"),
        (counts.failed, "failed"),
    ]
    parts += [(counts.skipped, "skipped"), (counts.cancelled, "cancelled")]
    return (
        f"{counts.total}: " + ", ".join(f"{number} {name}" for number, name in parts if number) if counts.total else ""
    )


def usage(used: Usage) -> str:
    """What was used, in one line, without what is zero."""
    parts = [
        (used.credits, text.credits_(used.credits)),
        (used.steps, text.count(used.steps, "step")),
        (used.attempts, text.count(used.attempts, "attempt")),
        (used.tool_calls, text.count(used.tool_calls, "tool call")),
        (used.input_tokens + used.output_tokens, f"{used.input_tokens} + {used.output_tokens} tokens"),
        (used.wall_time.ToNanoseconds(), f"{text.duration(used.wall_time)} of executors"),
        (used.cpu_time.ToNanoseconds(), f"{text.duration(used.cpu_time)} of processor"),
        (used.memory_bytes, f"{text.size(used.memory_bytes)} at most"),
    ]
    return ", ".join(part for number, part in parts if number)


def budget(balance: Balance) -> str:
    """What is spent, held and free of what was granted, dimension by dimension; nothing of what is not limited."""
    words: dict[str, Callable[[int], str]] = {
        "credits": text.credits_,
        "tokens": lambda number: text.count(number, "token"),
        "tool_calls": lambda number: text.count(number, "tool call"),
        "steps": lambda number: text.count(number, "attempt"),
    }
    found = []
    for name, said in words.items():
        account = getattr(balance, name)
        if account.HasField("total"):
            parts = [f"{said(account.consumed)} of {said(account.total)} spent", f"{said(account.available)} free"]
            parts[1:1] = [f"{said(account.reserved)} held"] if account.reserved else []
            parts += [f"{said(account.overdrawn)} too much"] if account.overdrawn else []
            found.append(", ".join(parts))
    return "; ".join(found)


def payload(value: Payload) -> str:
    """A value, cut where it is long."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return ""
    if kind == "ref":
        return f"{text.size(value.ref.size)} stored as {value.ref.sha256}"
    shown = value.json if kind == "json" else json.dumps(whole(text.plain(value)["value"]), ensure_ascii=False)
    return shown if len(shown) <= _WIDTH else f"{shown[:_WIDTH]}... ({len(shown)} characters)"


def show_steps(steps: Sequence[Step]) -> None:
    """Steps, one a line, and the failures of those that failed."""
    rows = [
        (
            s.step_id,
            text.state(step_state(s.state)),
            s.handler or s.kind,
            str(s.attempts) if s.attempts else "",
            text.duration(s.duration),
            s.executor_id,
            click.style(story(s.failure), fg="red") if s.HasField("failure") else s.reason,
        )
        for s in steps
    ]
    text.table(("STEP", "STATE", "HANDLER", "ATTEMPTS", "TOOK", "EXECUTOR", ""), rows)


def show_logs(attempts: Iterable[AttemptLog]) -> None:
    """Lines under the attempt that wrote them."""
    for attempt in attempts:
        click.echo(text.bold(attempt.step_id) + text.dim(f" attempt {attempt.attempt}"))
        for line in attempt.lines:
            colour = {"stderr": "red", "error": "red", "warning": "yellow"}.get(line.stream.lower())
            click.echo(
                f"  {text.dim(text.clock(line.time))} {text.dim(line.stream.ljust(7))} {click.style(line.text, fg=colour) if colour else line.text}"
            )


def show_queue(queue: GetQueueResponse) -> None:
    """What is under way, tier by tier."""
    rows: list[tuple[str, str]] = [
        (name, str(getattr(queue, name))) for name in ("total", "queued", "running", "paused", "stopping")
    ]
    click.echo(text.bold("swarms under way"))
    text.fields([*rows, ("most", str(queue.max_size or "not limited"))], indent=2)
    text.heading("swarms ended since the engine's first start")
    text.fields([(name, str(getattr(queue, name))) for name in ("completed", "failed", "cancelled")], indent=2)
    text.heading("runs and steps")
    counts = [(run_state(count.state).lower(), str(count.count)) for count in queue.runs.runs]
    text.fields([*counts, ("attempts", str(queue.runs.attempts)), ("slots", str(queue.runs.slots))], indent=2)
    waiting = sorted(queue.runs.waiting_steps.items(), key=lambda item: -item[1])
    if waiting:
        text.heading("steps that wait for a slot")
        text.fields([(handler, str(number)) for handler, number in waiting], indent=2)


def list_executors(executors: Sequence[ConnectedExecutor], *, show_handlers: bool) -> None:
    """Executors, one a line; then, if wished, what each handler does."""
    if not executors:
        click.echo("No executor is connected. Start one with: tierflow executor --handlers YOUR_PACKAGE", err=True)
        return
    text.table(
        ("EXECUTOR", "ADDRESS", "STATE", "SLOTS", "LABELS", "HANDLERS"),
        [_executor(each, show_handlers) for each in executors],
    )
    if show_handlers:
        known: dict[str, HandlerInfo] = {handler.name: handler for each in executors for handler in each.hello.handlers}
        click.echo()
        text.table(("HANDLER", "TIMEOUT", "", "DOES"), [_handler(handler) for _, handler in sorted(known.items())])


def _executor(executor: ConnectedExecutor, count_only: bool) -> tuple[str, ...]:
    hello, state = executor.hello, text.state("RUNNING")
    if executor.HasField("lost_since"):
        state = click.style(f"lost {text.ago(executor.lost_since)}", fg="red")
    elif executor.draining:
        state = "draining"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(hello.labels.items()))
    names = sorted(handler.name for handler in hello.handlers)
    handlers = str(len(names)) if count_only else ", ".join(names)
    return (
        hello.name or hello.executor_id,
        executor.address,
        state,
        f"{executor.slots_used}/{hello.slots}",
        labels,
        handlers,
    )


def _handler(handler: HandlerInfo) -> tuple[str, ...]:
    return (
        handler.name,
        text.duration(handler.timeout),
        "side-effecting" if handler.side_effecting else "",
        handler.description.partition("\n")[0],
    )
