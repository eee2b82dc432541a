"""A few sentences on the report by a language model, where one is configured by OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from tierflow import Client

FLOW = "code_report/overview.yaml"
KEY = "OPENAI_API_KEY"
PUBLIC, USUAL_MODEL = "https://api.openai.com/v1", "gpt-4o-mini"


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model is asked."""

    url: str
    name: str
    has_key: bool

    @property
    def secrets(self) -> str:
        """What the executor has to be told, so that the key may be sent there, and only there; the flow never holds it."""
        return f"{KEY}@{urlsplit(self.url).netloc}" if self.has_key else ""


def configured() -> Model | None:
    """The model that the environment names; None where it names none."""
    base, key = os.environ.get("OPENAI_BASE_URL", ""), os.environ.get(KEY, "")
    if not base and not key:
        return None
    return Model(
        f"{(base or PUBLIC).rstrip('/')}/chat/completions", os.environ.get("OPENAI_MODEL", USUAL_MODEL), bool(key)
    )


async def overview(client: Client, examples: Path, figures: dict[str, Any]) -> str:
    """What the model says of the figures; empty where none is configured, or where it did not answer."""
    from tierflow import TierflowError

    model = configured()
    if model is None:
        return ""
    click.echo(f"\nAsking {model.name} at {urlsplit(model.url).netloc} for an overview")
    given = {"url": model.url, "model": model.name, "bearer": KEY if model.has_key else "", "figures": figures}
    try:
        said = await client.run(examples / FLOW, given, labels={"demo": "code-report"})
    except TierflowError as error:
        click.echo(f"  It did not answer; the report goes without: {error}", err=True)
        return ""
    return str(said).strip()
