"""`tierflow demo`, as a newcomer runs it: on a small project, with everything it promises."""

import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytestmark = pytest.mark.slow
MODULE = "def add(a, b):\n    return a + b\n\n\ndef {name}(items):\n    total = 0\n    for item in items:\n        total = add(total, item)\n    return total\n"
FILES = 120


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("project")
    for number in range(FILES):
        (directory / f"module_{number}.py").write_text(MODULE.format(name=f"sum_{number}"))
    return directory


def _demo(
    project: pathlib.Path, data: pathlib.Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tierflow_cli.main", "demo", "--dir", str(project), "--data", str(data), *options]
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TIERFLOW_"))}
    return subprocess.run(
        command, env={**unset, **environment}, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_demo_shows_a_real_report(project: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Q25, O3: starts everything, follows the work, prints and stores the report, says where the time went and how to look further."""
    done = _demo(project, tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "data/code-report.md").read_text()
    assert f"{FILES} files (in the directory, hidden ones left out), {9 * FILES:,} lines" in report
    assert report.strip() in done.stdout
    assert f"analyse      {FILES}/{FILES}" in done.stdout
    assert re.search(rf"analyse +report\.analyse +{FILES} +{FILES} ", done.stdout)
    assert len(set(re.findall(r"trace +([0-9a-f]{32})", done.stdout))) == 1
    for words in (" dev --data", " describe ", " logs ", "grpcurl -plaintext -d"):
        assert words in done.stdout
    assert "overview" not in done.stdout


def test_the_demo_survives_its_kills(project: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """J3, S7, H26, O1, O12, Lesson 5: each service is killed on the way; the journal and the auditor find nothing lost and nothing done twice."""
    done = _demo(project, tmp_path / "data", "--chaos")
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.findall(r"kill -9 \d+: (\w+)-0", done.stdout)
    assert sorted(killed) == ["coordinator", "executor", "orchestrator"]
    assert len(re.findall(r"-0 serves again after", done.stdout)) == 3
    assert done.stdout.count("\n  yes  ") == 6
    assert "Everything holds." in done.stdout
    assert f"{FILES} files" in done.stdout


class _Model(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012 - the server makes one of these per request

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.headers["authorization"], body))
        answer = json.dumps(
            {"choices": [{"message": {"role": "assistant", "content": "Much of it is the same function."}}]}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def model() -> Iterator[ThreadingHTTPServer]:
    _Model.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_adds_its_words(project: pathlib.Path, tmp_path: pathlib.Path, model: ThreadingHTTPServer) -> None:
    """Q19, L16: a configured OpenAI-compatible endpoint is asked by http.request; its key is stored nowhere."""
    url = f"http://127.0.0.1:{model.server_port}/v1"
    done = _demo(project, tmp_path / "data", OPENAI_BASE_URL=url, OPENAI_API_KEY="sk-canary-17", OPENAI_MODEL="small")
    assert done.returncode == 0, done.stdout + done.stderr
    ((authorization, body),) = _Model.asked
    assert (authorization, body["model"]) == ("Bearer sk-canary-17", "small")
    assert json.loads(body["messages"][1]["content"])["files"] == FILES
    assert "\n\nMuch of it is the same function.\n\n" in (tmp_path / "data/code-report.md").read_text()
    places = [tmp_path / "data", (tmp_path / "data/postgres/postgres").resolve()]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "PG_VERSION" for path in files)
    found = [path for path in files if b"sk-canary-17" in path.read_bytes()]
    assert found == []


def test_what_is_not_ours_is_not_thrown_away(project: pathlib.Path) -> None:
    """L14: a directory with somebody's files is refused, whatever is asked for."""
    for command in (["demo", "--data", str(project)], ["dev", "--fresh", "--data", str(project)]):
        done = subprocess.run(
            [sys.executable, "-m", "tierflow_cli.main", *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, "was not made by this command" in done.stderr) == (64, True)
    assert len(list(project.iterdir())) == FILES


async def test_dev_keeps_running_and_ends_cleanly(tmp_path: pathlib.Path) -> None:
    """Q25, N12: starts, says where everything is, starts again what dies, ends by one signal, and has its data at the next start."""
    from tierflow import Client, Unavailable
    from tierflow_testing.ports import free_port
    from tierflow_testing.waiting import eventually

    port, data = free_port(), tmp_path / "data"
    command = [sys.executable, "-m", "tierflow_cli.main", "dev", "--data", str(data), "--port", str(port)]
    log = tmp_path / "out"
    ids = set()
    for _ in range(2):
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
        await eventually(lambda: "Ready in" in log.read_text())
        known = json.loads((data / "addresses.json").read_text())
        assert known["coordinator-0"] == f"127.0.0.1:{port}"
        async with Client(known["coordinator-0"], patience=60) as client:
            handle = await client.submit(
                {"name": "e", "version": "1", "steps": {"e": {"call": "echo", "with": {"a": 1}}}}, request_id="same"
            )
            await handle.result(60)
            ids.add(handle.id)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert not (data / "addresses.json").exists()
    assert len(ids) == 1
    async with Client(f"127.0.0.1:{port}", patience=0) as client:
        with pytest.raises(Unavailable):
            await client.queue()
