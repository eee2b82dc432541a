"""Commands and isolated handlers: limits that hold, and processes that are really gone."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import tempfile
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from tierflow import Context, Rejected, handler
from tierflow.handler import declared
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_executor import sandbox
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request
from tierflow_testing.waiting import PATIENCE, eventually

Serve = Callable[..., Any]
COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


def shell(
    command: str | list[str],
    *,
    attempt_id: str = "",
    timeout: float = 120.0,
    limits: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    text = json.dumps({"command": command, **more})
    return a_request("shell.run", text, attempt_id=attempt_id, timeout=timeout, grant_token="gate", **(limits or {}))


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def leftovers() -> list[pathlib.Path]:
    """Directories of commands."""
    return list(pathlib.Path(tempfile.gettempdir()).glob("tierflow-*"))


async def the_pids(path: pathlib.Path, count: int, timeout: float = PATIENCE) -> list[int]:
    """The process ids that a command has written into a file."""

    def written() -> list[int]:
        pids = [int(line) for line in path.read_text().split()] if path.exists() else []
        return pids if len(pids) == count else []

    return await eventually(written, timeout)


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory in which commands, which run as users of their own, can write."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() != "root" or directory != pathlib.Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011) if os.geteuid() == 0 and str(directory).startswith(
                "/tmp/"
            ) else None
    tmp_path.chmod(0o777)
    return tmp_path


async def test_a_command(serve: Serve) -> None:
    """L15, Q27: output, exit code, usage; its lines are in the log; it ran in a directory of its own that is gone."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(shell("cat; echo err >&2; pwd; touch file; ls", stdin="in\n"))
        assert result.state == COMPLETED, result.failure
        output = json.loads(result.output.json)
        first, directory, listing = output["stdout"].split()
        assert (first, output["stderr"], listing, output["exit_code"]) == ("in", "err\n", "file", 0)
        assert directory not in [str(each) for each in leftovers()]
        assert ("stdout", "in") in [(line.stream, line.text) for line in result.logs]
        assert ("stderr", "err") in [(line.stream, line.text) for line in result.logs]
        assert result.usage.memory_bytes > 0
        assert result.usage.cpu_time.nanos > 0


async def test_exit_codes(serve: Serve) -> None:
    """F22: another exit code than those that are fine is a failure; a program that does not exist is refused for good."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(shell("exit 3", ok_exit_codes=[0, 3]))).output.json)["exit_code"] == 3
        failed = await peer.run(shell("echo why; exit 3"))
        assert (code(failed), failed.failure.retryable) == ("HANDLER_FAILED", True)
        assert "exit code 3" in failed.failure.message
        assert [line.text for line in failed.logs] == ["why"]
        assert "SIGSEGV" in (await peer.run(shell("kill -SEGV $$"))).failure.message
        missing = await peer.run(shell(["/no/such/program"]))
        assert (code(missing), missing.failure.retryable) == ("HANDLER_REJECTED", False)
        assert json.loads((await peer.run(shell(["echo", "$HOME; ls"]))).output.json)["stdout"] == "$HOME; ls\n"


async def test_output_is_bounded(serve: Serve) -> None:
    """Q27, Lesson 27: a megabyte of each stream is kept, and a note says that it was cut; what is not UTF-8 or NUL does no harm."""
    served = await serve()
    async with Peer(served.address, "one", blobs="127.0.0.1:1") as peer:
        request = shell("head -c 3000000 /dev/zero | tr '\\0' x | head -c 20; printf 'a\\0b\\377'")
        output = json.loads((await peer.run(request)).output.json)
        assert output["stdout"] == "x" * 20 + "a\ufffdb\ufffd"
    from tierflow_executor.handlers import shell as module

    class Silent:
        pass

    kept = module._Kept("stdout", Silent())  # type: ignore[arg-type]
    for _ in range(3):
        kept.take(b"y" * 600_000)
    text = kept.finish()
    assert kept.truncated
    assert text.startswith("y" * 1_000_000)
    assert text.endswith("bytes are kept]")
    assert len(text.partition("\n")[0]) == 1 << 20


async def test_secrets_are_out_of_sight(serve: Serve, monkeypatch: pytest.MonkeyPatch, shared: pathlib.Path) -> None:
    """L15: a command sees the environment it was given and nothing else: not the executor's, not another step's, nor another step's files."""
    monkeypatch.setenv("SECRET_CANARY", "canary-1")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        request = shell(
            f"pwd > {shared}/where; chmod 644 {shared}/where; echo private > file; echo $OWN; sleep 60",
            env={"OWN": "canary-2"},
        )
        peer.start(request)
        directory = await eventually(
            lambda: (shared / "where").read_text().strip() if (shared / "where").exists() else ""
        )
        look = (
            f"env; cat /proc/{os.getpid()}/environ /proc/[0-9]*/environ; cat {directory}/file; ls /proc/self/fd; exit 0"
        )
        output = json.loads((await peer.run(shell(look))).output.json)
        assert "canary" not in output["stdout"]
        assert "private" not in output["stdout"]
        assert {line.partition("=")[0] for line in output["stdout"].splitlines() if "=" in line} <= {"PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}  # fmt: skip
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=request.context.attempt_id)])
        await peer.result(request.context.attempt_id)


