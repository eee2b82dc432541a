"""Log lines."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from runtime_samples import run_context
from tierflow_runtime.logs import REDACTED, get_log, ids, set_call_fields, setup_logs

log = get_log("tests")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """What was logged since, as objects."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    setup_logs(level="info", stream=stream, service="orchestrator", instance="t2-a")
    yield lambda: [json.loads(text) for text in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_has_its_ids(lines: Callable[[], list[dict[str, object]]]) -> None:
    """M10, S4: a line is one JSON object with time, level, event, process, and the ids of swarm, run, user and trace."""
    context = run_context()
    log.info("run ended", **ids(context), state="COMPLETED")
    (line,) = lines()
    assert line["event"] == "run ended"
    assert (line["level"], line["component"], line["service"], line["instance"]) == (
        "info",
        "tests",
        "orchestrator",
        "t2-a",
    )
    assert (line["run_id"], line["swarm_id"], line["user"], line["tenant"]) == (
        context.run_id, context.swarm_id, context.user_id, context.tenant,
    )  # fmt: skip
    assert line["trace_id"] == context.traceparent[3:35]
    assert line["state"] == "COMPLETED"
    assert str(line["time"]).endswith("Z")
    assert "step_id" not in line


def test_errors_have_stacks(lines: Callable[[], list[dict[str, object]]]) -> None:
    """M10, F22: an error is on one line with its type and its stack."""
    try:
        raise ValueError("boom\nsecond line")
    except ValueError as error:
        log.error("it failed", error=error, attempt=3)
    (line,) = lines()
    assert line["error"] == "ValueError: boom\nsecond line"
    assert "test_errors_have_stacks" in str(line["stack"])
    assert line["attempt"] == 3


def test_secrets_are_redacted(lines: Callable[[], list[dict[str, object]]]) -> None:
    """L16: fields that are secrets by their name are never written, nested ones included; counts of tokens are no secrets."""
    log.info(
        "call", api_key="k1", headers={"Authorization": "k2", "accept": "x"}, db_password="k3", input_tokens=7, token=""
    )
    (line,) = lines()
    assert "k1" not in str(line)
    assert "k2" not in str(line)
    assert "k3" not in str(line)
    assert line["headers"] == {"Authorization": REDACTED, "accept": "x"}
    assert (line["input_tokens"], line["token"]) == (7, "")


def test_levels(lines: Callable[[], list[dict[str, object]]]) -> None:
    """M10: what is below the level is not written; other libraries' lines have the same form."""
    log.debug("unseen")
    logging.getLogger("nats").info("unseen")
    logging.getLogger("other").warning("value is %s", 3)
    assert [(line["event"], line["component"]) for line in lines()] == [("value is 3", "other")]


def test_anything_can_be_logged(lines: Callable[[], list[dict[str, object]]]) -> None:
    """F27: a field that is not JSON, or very long, does not break the line or the caller."""
    log.info("odd", thing=object(), many={1: 2}, long="x" * 100_000)
    (line,) = lines()
    assert "object at" in str(line["thing"])
    assert len(str(line["long"])) <= 8192


async def test_fields_of_a_call_stay_with_it(lines: Callable[[], list[dict[str, object]]]) -> None:
    """L4, M10: two calls at once never have each other's ids on their lines."""
    turn = asyncio.Barrier(2)

    async def call(request_id: str) -> None:
        set_call_fields({"request_id": request_id})
        await turn.wait()
        log.info("said", by=request_id)

    await asyncio.gather(asyncio.create_task(call("a")), asyncio.create_task(call("b")))
    log.info("outside")
    assert [(line.get("request_id"), line.get("by")) for line in lines()] in (
        [("a", "a"), ("b", "b"), (None, None)],
        [("b", "b"), ("a", "a"), (None, None)],
    )
