"""Services as processes: configuration, readiness, drain, exit codes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVICE = pathlib.Path(__file__).with_name("small_service.py")
DATABASE = "postgresql://u:hidden@127.0.0.1/x"
GOOD = {"TIERFLOW_DATABASE_URL": DATABASE}


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Ours without its settings, and those."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("TIERFLOW_", "OTEL_"))}
    return {**ours, **settings}


@contextmanager
def running(settings: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The small service; killed at the end if it still lives."""
    process = subprocess.Popen(
        [sys.executable, str(SERVICE)],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """Reads its log until the event."""
    assert process.stdout is not None
    for text in process.stdout:
        line = json.loads(text)
        if line["event"] == event:
            return line
    raise AssertionError(f"ended without {event!r}")


def refused(settings: dict[str, str]) -> list[str]:
    """The lines on standard error of a service that does not start for its configuration."""
    with running(settings) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 78
    assert "Traceback" not in out + err
    return err.splitlines()


@pytest.mark.parametrize(
    ("settings", "names", "says"),
    [
        ({}, "TIERFLOW_DATABASE_URL", "is not set; expected postgresql://"),
        ({"TIERFLOW_DATABASE_URL": "mysql://u:hidden@host/x"}, "TIERFLOW_DATABASE_URL", "postgresql://"),
        ({**GOOD, "TIERFLOW_PORT": "70000"}, "TIERFLOW_PORT", "65535"),
        ({**GOOD, "TIERFLOW_PORT": "seven"}, "TIERFLOW_PORT", "a port"),
        ({**GOOD, "TIERFLOW_PORT": "tcp://10.0.0.1:7702"}, "TIERFLOW_PORT", "enableServiceLinks"),
        ({**GOOD, "TIERFLOW_LOG_LEVEL": "loud"}, "TIERFLOW_LOG_LEVEL", "debug, info, warning or error"),
        ({**GOOD, "TIERFLOW_NAME": "a b"}, "TIERFLOW_NAME", "unique within the tier"),
        ({**GOOD, "TIERFLOW_ADVERTISE": "somewhere"}, "TIERFLOW_ADVERTISE", "host:port"),
        ({**GOOD, "TIERFLOW_NATS_URL": "http://x"}, "TIERFLOW_NATS_URL", "nats://"),
        ({**GOOD, "TIERFLOW_DRAIN_TIMEOUT": "-1"}, "TIERFLOW_DRAIN_TIMEOUT", "seconds"),
        ({**GOOD, "TIERFLOW_LEASE_SECONDS": "3"}, "TIERFLOW_LEASE_SECONDS", "TIERFLOW_HEARTBEAT_SECONDS"),
        ({**GOOD, "TIERFLOW_HOST": "0.0.0.0", "TIERFLOW_DEVELOPMENT": "true"}, "TIERFLOW_DEVELOPMENT", "loopback"),
        ({**GOOD, "TIERFLOW_HOST": "192.0.2.1"}, "TIERFLOW_HOST", "no address of this host"),
        ({**GOOD, "TIERFLOW_HOST": "nowhere.invalid"}, "TIERFLOW_HOST", "no address of this host"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_configuration(settings: dict[str, str], names: str, says: str) -> None:
    """L5: a bad setting stops the start with one line that names the variable and what is expected, without a stack or a secret."""
    lines = refused(settings)
    assert len(lines) == 1
    assert lines[0].startswith(f"configuration: {names} ")
    assert says in lines[0]
    assert "hidden" not in lines[0]


def test_all_problems_are_listed() -> None:
    """L5: several bad settings are one line each, all at once."""
    lines = refused({"TIERFLOW_PORT": "x", "TIERFLOW_LOG_LEVEL": "y", "TIERFLOW_TRACE_RATIO": "2"})
    named = {line.split()[1] for line in lines}
    assert named == {"TIERFLOW_PORT", "TIERFLOW_LOG_LEVEL", "TIERFLOW_TRACE_RATIO", "TIERFLOW_DATABASE_URL"}


@pytest.mark.parametrize("variable", ["TIERFLOW_PORT", "TIERFLOW_ADMIN_PORT"])
def test_port_in_use(variable: str) -> None:
    """L5: a port that somebody else has is one line that names the variable, and never shared in silence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lines = refused({**GOOD, variable: str(port)})
    assert len(lines) == 1
    assert f"{variable} is {port}" in lines[0]
    assert "in use" in lines[0]


def test_two_services_on_one_port() -> None:
    """L5, Lesson 35: a second service on the port of the first does not start; the first goes on."""
    with running(GOOD) as first:
        port = wait_for(first, "ready")["port"]
        lines = refused({**GOOD, "TIERFLOW_PORT": str(port)})
        assert f"TIERFLOW_PORT is {port}" in lines[0]
        assert first.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(number: signal.Signals) -> None:
    """Q22, N6, Lesson 24: told to stop, a service drains, says so and exits with 0."""
    with running({**GOOD, "TIERFLOW_NAME": "tier2-a"}) as process:
        ready = wait_for(process, "ready")
        assert ready["port"]
        assert (ready["service"], ready["instance"], ready["level"]) == ("orchestrator", "tier2-a", "info")
        process.send_signal(number)
        assert wait_for(process, "draining")["timeout_seconds"] == 30.0
        wait_for(process, "stopped")
        assert process.wait(timeout=60) == 0


def test_second_signal_ends_at_once() -> None:
    """Q22: whoever does not want to wait says it twice."""
    with running({**GOOD, "TRY": "stuck"}) as process:
        wait_for(process, "ready")
        process.terminate()
        wait_for(process, "draining")
        process.terminate()
        assert process.wait(timeout=60) == 130


def test_a_drain_that_does_not_end_is_cut() -> None:
    """Q22: a drain has an end: beyond its timeout the process leaves with 75, so that its supervisor starts it again."""
    with running({**GOOD, "TRY": "stuck", "TIERFLOW_DRAIN_TIMEOUT": "0"}) as process:
        wait_for(process, "ready")
        process.terminate()
        wait_for(process, "not drained in time")
        assert process.wait(timeout=60) == 75


@pytest.mark.parametrize(
    ("attempt", "code", "event"),
    [
        ("fenced", 75, "ended"),
        ("schema", 78, "ended"),
        ("defect", 70, "ended by a defect"),
        ("loop", 70, "ended by a defect"),
    ],
)
def test_exit_codes(attempt: str, code: int, event: str) -> None:
    """R12, B15, L5: fenced is 75 without a drain, a wrong schema 78, a defect or a crashed loop 70; the log says which."""
    with running({**GOOD, "TRY": attempt}) as process:
        line = wait_for(process, event)
        assert process.wait(timeout=60) == code
    if attempt == "loop":
        assert "in the background: heartbeat" in str(line["stack"])
    if attempt == "fenced":
        assert line["code"] == "FENCED"