SPREADS = {
    "child": "echo $$ >> {0}; sleep 60",
    "group": "echo $$ >> {0}; sleep 60 & echo $! >> {0}; wait",
    "session": "setsid sh -c 'echo $$ >> {0}; sleep 60' & echo $$ >> {0}; wait",
    "orphan": "(setsid sh -c 'echo $$ >> {0}; exec sleep 60' &) ; echo $$ >> {0}; sleep 60",
    "deaf": "trap '' TERM INT HUP; echo $$ >> {0}; while :; do sleep 1; done",
}
COUNTS = {"child": 1, "group": 2, "session": 2, "orphan": 2, "deaf": 1}


ALONE = ("child", "deaf")  # the command itself is what runs: when it ends there is nothing left to kill
CASES = [
    (spread, how) for spread in SPREADS for how in ("cancel", "timeout", "end") if how != "end" or spread not in ALONE
]


@pytest.mark.parametrize(("spread", "how"), CASES)
async def test_nothing_of_a_command_survives(serve: Serve, shared: pathlib.Path, spread: str, how: str) -> None:
    """F32, G1, Lesson 14, Lesson 32: cancelled, over its timeout or ended: the whole process tree is gone, detached processes and deaf ones included."""
    served = await serve()
    path = shared / "pids"
    command = SPREADS[spread].format(path)
    if how == "end":
        command = (
            command.replace("; wait", "; sleep 0.3").replace("; sleep 60'", "; sleep 60'").removesuffix("; sleep 60")
        )
        command += f"; while [ $(wc -l < {path}) -lt 2 ]; do :; done"
    async with Peer(served.address, "one") as peer:
        for timeout in (1.0, 10.0, 60.0) if how == "timeout" else (120.0,):
            path.unlink(missing_ok=True)
            request = shell(command, timeout=timeout)
            peer.start(request)
            try:
                pids = await the_pids(path, COUNTS[spread], timeout)
                break
            except AssertionError:  # a slow machine: it was over before all of it had begun
                await peer.result(request.context.attempt_id)
        if how == "cancel":
            assert alive(pids) == pids
            peer.send(cancel=[pb.CancelStepRequest(attempt_id=request.context.attempt_id)])
        result = await peer.result(request.context.attempt_id)
        assert alive(pids) == []
        expected = {"cancel": (CANCELLED, "CANCELLED"), "timeout": (FAILED, "TIMEOUT"), "end": (COMPLETED, "")}[how]
        assert (result.state, code(result)) == expected
        if how == "cancel":
            receipt = await peer.item("cancelled", request.context.attempt_id)
            assert receipt.receipt == pb.CANCEL_RECEIPT_STOPPED


