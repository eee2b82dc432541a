"""Reads metrics of services as Prometheus would."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tierflow_testing.processes import ServiceProcess


async def samples(service: ServiceProcess) -> list[Sample]:
    """Everything that one scrape gives."""

    def read() -> str:
        with urllib.request.urlopen(service.metrics_url, timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(read)
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


async def metric(service: ServiceProcess, name: str, **labels: str) -> float:
    """The sum of what has this name and these labels; 0 where nothing has."""
    return sum(
        sample.value
        for sample in await samples(service)
        if sample.name == name and labels.items() <= sample.labels.items()
    )
