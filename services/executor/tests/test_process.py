"""The executor as a real process: start, drain, death."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import psutil
import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_testing.executor_conformance import CHECKS, check_all
from tierflow_testing.executor_peer import Peer, a_request
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.waiting import eventually

Start = Callable[..., ServiceProcess]
COMPLETED, FAILED = state_pb2.STEP_STATE_COMPLETED, state_pb2.STEP_STATE_FAILED


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def terminate(process: ServiceProcess) -> None:
    os.kill(process.pid, signal.SIGTERM)


async def test_a_real_process_conforms(executor_process: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """A13, A1, G1, R24, R25, R27: the conformance test as anybody runs it, against a process; it offers reflection-independent protobuf only."""
    process = executor_process(TIERFLOW_SLOTS="8")
    assert await check_all(process.address) == 0
    assert capsys.readouterr().out.count("ok  ") == len(CHECKS)


async def test_drain_finishes_what_there_is(executor_process: Start) -> None:
    """Q22, N6, Lesson 24: told to stop it says so, takes nothing new, finishes, delivers, waits for the acknowledgement, and exits 0."""
    process = executor_process(TIERFLOW_DRAIN_UNDER_WAY="0")
    async with Peer(process.address, "one") as peer:
        running, late = a_request("sleep", '{"seconds": 1}'), a_request("echo", "1")
        peer.start(running)
        await peer.item("started", running.context.attempt_id)
        terminate(process)
        await peer.until(lambda: any(frame.draining for frame in peer.frames), "the news of the drain")
        assert [frame.slots for frame in peer.frames if frame.HasField("slots")][-1] == 0
        peer.start(late)
        status = await peer.item("statuses", late.context.attempt_id)
        assert status.state == state_pb2.STEP_STATE_UNSPECIFIED
        assert await peer.stub.ExecuteStep(a_request("echo", "1")).code() is grpc.StatusCode.UNAVAILABLE
        assert (await peer.result(running.context.attempt_id)).state == COMPLETED
        await peer.settled()
        assert process.running, "the result is not acknowledged yet"
        peer.acknowledge(running.context.attempt_id)
        await eventually(lambda: not process.running)
        assert process.exit_code == 0
        assert peer.results(late.context.attempt_id) == []


async def test_results_can_be_fetched_during_the_drain(executor_process: Start) -> None:
    """Q22, R25, S7: an orchestrator, or its successor, that connects while the executor drains still gets its results."""
    process = executor_process()
    async with Peer(process.address, "old") as peer:
        request = a_request("sleep", '{"seconds": 0.5}')
        peer.start(request)
        await peer.settled()
    terminate(process)
    async with Peer(process.address, "new", replaces=["old"]) as peer:
        assert peer.hello.slots == 0
        assert peer.frames[0].draining
        peer.send(adopt=[request.context.attempt_id])
        assert (await peer.result(request.context.attempt_id)).state == COMPLETED
        peer.acknowledge(request.context.attempt_id)
        await eventually(lambda: not process.running)
    assert process.exit_code == 0


async def test_what_is_under_way_when_the_drain_begins_is_taken(executor_process: Start) -> None:
    """Q22: a request that was sent before the orchestrator could know of the drain is not turned away: a deploy costs no attempt."""
    process = executor_process(TIERFLOW_DRAIN_UNDER_WAY="4")
    async with Peer(process.address, "one") as peer:
        first, second = a_request("sleep", '{"seconds": 0.5}'), a_request("echo", "1")
        peer.start(first)
        await peer.settled()
        terminate(process)
        await peer.until(lambda: any(frame.draining for frame in peer.frames), "the news of the drain")
        peer.start(second)
        for request in (first, second):
            assert (await peer.result(request.context.attempt_id)).state == COMPLETED
            peer.acknowledge(request.context.attempt_id)
        await eventually(lambda: not process.running)
    assert process.exit_code == 0


async def test_a_drain_ends(executor_process: Start) -> None:
    """Q22, Lesson 32: what is not done when the drain is over is stopped and says so; the result is still delivered and acknowledged."""
    process = executor_process(TIERFLOW_DRAIN_TIMEOUT="0.3")
    async with Peer(process.address, "one") as peer:
        request = a_request("sleep", '{"seconds": 60}', timeout=90)
        peer.start(request)
        await peer.settled()
        terminate(process)
        result = await peer.result(request.context.attempt_id)
        assert result.state == FAILED
        assert result.failure.retryable
        peer.acknowledge(request.context.attempt_id)
        await eventually(lambda: not process.running)
    assert process.exit_code == 0


async def test_an_idle_executor_ends_at_once(executor_process: Start) -> None:
    """Q22: with nothing to finish the drain takes no time, connected orchestrators or not."""
    process = executor_process(TIERFLOW_DRAIN_TIMEOUT="300")
    async with Peer(process.address, "one") as peer:
        terminate(process)
        await eventually(lambda: not process.running)
        await peer.until(lambda: peer.ended, "the end of the stream")
    assert process.exit_code == 0


@pytest.mark.parametrize("form", ["sleep 60", "setsid sleep 60 & sleep 60"])
async def test_kill_leaves_nothing(executor_process: Start, tmp_path: pathlib.Path, form: str) -> None:
    """Lesson 32, F32: when the executor is killed with -9 none of the processes that it started survives, and no directory."""
    process = executor_process()
    async with Peer(process.address, "one") as peer:
        peer.start(a_request("shell.run", json.dumps({"command": form}), timeout=90, grant_token="gate"))

        def sleeping() -> list[psutil.Process]:
            found = psutil.Process(process.pid).children(recursive=True)
            return found if len([each for each in found if each.name() == "sleep"]) == form.count("sleep") else []

        children = await eventually(sleeping)
        directory = psutil.Process(children[-1].pid).cwd()
        os.kill(process.pid, signal.SIGKILL)
        await eventually(lambda: not any(alive(each.pid) for each in children))
        await eventually(lambda: not os.path.exists(directory))


def run_with(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TIERFLOW_PORT": "0", **variables}
    return subprocess.run(
        [sys.executable, "-m", "tierflow_executor"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


MODULES = {
    "missing": (None, "No module named 'missing'"),
    "broken": ("raise RuntimeError('while importing')", "while importing"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "empty": ("x = 1", "declares no handlers"),
    "twice": (
        "from tierflow import handler\nhandler('a')(lambda: 1)\nhandler('a')(lambda: 2)",
        "two handlers are named 'a'",
    ),
    "builtin": ("from tierflow import handler\n@handler('echo')\ndef f(): ...", "two handlers are named 'echo'"),
    "odd": ("from tierflow import handler\n@handler('a')\ndef f(*parts): ...", "parts"),
}


@pytest.mark.parametrize("name", MODULES)
def test_bad_handler_modules(tmp_path: pathlib.Path, name: str) -> None:
    """L5: a module that cannot be used stops the start with exit code 78 and a line that says why."""
    text, expected = MODULES[name]
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    ended = run_with(TIERFLOW_HANDLERS=name, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 78, ended.stdout + ended.stderr
    assert f"TIERFLOW_HANDLERS: {name}" in ended.stderr
    assert expected in ended.stderr


def test_bad_settings() -> None:
    """L5: a setting that is wrong is named."""
    ended = run_with(TIERFLOW_SLOTS="0", TIERFLOW_LABELS="x")
    assert ended.returncode == 78
    assert "TIERFLOW_SLOTS" in ended.stderr
    assert "TIERFLOW_LABELS" in ended.stderr


async def test_user_handlers_labels_and_names(executor_process: Start, tmp_path: pathlib.Path) -> None:
    """Q13, N12: handlers of a user's package, submodules included, are offered with schema and timeout; labels and the stable name are in the hello."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mine import more\nfrom tierflow import handler\n@handler('mine.one')\ndef one(n: int) -> int: return n + 1\n"
    )
    (package / "more.py").write_text(
        "from tierflow import handler\n@handler('mine.two', timeout='1.5s')\nasync def two(): 'Second.'\n"
    )
    process = executor_process(
        "ex-7", TIERFLOW_HANDLERS="mine", PYTHONPATH=str(tmp_path), TIERFLOW_LABELS="zone=a, gpu=no"
    )
    async with Peer(process.address, "one") as peer:
        offered = {each.name: each for each in peer.hello.handlers}
        assert offered["mine.two"].description == "Second."
        assert offered["mine.two"].timeout.ToMilliseconds() == 1500
        assert dict(peer.hello.labels) == {"zone": "a", "gpu": "no"}
        assert peer.hello.name == "ex-7"
        assert (await peer.run(a_request("mine.one", '{"n": 1}'))).output.json == "2"
        described: Any = await peer.stub.DescribeExecutor(pb.DescribeExecutorRequest())  # type: ignore[misc]
        assert described.executor.executor_id == peer.hello.executor_id