async def test_memory_is_limited(serve: Serve) -> None:
    """D10, D5: a command, and one that spreads it over children, is killed beyond its memory and fails with MEMORY_EXCEEDED; one below is not."""
    served = await serve()
    grow = "import time; x = bytearray(b'x') * {} ; time.sleep({})"
    async with Peer(served.address, "one") as peer:
        limits = {"memory_bytes": 100 << 20}
        within = await peer.run(shell(["python3", "-c", grow.format(50 << 20, 0)], limits=limits))
        assert within.state == COMPLETED, within.failure
        assert within.usage.memory_bytes > 50 << 20
        over = await peer.run(shell(["python3", "-c", grow.format(150 << 20, 60)], limits=limits))
        assert (code(over), over.failure.retryable) == ("MEMORY_EXCEEDED", False)
        one = f'python3 -c "{grow.format(45 << 20, 60)}" &'
        many = await peer.run(shell(f"{one} {one} {one} wait", limits=limits))
        assert code(many) == "MEMORY_EXCEEDED"


async def test_processor_time_and_files_are_limited(serve: Serve) -> None:
    """L15: processor time and the size of files are limited where the input says so."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        spun = await peer.run(shell("while :; do :; done", cpu_seconds=1))
        assert "processor time" in spun.failure.message
        assert 0.8 < spun.usage.cpu_time.ToMilliseconds() / 1000 < 3
        written = await peer.run(shell("head -c 1000000 /dev/zero > file; wc -c < file", file_bytes=1000))
        assert json.loads(written.output.json)["stdout"].strip() == "1000"


async def test_output_is_a_sign_of_life(serve: Serve) -> None:
    """K9: a command that writes is alive; one that is silent is stopped at its heartbeat timeout."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        for scale in (1, 5, 25):  # a slow machine is silent for longer; still, less than the whole takes
            beat = f"for i in 1 2 3 4 5 6; do echo $i; sleep {0.2 * scale}; done"
            beaten = await peer.run(shell(beat, limits={"heartbeat_timeout": 0.8 * scale}))
            if beaten.state == COMPLETED:
                break
        assert beaten.state == COMPLETED
        assert code(await peer.run(shell("sleep 60", limits={"heartbeat_timeout": 0.3}))) == "HEARTBEAT_TIMEOUT"


async def test_a_test_run_only_pretends(serve: Serve, shared: pathlib.Path) -> None:
    """L12: in test mode nothing is run."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(shell(f"touch {shared}/made", limits={"test_mode": True}))
        assert json.loads(result.output.json)["pretended"]
        assert not (shared / "made").exists()


async def test_the_sandbox_itself_is_killed(serve: Serve, shared: pathlib.Path) -> None:
    """Lesson 17, F28: when the supervisor dies, its command dies with it, and the attempt fails instead of running for ever."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        request = shell(f"echo $$ >> {shared}/pids; sleep 60")
        peer.start(request)
        [pid] = await the_pids(shared / "pids", 1)
        directory = psutil.Process(pid).cwd()
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        assert (await peer.result(request.context.attempt_id)).state == FAILED
        await eventually(lambda: alive([pid]) == [])
        assert directory not in [str(each) for each in leftovers()]


async def test_many_commands_at_once(serve: Serve) -> None:
    """F27, L15: commands side by side keep to themselves."""
    served = await serve(slots=8)
    async with Peer(served.address, "one") as peer:
        requests = [shell(f"echo {number} > f; cat f; whoami 2>/dev/null; id -u") for number in range(16)]
        peer.start(*requests)
        for number, request in enumerate(requests):
            result = await peer.result(request.context.attempt_id)
            assert json.loads(result.output.json)["stdout"].split()[0] == str(number)


