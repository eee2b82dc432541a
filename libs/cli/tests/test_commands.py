"""Commands against a scripted Tier 1: what they print and how they exit."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import tierflow_cli
from tierflow.errors import made
from tierflow_cli import text
from tierflow_contracts.common.v1 import failure_pb2, flow_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, Usage
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.executor.v1.executor_service_pb2 import ExecutorHello, HandlerInfo
from tierflow_contracts.executor.v1.step_pb2 import LogLine
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1.run_pb2 import Run, Step, StepCounts
from tierflow_testing.fake_coordinator import TRACE, FakeCoordinator, rich
from tierflow_testing.waiting import eventually


async def test_submit_says_the_ids(fake: FakeCoordinator, tierflow: Any) -> None:
    """N2, J19: the ids, to be copied, on standard output."""
    said = await tierflow(
        "submit", "greet@2", "-i", "name=Ada", "-i", "n=3", "-l", "team=x", "--request-id", "r-1", "--timeout", "90s"
    )
    assert said.code == 0, said.err
    assert said.out.split() == ["swarm", "swarm-1", "run", "run-swarm-1", "trace", TRACE]
    assert "tierflow watch swarm-1" in said.err
    request = fake.frames[0].execute[0]
    assert json.loads(request.input.flow.input.json) == {"name": "Ada", "n": 3}
    assert (request.context.request_id, dict(request.context.labels), request.options.timeout.seconds) == (
        "r-1",
        {"team": "x"},
        90,
    )


async def test_submit_waits_and_prints_the_output(fake: FakeCoordinator, tierflow: Any, tmp_path: Path) -> None:
    """Q26: the output alone on standard output; input from a file, from standard input, from an argument."""
    path = tmp_path / "input.json"
    path.write_text('{"n": 1}')
    for arguments, stdin in (
        (("--input-json", f"@{path}"), ""),
        ((f"@{path}",), ""),
        (("--input-json", "@-"), '{"n": 1}'),
    ):
        said = await tierflow("submit", "echo", *arguments, "--wait", stdin=stdin)
        assert (said.code, json.loads(said.out)) == (0, {"n": 1}), said.err
    said = await tierflow("submit", "echo", "--wait", "--json")
    assert json.loads(said.out)["state"] == "COMPLETED"


async def test_exit_codes_say_what_to_do(fake: FakeCoordinator, tierflow: Any) -> None:
    """N12, F29: sysexits-like codes, one message on standard error, all violations in it, no stack trace."""
    bad = made(
        "FLOW_INVALID",
        "The flow is not valid.",
        failure_pb2.Violation(field="steps.a", description="unknown", line=4),
        failure_pb2.Violation(field="name", description="missing"),
    )
    exhausted = made("QUEUE_FULL", "The queue is full.")
    exhausted.retry_after.seconds = 3
    fake.refusals = [
        bad,
        exhausted,
        made("FLOW_NOT_FOUND", "No flow x."),
        made("PERMISSION_DENIED", "You may not."),
        made("REQUEST_ID_REUSED", "Other body."),
        made("INTERNAL", "A defect."),
    ]
    expected = [
        (64, "steps.a: unknown (line 4)"),
        (75, "try again in 3 s"),
        (66, "No flow x."),
        (77, "You may not."),
        (65, "Other body."),
        (70, "A defect."),
    ]
    for code, words in expected:
        said = await tierflow("submit", "x")
        assert (said.code, said.out) == (code, ""), said
        assert words in said.err
        assert "Traceback" not in said.err
        assert said.err.startswith("error: ")
    assert (await tierflow("submit", "x", "-i", "wrong")).code == 2
    assert (await tierflow("submit", "missing.yaml")).code == 66


async def test_inputs_that_cannot_be_read_are_one_message(fake: FakeCoordinator, tierflow: Any, tmp_path: Path) -> None:
    """H22, N8: no traceback; a file that is not there is not found; a forgotten @ is named; nothing is sent."""
    (deep := tmp_path / "deep.json").write_text('{"x":' + "[" * 5000 + "]" * 5000 + "}")
    (flow := tmp_path / "flow.yaml").write_text("name: f")
    for arguments, code, words in (
        ((f"@{deep}",), 2, "nested too deeply"),
        ((str(flow),), 2, f"named with @: @{flow}"),
        (("@nowhere.json",), 66, "nowhere.json cannot be read"),
        (("--input-json", '{"x": NaN}'), 2, "NaN is no JSON"),
    ):
        said = await tierflow("submit", "greet", *arguments)
        assert (said.code, words in said.err, "Traceback" in said.err) == (code, True, False), said.err
    assert fake.frames == []


async def test_nobody_there_is_one_line(tierflow: Any) -> None:
    """N12: exit code 69 and one line with the address and what to do, for every kind of call, at once."""
    for arguments in (("queue",), ("submit", "x"), ("watch", "s"), ("runs",), ("flows", "list")):
        said = await tierflow(*arguments, address="127.0.0.1:1")
        assert said.code == 69, said
        assert len(said.err.strip().splitlines()) == 1
        assert "127.0.0.1:1" in said.err
        assert "tierflow dev" in said.err


async def test_a_failed_execution_exits_1_with_its_story(fake: FakeCoordinator, tierflow: Any) -> None:
    """F23, N2: what failed and why, and where to look further."""
    import asyncio

    fake.hold = True
    waiting = asyncio.create_task(tierflow("submit", "x", "--wait"))
    await eventually(lambda: fake.swarms)
    cause = failure_pb2.Failure(
        code=failure_pb2.ERROR_CODE_HANDLER_FAILED, message="card declined", step_id="pay", attempt=3
    )
    await fake.finish(
        "swarm-1",
        "FAILED",
        failure_pb2.Failure(code=failure_pb2.ERROR_CODE_STEP_FAILED, message="step pay failed", cause=cause),
    )
    said = await waiting
    assert (said.code, said.out) == (1, "")
    assert "step pay failed, because: card declined (step pay, attempt 3)" in said.err
    assert "tierflow describe swarm-1" in said.err


async def test_steering_says_how_it_stands(fake: FakeCoordinator, tierflow: Any) -> None:
    """N8: one command each, by the id of the swarm or of its run, with a reason that is kept."""
    fake.hold = True
    await tierflow("submit", "x")
    fake.answers["GetRun"] = api.GetRunResponse(run=Run(context=ExecutionContext(run_id="run-1", swarm_id="swarm-1")))
    for verb, answer in (
        ("Pause", api.PauseSwarmResponse),
        ("Resume", api.ResumeSwarmResponse),
        ("Cancel", api.CancelSwarmResponse),
        ("Stop", api.StopSwarmResponse),
    ):
        fake.answers[f"{verb}Swarm"] = answer(applied=verb != "Resume")
        said = await tierflow(verb.lower(), "run-1" if verb == "Stop" else "swarm-1", "--reason", "why not")
        assert said.code == 0, said.err
        assert said.out.startswith("swarm-1  RUNNING")
        assert ("nothing to change" in said.out) == (verb == "Resume")
        request = next(request for name, request in fake.calls if name == f"{verb}Swarm")
        assert (request.swarm_id, request.reason, len(request.command_id)) == ("swarm-1", "why not", 36)
    said = await tierflow("cancel", "swarm-1", "--json")
    assert json.loads(said.out) == [{"swarm_id": "swarm-1", "applied": True, "state": "RUNNING"}]
    fake.answers.pop("GetRun")
    assert (await tierflow("cancel", "nothing")).code == 66


async def test_watch_shows_events_as_lines(fake: FakeCoordinator, tierflow: Any) -> None:
    """H22, N8: one line per event; JSON lines for programs; exit code by the end."""
    await tierflow("submit", "x")
    source = event_pb2.EventSource(kind="run", entity_id="run-1", swarm_id="swarm-1", run_id="run-1")
    failure = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_HANDLER_FAILED, message="card declined")
    events = [
        event_pb2.Event(
            seq=1,
            run_state_changed=event_pb2.RunStateChanged(
                **{"from": state_pb2.RUN_STATE_QUEUED, "to": state_pb2.RUN_STATE_RUNNING}
            ),
        ),
        event_pb2.Event(seq=2, step_id="pay", attempt=1, step_scheduled=event_pb2.StepScheduled(executor_id="exec-1")),
        event_pb2.Event(seq=3, step_id="pay", attempt=2, step_failed=event_pb2.StepFailed(failure=failure)),
    ]
    end = event_pb2.SwarmEnded(
        **{"from": state_pb2.SWARM_STATE_RUNNING, "to": state_pb2.SWARM_STATE_FAILED, "failure": failure}
    )
    script = [
        api.WatchSwarmResponse(ready=api.WatchReady()),
        api.WatchSwarmResponse(batch=event_pb2.EventBatch(source=source, events=events), resume_token="t1"),
        api.WatchSwarmResponse(batch=event_pb2.EventBatch(source=event_pb2.EventSource(entity_id="swarm-1", swarm_id="swarm-1"), events=[event_pb2.Event(seq=1, swarm_ended=end)]), resume_token="t2"),
    ]  # fmt: skip
    fake.watches = [script]
    said = await tierflow("watch", "swarm-1")
    assert said.code == 1, said.err
    lines = [" ".join(line.split()[1:]) for line in said.out.splitlines()]
    assert lines == [
        "run QUEUED -> RUNNING",
        "pay SCHEDULED on exec-1",
        "pay FAILED: card declined (attempt 2)",
        "swarm RUNNING -> FAILED: card declined",
    ]
    fake.watches = [script]
    said = await tierflow("watch", "swarm-1", "--json")
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [record["type"] for record in records] == [
        "run_state_changed",
        "step_scheduled",
        "step_failed",
        "swarm_ended",
    ]
    assert records[-1]["resume_token"] == "t2"


async def test_runs_are_listed_and_described(fake: FakeCoordinator, tierflow: Any) -> None:
    """Q14, N3: filters are sent; tables are aligned; ids are never cut."""
    context = ExecutionContext(
        run_id="0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001",
        swarm_id="swarm-1",
        user_id="ada",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
    )
    run = Run(context=context, state=state_pb2.RUN_STATE_RUNNING, flow_name="greet", flow_version="2", percent=50, counts=StepCounts(total=2, completed=1, running=1), usage=Usage(credits=1_500_000, steps=1))  # fmt: skip
    fake.answers["ListRuns"] = api.ListRunsResponse(runs=[run])
    said = await tierflow("runs", "--state", "running", "-l", "team=x", "--since", "1h")
    assert said.code == 0, said.err
    header, row = said.out.splitlines()
    assert row.startswith("0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001  RUNNING  greet@2  1/2")
    assert header.index("STATE") == row.index("RUNNING")
    sent = fake.calls[0][1].filter
    assert (list(sent.states), dict(sent.labels), sent.HasField("created_after")) == (
        [state_pb2.RUN_STATE_RUNNING],
        {"team": "x"},
        True,
    )
    assert json.loads((await tierflow("runs", "list", "--json")).out)[0]["flow_name"] == "greet"
    step = Step(step_id="pay", kind="call", handler="billing.charge", state=state_pb2.STEP_STATE_RUNNING, attempts=1)
    fake.answers["GetRun"] = api.GetRunResponse(run=run)
    fake.answers["ListSteps"] = api.ListStepsResponse(steps=[step])
    for said in (await tierflow("runs", "describe", context.run_id), await tierflow("describe", context.run_id)):
        assert said.code == 0, said.err
        assert TRACE in said.out
        assert "1.5 credits, 1 step" in said.out
        assert "billing.charge" in said.out
        assert "2: 1 running, 1 completed" in said.out


async def test_reading_commands_read(fake: FakeCoordinator, tierflow: Any) -> None:
    """N4, Q27, N1: queue, executors, logs, flows; each with --json."""
    fake.answers["GetQueue"] = api.GetQueueResponse(
        total=41, queued=41, runs=runs_api.GetRunQueueResponse(slots=64, waiting_steps={"a.b": 7})
    )
    hello = ExecutorHello(
        name="exec-1", slots=64, handlers=[HandlerInfo(name="a.b", description="Does b.", side_effecting=True)]
    )
    fake.answers["ListExecutors"] = api.ListExecutorsResponse(
        executors=[runs_api.ConnectedExecutor(hello=hello, address="127.0.0.1:7703", slots_used=3)]
    )
    line = LogLine(stream="stdout", text="hello there")
    fake.answers["ListLogs"] = api.ListLogsResponse(
        attempts=[runs_api.AttemptLog(step_id="pay", attempt=1, lines=[line])]
    )
    flow = flow_pb2.Flow(
        name="greet", version="2", hash="ab" * 32, definition_json='{"name": "greet"}', steps=2, handlers=["a.b"]
    )
    fake.answers["ListFlows"] = api.ListFlowsResponse(flows=[flow])
    fake.answers["GetFlow"] = api.GetFlowResponse(flow=flow)
    for arguments, words in (
        (("queue",), ["41", "a.b", "7"]),
        (("executors",), ["exec-1", "3/64", "a.b"]),
        (("executors", "--handlers"), ["side-effecting", "Does b."]),
        (("logs", "run-1", "pay"), ["pay", "attempt 1", "hello there"]),
        (("flows", "list"), ["greet", "2", "abababababab"]),
        (("flows", "show", "greet@2"), ["greet@2", "ab" * 32]),
    ):
        said = await tierflow(*arguments)
        assert said.code == 0, said.err
        for word in words:
            assert word in said.out, (arguments, said.out)
        said = await tierflow(*arguments, "--json")
        assert json.loads(said.out), said.out


async def test_flows_are_checked_with_all_problems(fake: FakeCoordinator, tierflow: Any, tmp_path: Path) -> None:
    """F29: every problem with its line, as compilers print them; 64 for a bad flow, 66 for missing handlers."""
    path = tmp_path / "flow.yaml"
    path.write_text("name: x\n")
    problems = [
        failure_pb2.Violation(field="steps", description="are missing", line=3),
        failure_pb2.Violation(field="version", description="is missing"),
    ]
    fake.answers["CheckFlow"] = api.CheckFlowResponse(check=flow_pb2.FlowCheck(problems=problems))
    said = await tierflow("flows", "check", str(path))
    assert said.code == 64
    assert said.out.splitlines() == [f"{path}:3: steps: are missing", f"{path}: version: is missing"]
    fake.answers["CheckFlow"] = api.CheckFlowResponse(check=flow_pb2.FlowCheck(missing_handlers=["a.b"]))
    assert (await tierflow("flows", "check", str(path))).code == 66
    fake.answers["RegisterFlow"] = api.RegisterFlowResponse(flow=flow_pb2.Flow(name="x", version="1"), created=True)
    said = await tierflow("flows", "register", str(path))
    assert (said.code, said.out.split()[0]) == (0, "x@1")
    fake.errors["RegisterFlow"] = rich(grpc.StatusCode.ALREADY_EXISTS, "Other content.", reason="ALREADY_EXISTS")
    assert (await tierflow("flows", "register", str(path))).code == 65


def test_the_command_has_no_engine() -> None:
    """N1, Lesson 19: no module of the command imports an engine; it has the SDK, the contracts, the kit for files, and processes to start."""
    allowed = {"tierflow", "tierflow_cli", "tierflow_contracts", "tierflow_kit", "tierflow_testing"}
    for path in Path(str(tierflow_cli.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            ours = {name.split(".")[0] for name in names if name.startswith("tierflow")}
            assert ours <= allowed, (path, ours)


def test_every_command_has_help_and_loads() -> None:
    """B7: the table of commands is true; help needs no command to be loaded, and no command needs gRPC to be loaded."""
    from click.testing import CliRunner
    from tierflow_cli.main import _COMMANDS, main

    for module, name, summary in _COMMANDS.values():
        command = getattr(importlib.import_module(f"tierflow_cli.{module}"), name)
        assert command.help
        assert summary
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    code = "import sys; from tierflow_cli import main, local, demo; assert not {'grpc', 'rich', 'pydantic'} & set(sys.modules), 'eager'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.00087, "870 us"),
        (0.0123, "12 ms"),
        (3.44, "3.4 s"),
        (125, "2 min 05 s"),
        (11520, "3 h 12 min"),
        (4 * 86400 + 7300, "4 d 2 h"),
        (86400, "1 d"),
    ],
)
def test_durations_are_humane(seconds: float, expected: str) -> None:
    """N8: durations as one would say them."""
    assert text.span(seconds) == expected


def test_credits_are_exact() -> None:
    """A9: micro-credits are never shown rounded."""
    assert [text.credits_(micro) for micro in (1, 1_500_000, 2_000_000, -250_000)] == [
        "0.000001 credits",
        "1.5 credits",
        "2 credits",
        "-0.25 credits",
    ]


def test_the_page_of_the_command_is_true() -> None:
    """N8: docs/cli.md names every command and every exit code that there is."""
    from tierflow_cli import connection
    from tierflow_cli.main import _COMMANDS

    page = (Path(__file__).resolve().parents[3] / "docs/cli.md").read_text()
    for name in _COMMANDS:
        assert f"tierflow {name}" in page
    rows = {
        int(line.split("|")[1])
        for line in page.splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    }
    own = {value for name, value in vars(connection).items() if name.isupper() and isinstance(value, int)}
    assert rows == own | {0, 2}
