"""How things look in a terminal: states, durations, tables, JSON. Colours go where the output is a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_COLOURS = {
    "COMPLETED": "green",
    "SUCCESS": "green",
    "FAILED": "red",
    "FAILURE": "red",
    "TERMINATED": "red",
    "RUNNING": "cyan",
    "SCHEDULED": "cyan",
    "BACKOFF": "yellow",
    "PARTIAL": "yellow",
    "DEGRADED": "yellow",
    "PAUSING": "yellow",
    "PAUSED": "yellow",
    "SUSPENDED": "yellow",
    "STOPPING": "yellow",
    "CANCELLING": "yellow",
    "COMPENSATING": "yellow",
    "STOPPED": "magenta",
    "CANCELLED": "magenta",
}


def name_of(enum: Any, number: int, prefix: str) -> str:
    """Short name of an enum's value, such as RUNNING; its number where this build does not know it."""
    try:
        name: str = enum.Name(number)
    except ValueError:
        return str(number)
    return name.removeprefix(prefix)


def state(name: str) -> str:
    """A state in its colour."""
    colour = _COLOURS.get(name)
    return click.style(name, fg=colour) if colour else name


def dim(text: str) -> str:
    """What is said by the way."""
    return click.style(text, dim=True)


def bold(text: str) -> str:
    """What matters."""
    return click.style(text, bold=True)


def program() -> str:
    """This command as it is typed here: `tierflow` where the shell finds it, else the path by which it was called."""
    return "tierflow" if shutil.which("tierflow") else sys.argv[0]


def count(number: int, thing: str) -> str:
    """A number of things: `1 step`, `3 steps`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def span(seconds: float) -> str:
    """A duration as one would say it: 870 us, 12 ms, 3.4 s, 2 min 05 s, 3 h 12 min, 4 d 2 h."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    hours = whole % 86400 // 3600
    return f"{whole // 86400} d {hours} h" if hours else f"{whole // 86400} d"


def duration(value: Duration) -> str:
    """A duration of a message; a dash where it is zero."""
    seconds = value.seconds + value.nanos / 1e9
    return span(seconds) if seconds else "-"


def moment(value: Timestamp) -> str:
    """A moment of a message in local time."""
    return value.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if value.seconds else "-"


def clock(value: Timestamp | datetime) -> str:
    """The time of day of a moment, in local time, to the millisecond."""
    when = value if isinstance(value, datetime) else value.ToDatetime(UTC)
    return when.astimezone().strftime("%H:%M:%S.%f")[:-3]


def ago(value: Timestamp) -> str:
    """How long ago a moment was."""
    return (
        f"{span(max(0.0, (datetime.now(UTC) - value.ToDatetime(UTC)).total_seconds()))} ago" if value.seconds else "-"
    )


def size(octets: int) -> str:
    """A number of bytes as one would say it."""
    amount = float(octets)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def credits_(micro: int) -> str:
    """Micro-credits as credits, exactly."""
    whole, rest = divmod(abs(micro), 1_000_000)
    text = f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
    return f"{'-' if micro < 0 else ''}{text} credits"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 0) -> None:
    """Prints rows in aligned columns; one in which nothing stands is left out. Nothing is cut off: ids can be copied, long lines wrap in the terminal."""
    headers, cells = _filled(headers, [list(row) for row in rows])
    widths = [max(len(click.unstyle(row[column])) for row in [list(headers), *cells]) for column in range(len(headers))]
    for number, row in enumerate([list(headers), *cells]):
        padded = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
        line = " " * indent + "  ".join(padded).rstrip()
        click.echo(dim(line) if number == 0 else line)


def _filled(headers: Sequence[str], rows: list[list[str]]) -> tuple[Sequence[str], list[list[str]]]:
    """A table without the columns in which nothing stands."""
    if not rows:
        return headers, rows
    used = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    return [headers[column] for column in used], [[row[column] for column in used] for row in rows]


def fields(pairs: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """Prints names and values in two columns, without those that have no value."""
    present = [(name, value) for name, value in pairs if value and value != "-"]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        click.echo(f"{' ' * indent}{dim(name.ljust(width))}  {value}")


def heading(text: str) -> None:
    """A heading with an empty line before it."""
    click.echo(f"\n{bold(text)}")


def plain(message: Message) -> dict[str, Any]:
    """A message as plain JSON values, fields named as in the proto."""
    return MessageToDict(message, preserving_proto_field_name=True)


def print_json(value: Any) -> None:
    """A value, message or sequence of messages as indented JSON."""
    if isinstance(value, Message):
        value = plain(value)
    elif isinstance(value, list | tuple):
        value = [plain(item) if isinstance(item, Message) else item for item in value]
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