async def test_a_second_cancel_kills_at_once() -> None:
    """G1: whoever waits for a command and is cancelled twice still leaves nothing behind."""
    lines: list[bytes] = []
    command = sandbox.Command(
        argv=["/bin/sh", "-c", "trap '' TERM; echo $$; sleep 60"], env={"PATH": sandbox.MINIMAL_PATH}
    )
    running = asyncio.create_task(sandbox.run(command, lambda _, chunk: lines.append(chunk)))
    await eventually(lambda: lines)
    running.cancel()
    await asyncio.wait((running,), timeout=0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert alive([int(lines[0])]) == []


@handler("isolated.grow", isolate=True)
def grow(context: Context, size: int) -> int:
    """Takes memory."""
    return len(bytearray(b"x") * size)


@handler("isolated.spin", isolate=True)
def spin(context: Context, path: str) -> None:
    """Never looks whether it is to stop."""
    pathlib.Path(path).write_text(str(os.getpid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    while True:
        pass


@handler("isolated.crash", isolate=True)
def crash() -> None:
    """Takes its process down."""
    os.kill(os.getpid(), signal.SIGSEGV)


@handler("isolated.talk", isolate=True)
async def talk(context: Context, name: str) -> dict[str, Any]:
    """Uses all of the context."""
    context.progress(50, "half", n=1)
    context.heartbeat({"at": name})
    context.log.info("hello %s", name)
    print("printed")
    context.spend(5, tool_calls=1)
    return {"pid": os.getpid(), "key": context.idempotency_key, "last": context.last_heartbeat}


@handler("isolated.refuse", isolate=True)
def refuse() -> None:
    """Refuses."""
    raise Rejected("never")


@pytest.fixture
def isolated(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The handlers above, in a module that a new process can import."""
    module = tmp_path / "isolated_handlers.py"
    module.write_text(pathlib.Path(__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    name = importlib.import_module("isolated_handlers").__name__
    return [each for each in declared() if each.module == name]


async def test_isolated_handlers(serve: Serve, isolated: list[Any], tmp_path: pathlib.Path) -> None:
    """F27, F32, D10, Q3, Q27: in a process of its own a handler can do all that others can, can crash, take too much memory, and be killed while it is deaf."""
    served = await serve()
    for each in isolated:
        served.engine.registry.add(each)
    async with Peer(served.address, "one") as peer:
        request = a_request("isolated.talk", '{"name": "ann"}', credits=100)
        request.input.last_heartbeat.json = '"before"'
        result = await peer.run(request)
        assert result.state == COMPLETED, result.failure
        output = json.loads(result.output.json)
        assert output["pid"] != os.getpid()
        assert output["key"] == request.context.idempotency_key
        assert output["last"] == "before"
        assert {(line.stream, line.text) for line in result.logs} >= {("info", "hello ann"), ("stdout", "printed")}
        assert (result.usage.credits, result.usage.tool_calls, result.allocation_returned.credits) == (5, 1, 95)
        assert json.loads(result.last_heartbeat.json) == {"at": "ann"}
        assert peer.items("progress", request.context.attempt_id)[-1].message == "half"

        assert (
            await peer.run(a_request("isolated.grow", '{"size": 1000}', memory_bytes=1 << 30))
        ).output.json == "1000"
        grown = await peer.run(a_request("isolated.grow", '{"size": 2000000000}', memory_bytes=300 << 20, timeout=30))
        assert code(grown) == "MEMORY_EXCEEDED"
        assert "exit code -11" in (await peer.run(a_request("isolated.crash"))).failure.message
        assert code(await peer.run(a_request("isolated.refuse"))) == "HANDLER_REJECTED"
        assert code(await peer.run(a_request("isolated.grow", '{"size": "x"}'))) == "INPUT_INVALID"

        path = tmp_path / "pid"
        request = a_request("isolated.spin", json.dumps({"path": str(path)}), timeout=30)
        peer.start(request)
        pid = int(await eventually(lambda: path.read_text() if path.exists() else ""))
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=request.context.attempt_id)])
        assert (await peer.item("cancelled", request.context.attempt_id)).receipt == pb.CANCEL_RECEIPT_STOPPED
        assert alive([pid]) == []
