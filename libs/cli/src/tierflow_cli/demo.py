"""`tierflow demo`: the whole system on this machine, one real flow on real files, and what there is to see of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierflow_cli.connection import FAILED, guarded, refuse

if TYPE_CHECKING:
    from tierflow import Client, Handle, Result
    from tierflow_testing.stack import Stack

DATA = Path(".tierflow/demo")
FLOW = "code_report/flow.yaml"
PORTS = (7701, 7702, 7703)


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What to report on; else the git checkout you are in.",
)
@click.option("--chaos", is_flag=True, help="Kill each of the three services on the way (kill -9).")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DATA,
    show_default=True,
    help="Where data, logs and the report go; emptied first.",
)
def demo(directory: Path | None, chaos: bool, data: Path) -> None:
    """Start everything, run a real flow on real files, show what happens.

    The flow is examples/code_report: it lists the files of a directory, looks at each of them in parallel, finds what is repeated, and writes a
    Markdown report. Where OPENAI_BASE_URL or OPENAI_API_KEY is set (and OPENAI_MODEL), a language model adds a few sentences.
    """
    from tierflow_cli import text
    from tierflow_cli.local import start, take

    began = time.monotonic()
    data = data.absolute()
    take(data, fresh=True)
    stack = _stack(data)
    click.echo(f"Starting Postgres, NATS and the three services; data and logs: {_shown(data)}")
    start(stack)
    try:
        click.echo(
            f"Ready in {text.span(time.monotonic() - began)}: "
            + ", ".join(f"{s.name.removesuffix('-0')} {s.address}" for s in reversed(stack.services))
        )
        code = guarded(lambda: _work(stack, (directory or _checkout()).resolve(), chaos=chaos, began=began))
    finally:
        stack.stop()
    sys.exit(code)


def examples() -> Path:
    """The directory of the examples: in the repository, or as installed."""
    here = Path(__file__).resolve()
    candidates = (*(parent / "examples" for parent in here.parents[3:5]), here.parent / "examples")
    found = next((candidate for candidate in candidates if (candidate / FLOW).exists()), None)
    return found or refuse(f"The example {FLOW} is not installed.", FAILED)


def _stack(data: Path) -> Stack:
    """The stack, on the usual ports where they are free, so that what is printed works later with `tierflow dev` as well."""
    from tierflow_testing.ports import is_free
    from tierflow_testing.stack import Stack, StackOptions

    from tierflow_cli.demo_overview import configured
    from tierflow_cli.local import python_path

    model = configured()
    options = StackOptions(
        handlers=["code_report.handlers"],
        supervised=True,
        environment={"PYTHONPATH": python_path(examples())},
        executor_environment={"TIERFLOW_SECRETS": model.secrets} if model else {},
    )
    stack = Stack(data, options)
    if all(is_free(port) for port in PORTS):
        for service, port in zip((*stack.coordinators, *stack.orchestrators, *stack.executors), PORTS, strict=True):
            service.port = port
    return stack


def _checkout() -> Path:
    """The git checkout around the current directory, else the current directory."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return Path.cwd()
    return Path(found.stdout.strip())


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


async def _work(stack: Stack, directory: Path, *, chaos: bool, began: float) -> int:
    from tierflow import Client

    async with Client(stack.address, patience=120) as client:
        handle = await client.submit(examples() / FLOW, {"directory": str(directory)}, labels={"demo": "code-report"})
        click.echo(
            f"\nReport on {directory}\n  swarm {handle.id}\n  run   {handle.run_id}\n  trace {handle.trace_id}\n"
        )
        seen = await _follow(client, handle, stack, chaos=chaos)
        result = await handle.wait(60)
        if result.state != "COMPLETED":
            click.echo(f"Logs: {stack.directory / 'logs'}", err=True)
            result.value()
        report = await _report(client, stack, result)
        await _account(client, stack, handle, result, report, time.monotonic() - began)
        return await _proof(client, stack, handle, seen) if chaos else 0


