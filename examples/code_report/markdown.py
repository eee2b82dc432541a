"""The figures of the report and how they are written."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from code_report.blocks import Repeated


class FunctionFigure(BaseModel):
    """A function: where it begins and how long it is."""

    path: str
    name: str
    line: int
    lines: int


class Debt(BaseModel):
    """A note that something is left to do."""

    path: str
    line: int
    kind: str
    text: str


class FileFigure(BaseModel):
    """A file and its size."""

    path: str
    lines: int
    bytes: int


class LanguageFigure(BaseModel):
    """All files of one language."""

    language: str
    files: int = 0
    lines: int = 0
    blank: int = 0
    bytes: int = 0


class Summary(BaseModel):
    """All files together."""

    files: int
    failed: int
    generated: int
    skipped: dict[str, int]
    bytes: int
    lines: int
    blank: int
    languages: list[LanguageFigure]
    largest: list[FileFigure]
    longest: list[FunctionFigure]
    debt: list[Debt]
    debt_kinds: dict[str, int]


def report(name: str, source: str, summary: Summary, duplicates: Repeated) -> str:
    """The report as Markdown."""
    which = "tracked by git" if source == "git" else "in the directory, hidden ones left out"
    parts = [
        f"# Code report: {name}",
        f"{summary.files} files ({which}), {summary.lines:,} lines in {len(summary.languages)} language{'' if len(summary.languages) == 1 else 's'}, {_size(summary.bytes)}.",
        *_remarks(summary),
        "## Languages",
        _table(
            ("Language", "Files", "Lines", "Share", "Blank"),
            [_language(each, summary.lines) for each in summary.languages],
        ),
        "## Largest files",
        _table(("File", "Lines", "Size"), [(f"`{f.path}`", f"{f.lines:,}", _size(f.bytes)) for f in summary.largest]),
    ]
    if summary.longest:
        rows = [(f"`{f.name}`", f"{f.path}:{f.line}", str(f.lines)) for f in summary.longest]
        parts += ["## Longest functions", _table(("Function", "Where", "Lines"), rows)]
        parts.append("Python by its syntax tree; other languages by braces or indentation, which may mislead.")
    parts += ["## Repeated blocks", *_duplicates(duplicates), "## Left to do", *_debt(summary)]
    return "\n\n".join(parts) + "\n"


def _remarks(summary: Summary) -> list[str]:
    remarks = [f"{number} {why}" for why, number in sorted(summary.skipped.items())]
    if summary.failed:
        remarks.append(f"{summary.failed} could not be analysed")
    said = [f"Not read: {', '.join(remarks)}."] if remarks else []
    if summary.generated:
        said.append(
            f"{summary.generated} say that a program wrote them: they are counted here, and left out of what is judged below."
        )
    return said


def _language(each: LanguageFigure, all_lines: int) -> tuple[str, ...]:
    share = 100 * each.lines / all_lines if all_lines else 0
    return each.language, str(each.files), f"{each.lines:,}", f"{share:.1f} %", f"{each.blank:,}"


def _duplicates(found: Repeated) -> list[str]:
    if not found.total:
        return ["None of six lines or more."]
    rows = [
        (str(b.lines), b.first, b.second, f"`{b.text[:60].replace('`', ' ').replace('|', ' ')}`") for b in found.longest
    ]
    left = found.total - len(found.longest)
    more = [f"And {left} shorter ones."] if left else []
    return [_table(("Lines", "Here", "And here", "Begins with"), rows), *more]


def _debt(summary: Summary) -> list[str]:
    if not summary.debt_kinds:
        return ["No TODO, FIXME, XXX or HACK."]
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(summary.debt_kinds.items()))
    notes = "\n".join(f"* {note.kind} {note.path}:{note.line} {note.text}".rstrip() for note in summary.debt[:10])
    return [f"{counts}.", notes]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _size(octets: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"
