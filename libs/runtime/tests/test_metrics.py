"""Metrics, scraped for real."""

import asyncio
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tierflow_runtime.metrics import SHORTEST_INTERVAL, Metrics
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.supervision import Supervisor
from tierflow_runtime.values import FailureError


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics("orchestrator")
    yield made
    made.close()


def scrape(port: int) -> dict[str, float]:
    """All samples by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + "".join(f"|{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_scrape(metrics: Metrics) -> None:
    """M3, M9: a scrape shows what was counted and measured, what this process is, and its memory and CPU."""
    metrics.counter("runs_total", "Runs.", ("outcome",)).labels("SUCCESS").inc(3)
    metrics.gauge_of("held", "Held.", lambda: 7)
    metrics.histogram("step_seconds", "Steps.").observe(0.004)
    port = metrics.serve(ServiceSettings(metrics_port=0))
    seen = scrape(port)
    assert seen["tierflow_runs_total|outcome=SUCCESS"] == 3
    assert seen["tierflow_held"] == 7
    assert seen["tierflow_step_seconds_bucket|le=0.005"] == 1
    assert seen["process_resident_memory_bytes"] > 1_000_000
    assert seen["process_cpu_seconds_total"] > 0
    assert any(name.startswith("tierflow_build_info|") and "service=orchestrator" in name for name in seen)


async def test_background_work_is_shown(metrics: Metrics) -> None:
    """B15: the number of background loops is a metric, zero when nothing runs."""
    async with Supervisor() as supervisor:
        metrics.watch_supervisor(supervisor)
        supervisor.loop("other", asyncio.Event().wait)
        assert "tierflow_background_tasks 1.0" in metrics.text()
    assert "tierflow_background_tasks 0.0" in metrics.text()


def test_registries_are_apart() -> None:
    """B10: two services in one process, as in tests, do not count for each other."""
    one, other = Metrics("a"), Metrics("b")
    one.counter("x_total", "X.").inc()
    other.counter("x_total", "X.")
    assert "tierflow_x_total 1.0" in one.text()
    assert "tierflow_x_total 0.0" in other.text()


def test_port_in_use(metrics: Metrics) -> None:
    """L5: a metrics port that somebody has is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FailureError) as caught:
        metrics.serve(ServiceSettings(metrics_port=taken.getsockname()[1]))
    assert caught.value.failure.code == "CONFIGURATION"
    assert "TIERFLOW_METRICS_PORT" in caught.value.failure.message


def test_without_a_port_nothing_is_served(metrics: Metrics) -> None:
    """B7: no port, no thread."""
    assert metrics.serve(ServiceSettings()) == 0


async def test_one_sampler_not_too_often(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """M12: there is one sampler, it looks at everything that was added in one go, and never more than every five seconds."""
    waited: list[float] = []
    looked: list[str] = []
    real = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        waited.append(seconds)
        await real(0)

    monkeypatch.setattr("tierflow_runtime.metrics.asyncio.sleep", no_sleep)
    metrics.sample(lambda: looked.append("a"))
    metrics.sample(lambda: looked.append("b"))
    sampler = asyncio.create_task(metrics.run_sampler(0.01))
    while len(looked) < 6:
        await real(0)
    sampler.cancel()
    await asyncio.gather(sampler, return_exceptions=True)
    assert looked[:6] == ["a", "b"] * 3
    assert set(waited) == {SHORTEST_INTERVAL}
    assert "tierflow_event_loop_lag_seconds" in metrics.text()