async def _follow(client: Client, handle: Handle, stack: Stack, *, chaos: bool) -> Counter[tuple[str, int]]:
    """Shows the work live; kills services on the way where that is wished. Returns how often each event was seen."""
    from tierflow import Event

    from tierflow_cli.demo_chaos import Chaos
    from tierflow_cli.demo_progress import Display, Tally

    tally, seen = Tally(), Counter[tuple[str, int]]()
    with Display(tally) as display:
        troubles = Chaos(stack, display.say) if chaos else None
        async for event in client.watch(handle.id):
            if isinstance(event, Event):
                if event.seq:
                    seen[event.entity_id, event.seq] += 1
                tally.take(event)
                display.refresh()
                if troubles is not None:
                    troubles.at(tally.share("analyse"))
        if troubles is not None:
            await troubles.settled()
    return seen


async def _report(client: Client, stack: Stack, result: Result) -> Path:
    """Prints the report and stores it."""
    from tierflow_cli.demo_overview import overview

    markdown: str = result.output["markdown"]
    words = await overview(client, examples(), result.output["summary"])
    if words:
        title, _, rest = markdown.partition("\n\n")
        markdown = f"{title}\n\n{words}\n\n{rest}"
    path = stack.directory / "code-report.md"
    await asyncio.to_thread(path.write_text, markdown)
    click.echo()
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(markdown))
    else:
        click.echo(markdown)
    return path


async def _account(client: Client, stack: Stack, handle: Handle, result: Result, report: Path, seconds: float) -> None:
    from tierflow_cli import describing, text
    from tierflow_cli.demo_progress import spent

    steps = [step async for step in client.steps(handle.run_id)]
    text.heading("Where the time went")
    text.table(("STEP", "HANDLER", "TIMES", "ATTEMPTS", "TOGETHER", "LONGEST"), spent(steps), indent=2)
    text.heading("All in all")
    coordinator, orchestrator, executor = stack.coordinators[0], stack.orchestrators[0], stack.executors[0]
    text.fields(
        [
            (
                "took",
                f"{text.span(result.duration)} from acceptance to end; {text.span(seconds)} since the command began",
            ),
            ("used", describing.usage(result.usage)),
            ("report", _shown(report)),
            ("trace", result.trace_id or handle.trace_id),
        ],
        indent=2,
    )
    text.heading("To look further, start the stack again on what it has stored, and ask from another terminal")
    usual = stack.address == f"127.0.0.1:{PORTS[0]}"
    port = "" if usual else f" --port {coordinator.port}"
    prefix = "" if usual else f"TIERFLOW_ADDRESS={stack.address} "
    commands = [
        f"{text.program()} dev --data {_shown(stack.directory)}{port}",
        "",
        f"{prefix}{text.program()} describe {handle.id}",
        f"{prefix}{text.program()} logs {handle.run_id} walk",
        f"{prefix}{text.program()} watch {handle.id}",
        f'grpcurl -plaintext -d \'{{"swarm_id": "{handle.id}"}}\' {coordinator.address} tierflow.coordinator.v1.CoordinatorService/GetSwarm',
        f'grpcurl -plaintext -d \'{{"run_id": "{handle.run_id}"}}\' {orchestrator.address} tierflow.orchestrator.v1.OrchestratorService/GetRun',
        f"grpcurl -plaintext {executor.address} tierflow.executor.v1.ExecutorService/DescribeExecutor",
    ]
    for command in commands:
        click.echo(f"  {command}" if command else "")


async def _proof(client: Client, stack: Stack, handle: Handle, seen: Counter[tuple[str, int]]) -> int:
    """Shows by the journal and by the auditor that nothing was lost or done twice; returns the exit code."""
    from tierflow_cli import text
    from tierflow_cli.auditing import audit
    from tierflow_cli.demo_chaos import findings

    text.heading("What the journal says after the kills")
    facts = findings(await client.events(handle.id), await client.events(handle.id, handle.run_id), seen)
    for holds, words in facts:
        click.echo(f"  {click.style('yes', fg='green') if holds else click.style('NO', fg='red', bold=True)}  {words}")
    text.heading("What the auditor says")
    report: Any = await audit(stack.database_url, stack.nats.url, settled=True)
    click.echo(str(report))
    return 0 if all(holds for holds, _ in facts) and report.ok else FAILED
