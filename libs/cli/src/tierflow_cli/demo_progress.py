"""What is known of a run by its events, and how that looks in a terminal while it happens."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from tierflow_contracts.orchestrator.v1.run_pb2 import Step

from tierflow_cli import text

if TYPE_CHECKING:
    from tierflow import Event


@dataclass(slots=True)
class Line:
    """One step of the flow, with its items where it is a map."""

    name: str
    total: int = 1
    running: set[str] = field(default_factory=set)
    done: int = 0
    failed: int = 0
    again: int = 0
    """Attempts that were made again."""
    is_map: bool = False
    note: str = ""

    @property
    def ended(self) -> int:
        """How many have ended, well or not."""
        return self.done + self.failed


class Tally:
    """The steps of a run, counted from its events."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.state = ""

    def take(self, event: Event) -> None:
        """Counts one event."""
        message: Any = event.message
        if event.type in ("run_state_changed", "run_ended"):
            from tierflow_cli.describing import run_state

            self.state = run_state(message.to)
        if not event.step_id:
            return
        name = event.step_id.partition("[")[0]
        line = self.lines.setdefault(name, Line(name))
        if event.type == "items_expanded":
            line.is_map, line.total = True, message.count
        elif line.is_map and event.step_id == name:
            return  # the map itself: its items are counted
        self._count(line, event, message)

    @staticmethod
    def _count(line: Line, event: Event, message: Any) -> None:
        if event.type in ("step_scheduled", "step_started"):
            line.running.add(event.step_id)
        elif event.type == "step_retrying":
            line.running.discard(event.step_id)
            line.again += 1
        elif event.type in ("step_completed", "step_failed", "step_skipped", "step_cancelled"):
            line.running.discard(event.step_id)
            if event.type == "step_failed":
                line.failed += 1
            else:
                line.done += 1
        elif event.type == "progress_reported":
            line.note = message.message

    def share(self, name: str) -> float:
        """Share of a step's items that have ended, 0 to 1."""
        line = self.lines.get(name)
        return line.ended / line.total if line is not None and line.is_map and line.total else 0.0


class Display:
    """The tally, live: bars where the output is a terminal, else a line now and then."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._bars: dict[str, Any] = {}
        self._told: dict[str, int] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("  {task.description:<12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._live = Progress(*columns)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self.refresh()
            self._live.stop()

    def refresh(self) -> None:
        """Shows what has changed."""
        for line in self._tally.lines.values():
            if self._live is None:
                self._tell(line)
                continue
            if line.name not in self._bars:
                self._bars[line.name] = self._live.add_task(line.name, total=line.total, note="")
            self._live.update(self._bars[line.name], total=line.total, completed=line.ended, note=note(line))

    def say(self, words: str) -> None:
        """One line among the bars."""
        if self._live is not None:
            self._live.console.print(f"  {words}")
        else:
            click.echo(f"  {words}")

    def _tell(self, line: Line) -> None:
        """At each quarter of a map, and at the end of any step."""
        quarter = 4 * line.ended // line.total if line.total else 4
        if self._told.get(line.name, 0) < quarter:
            self._told[line.name] = quarter
            click.echo(f"  {line.name:<12} {line.ended}/{line.total}  {note(line)}".rstrip())


def note(line: Line) -> str:
    """What there is to say about a step now."""
    parts = [(len(line.running), "running"), (line.failed, "failed"), (line.again, "tried again")]
    words = [f"{number} {word}" for number, word in parts if number]
    return ", ".join(words + ([line.note] if line.note and line.ended < line.total else []))


def spent(steps: Iterable[Step]) -> list[tuple[str, ...]]:
    """Rows that say where the time went, by step of the flow; maps as the sum of their items. The costliest first."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.step_id.partition("[")[0], []).append(step)
    rows = []
    for name, members in groups.items():
        items = [step for step in members if "[" in step.step_id] or members
        times = [step.usage.wall_time.ToMicroseconds() / 1e6 for step in items]
        attempts = sum(step.attempts for step in items)
        rows.append(
            (
                sum(times),
                (name, items[0].handler, str(len(items)), str(attempts), text.span(sum(times)), text.span(max(times))),
            )
        )
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
