"""Service processes and the stack, with a stand-in for the services."""

import asyncio
import pathlib
import signal
import time

import psutil
import pytest
from tierflow_testing import children, stack
from tierflow_testing.errors import StartFailed
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MODULE = "stand_in_service"
MODULES = {stack.COORDINATOR: MODULE, stack.ORCHESTRATOR: MODULE, stack.EXECUTOR: MODULE}


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent))


@pytest.fixture
def service(tmp_path: pathlib.Path):
    process = ServiceProcess("orchestrator-0", MODULE, {"TIERFLOW_SLOTS": "7"}, directory=tmp_path)
    yield process
    process.stop(1)


def test_ready_line_is_waited_for(service: ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """O2: a started service serves; it knows its name, address and settings, and none of the developer's own."""
    monkeypatch.setenv("TIERFLOW_DATABASE_URL", "postgresql://somebody/else")
    service.start()
    known = service.lines()[0]["environment"]
    assert known["TIERFLOW_NAME"] == "orchestrator-0"
    assert known["TIERFLOW_ADVERTISE"] == service.address
    assert known["TIERFLOW_SLOTS"] == "7"
    assert "TIERFLOW_DATABASE_URL" not in known


def test_failed_start_shows_the_log(service: ServiceProcess) -> None:
    """O2, L5: the error of a failed start has the exit code and what the process said."""
    service.configure(STAND_IN_BROKEN="1")
    with pytest.raises(StartFailed, match=r"(?s)ended with code 3.*cannot read the configuration"):
        service.start()


def test_stop_drains(service: ServiceProcess) -> None:
    """O2: SIGTERM, and the process ends by itself; a paused one, too."""
    service.start()
    service.pause()
    assert service.stop(60)
    assert service.lines()[-1] == {"event": "drained"}
    assert service.exit_code == 0


def test_kill_and_restart_keep_name_and_port(service: ServiceProcess) -> None:
    """O2: after SIGKILL the same name serves at the same address; the ready line of the dead one does not count."""
    service.start()
    first, address = service.pid, service.address
    service.kill()
    assert service.exit_code == -signal.SIGKILL
    assert not service.ready
    service.restart()
    assert service.pid != first
    assert service.address == address
    assert [line["event"] for line in service.lines()] == ["ready", "ready"]


def test_pause_freezes(service: ServiceProcess) -> None:
    """O2, J5: a paused process is alive and does nothing until it is resumed."""
    service.start()
    service.pause()
    deadline = time.monotonic() + 60
    while psutil.Process(service.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
    assert service.running
    service.resume()
    assert service.stop(60)


async def test_supervised_comes_back(tmp_path: pathlib.Path) -> None:
    """R12: a supervised process that dies is started again under its name; one that was stopped is not."""
    process = ServiceProcess("coordinator-0", MODULE, directory=tmp_path, supervised=True)
    await asyncio.to_thread(process.start)
    first = process.pid
    process.kill()
    await eventually(lambda: process.ready and process.pid != first)
    assert process.restarts == 1
    process.stop()
    assert not process.running
    with pytest.raises(AssertionError):
        await eventually(lambda: process.running, 0.5)


def test_stack_starts_all_and_stops_all(make_stack) -> None:
    """O2, O3: every service of a stack serves, knows the others, and none is left after the stop."""
    running: Stack = make_stack(
        coordinators=2, orchestrators=2, executors=2, modules=MODULES, handlers=["a", "b"], slots=5
    )
    environments = {service.name: service.lines()[0]["environment"] for service in running.services}
    assert sorted(environments) == [
        f"{tier}-{n}" for tier in ("coordinator", "executor", "orchestrator") for n in (0, 1)
    ]
    assert environments["orchestrator-0"]["TIERFLOW_EXECUTORS"] == ",".join(e.address for e in running.executors)
    assert environments["coordinator-1"]["TIERFLOW_ORCHESTRATORS"] == ",".join(o.address for o in running.orchestrators)
    assert environments["executor-0"]["TIERFLOW_HANDLERS"] == "a,b"
    assert environments["executor-0"]["TIERFLOW_SLOTS"] == "5"
    assert "TIERFLOW_DATABASE_URL" not in environments["executor-0"]
    pids = [service.pid for service in running.services]
    running.stop()
    assert all(children.gone(pid, "", timeout=0.1) for pid in pids)
    assert all(service.exit_code == 0 for service in running.services)


def test_stack_keeps_its_data(server_directory: pathlib.Path) -> None:
    """O2: a second start in the same directory finds the database of the first."""
    options = stack.StackOptions(modules=MODULES)
    with Stack(server_directory / "kept", options) as first:
        first.postgres.execute("CREATE TABLE left_behind (a int)", "tierflow")
    with Stack(server_directory / "kept", options) as second:
        assert second.postgres.execute("SELECT count(*) FROM left_behind", "tierflow") == "0"


def test_failed_stack_leaves_nothing(make_stack) -> None:
    """O2: when one service fails, the others are stopped and the error names it."""
    prepared: Stack = make_stack(modules=MODULES, orchestrator_environment={"STAND_IN_BROKEN": "1"}, start=False)
    with pytest.raises(StartFailed, match="orchestrator-0 ended with code 3"):
        prepared.start()
    assert not any(service.running for service in prepared.services)


def test_failed_migration_is_shown(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I16: the stack does not start over a failed migration."""
    monkeypatch.setenv("STAND_IN_MIGRATE_CODE", "2")
    with pytest.raises(StartFailed, match=r"migration failed:\nmigrating postgresql://nowhere"):
        stack.migrate("postgresql://nowhere", tmp_path, MODULES)