async def test_a_new_process_has_a_new_id(executor_process: Start) -> None:
    """R26: an executor of the same name with another id is gone, and its attempts with it: the id changes with each start, and nothing is known."""
    process = executor_process()
    async with Peer(process.address, "one") as peer:
        first = peer.hello.executor_id
        peer.start(a_request("sleep", '{"seconds": 60}', attempt_id="lost", timeout=90))
        await peer.settled()
        process.kill()
    process.start()
    async with Peer(process.address, "one") as peer:
        assert peer.hello.executor_id != first
        peer.send(adopt=["lost"])
        assert (await peer.item("statuses", "lost")).state == state_pb2.STEP_STATE_UNSPECIFIED


async def test_a_drain_waits_for_unary_calls(executor_process: Start) -> None:
    """Q22: a call of the unary form that is under way is answered before the process ends."""
    process = executor_process()
    async with Peer(process.address, "one") as peer:
        call: Any = peer.stub.ExecuteStep(a_request("sleep", '{"seconds": 0.5}'))

        async def busy() -> bool:
            return bool((await peer.stub.DescribeExecutor(pb.DescribeExecutorRequest())).slots_used)  # type: ignore[misc]

        await eventually(busy)
        terminate(process)
        assert (await call).state == COMPLETED
        await eventually(lambda: not process.running)
    assert process.exit_code == 0


async def test_many_commands_at_once_all_run(executor_process: Start) -> None:
    """Q22, G1: what gRPC does around a fork closes no pipe of a command that is being started."""
    process = executor_process()
    async with Peer(process.address, "one") as peer:
        for _ in range(10):
            requests = [a_request("shell.run", '{"command": "true"}', timeout=60, grant_token="gate") for _ in range(4)]
            for request in requests:
                peer.start(request)
            results = [await peer.result(request.context.attempt_id) for request in requests]
            assert [(result.state, result.failure.message) for result in results] == [(COMPLETED, "")] * 4
