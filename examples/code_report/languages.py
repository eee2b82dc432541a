"""Which language a file is in, what its comments look like, and where its functions probably are."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

_BY_ENDING = {
    "py": "Python", "pyi": "Python", "js": "JavaScript", "mjs": "JavaScript", "cjs": "JavaScript", "jsx": "JavaScript", "ts": "TypeScript",
    "tsx": "TypeScript", "go": "Go", "rs": "Rust", "c": "C", "h": "C", "cc": "C++", "cpp": "C++", "cxx": "C++", "hpp": "C++", "java": "Java",
    "kt": "Kotlin", "kts": "Kotlin", "scala": "Scala", "cs": "C#", "swift": "Swift", "php": "PHP", "rb": "Ruby", "ex": "Elixir", "exs": "Elixir",
    "lua": "Lua", "sh": "Shell", "bash": "Shell", "zsh": "Shell", "sql": "SQL", "proto": "Protobuf", "yaml": "YAML", "yml": "YAML", "toml": "TOML",
    "json": "JSON", "md": "Markdown", "rst": "reStructuredText", "txt": "Text", "html": "HTML", "css": "CSS", "scss": "CSS", "xml": "XML",
    "ini": "INI", "cfg": "INI", "tf": "Terraform", "mk": "Make", "zig": "Zig", "dart": "Dart", "jl": "Julia", "r": "R", "hs": "Haskell",
}  # fmt: skip
_BY_NAME = {
    "Makefile": "Make",
    "GNUmakefile": "Make",
    "Dockerfile": "Docker",
    "CMakeLists.txt": "CMake",
    "Jenkinsfile": "Groovy",
}
_BY_INTERPRETER = {
    "python": "Python",
    "sh": "Shell",
    "bash": "Shell",
    "zsh": "Shell",
    "node": "JavaScript",
    "ruby": "Ruby",
    "perl": "Perl",
}
_BRACES = frozenset(
    (
        "JavaScript",
        "TypeScript",
        "Go",
        "Rust",
        "C",
        "C++",
        "Java",
        "Kotlin",
        "Scala",
        "C#",
        "Swift",
        "PHP",
        "Zig",
        "Dart",
    )
)
_INDENTED = frozenset(("Ruby", "Elixir", "Lua", "Shell", "Julia"))
PROSE = frozenset(("Markdown", "reStructuredText", "Text", "JSON", "other"))
"""Languages whose repeated lines say nothing about the code."""

_HEAD = re.compile(
    r"^\s*(?:(?:pub|public|private|protected|internal|static|async|export|default|override|final|inline|unsafe|func|fn|function|fun|def|virtual|const)\b[\w\s<>*&:,()\[\]]*?)*"
    r"(?P<name>[A-Za-z_$][\w$]*)\s*(?:<[^<>]*>)?\s*\([^;]*\)?[^;=]*\{\s*$"
)
_NOT_FUNCTIONS = frozenset(
    [
        "if",
        "for",
        "while",
        "switch",
        "catch",
        "match",
        "else",
        "do",
        "try",
        "return",
        "foreach",
        "with",
        "when",
        "unless",
        "loop",
        "select",
        "synchronized",
        "using",
        "lock",
    ]
)
_INDENT_HEAD = re.compile(
    r"^(?P<indent>\s*)(?:def|defp|function|local function)\s+(?P<name>[\w.:?!]+)|^(?P<indent2>\s*)(?P<name2>[\w-]+)\s*\(\)\s*\{?\s*$"
)


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its name, its first line from 1, its length in lines."""

    name: str
    line: int
    lines: int


def language_of(path: str, first_line: str) -> str:
    """The language by the file's name, its ending, or the interpreter in its first line; `other` where none of them tells."""
    name = path.rpartition("/")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    ending = name.rpartition(".")[2].lower() if "." in name.lstrip(".") else ""
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    if first_line.startswith("#!"):
        interpreter = first_line[2:].replace("/usr/bin/env", "").strip().split(" ")[0].rpartition("/")[2]
        return _BY_INTERPRETER.get(interpreter.rstrip("0123456789."), "other")
    return "other"


def functions_of(language: str, text: str) -> list[Function]:
    """The functions of a file: exact for Python (by its syntax tree), guessed for others by braces or indentation."""
    if language == "Python":
        return _python(text)
    if language in _BRACES:
        return _braced(text.splitlines())
    if language in _INDENTED:
        return _indented(text.splitlines())
    return []


def _python(text: str) -> list[Function]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # of another version, or a template
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        Function(n.name, n.lineno, (n.end_lineno or n.lineno) - n.lineno + 1)
        for n in ast.walk(tree)
        if isinstance(n, kinds)
    ]


def _braced(lines: list[str]) -> list[Function]:
    """A heuristic: a line that looks like a head and ends with a brace, up to the line that closes it. Braces in strings may mislead it."""
    found: list[Function] = []
    opened: list[tuple[str, int, int]] = []
    depth = 0
    for number, line in enumerate(lines, 1):
        head = _HEAD.match(line) if len(line) < 400 and line.rstrip().endswith("{") else None
        if head and head["name"] not in _NOT_FUNCTIONS:
            opened.append((head["name"], number, depth))
        depth += line.count("{") - line.count("}")
        while opened and depth <= opened[-1][2]:
            name, start, _ = opened.pop()
            found.append(Function(name, start, number - start + 1))
    return found


def _indented(lines: list[str]) -> list[Function]:
    """A heuristic: from a head to the first later line that is not indented further, its end included."""
    found = []
    for number, line in enumerate(lines, 1):
        head = _INDENT_HEAD.match(line) if len(line) < 400 else None
        if head is None:
            continue
        indent = len(head["indent"] if head["name"] else head["indent2"])
        end = next(
            (n for n, later in enumerate(lines[number:], number + 1) if later.strip() and _indent(later) <= indent),
            len(lines),
        )
        found.append(Function(head["name"] or head["name2"], number, end - number + 1))
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
