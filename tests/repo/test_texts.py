"""What may not stand in any file of the repository."""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources

REGISTRIES = [
    "py" + "pi.org",
    "pythonhosted" + ".org",
    "npm" + "js.com",
    "npm" + "js.org",
    "registry." + "npm",
    "proxy.golang" + ".org",
    "crates" + ".io",
    "deb." + "debian",
]
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_no_registry_is_named() -> None:
    """B4: where packages come from is the business of the machine that installs them."""
    found = [f"{name}: {host}" for name, text in sources.texts() for host in REGISTRIES if host in text]
    assert found == []


def test_no_machine_is_named() -> None:
    """B4: no path of anybody's machine is written down."""
    own = [str(sources.ROOT) + "/"]
    personal = re.compile(r"(?<![\w$}.])/(?:home|Users|root)/(?!\.\.\.)[\w.-]+")
    found = [f"{name}: {path}" for name, text in sources.texts() for path in own if path in text]
    found += [f"{name}: {match[0]}" for name, text in sources.texts() if (match := personal.search(text))]
    assert found == []


def test_nothing_is_left_unfinished() -> None:
    """B4: what remains to be done is in docs/capabilities.md, not in comments. Examples may look for such words in what they read."""
    found = [
        f"{name}: {match[0]}"
        for name, text in sources.texts()
        if not name.startswith(("docs/", "examples/", "tests/examples/")) and (match := UNFINISHED.search(text))
    ]
    assert found == []


def test_tests_wait_for_facts() -> None:
    """O2: no test sleeps by the clock; a pause within a loop that asks for a fact is none."""
    found = [
        f"{sources.name(path)}:{node.lineno}"
        for path in sources.modules()
        if path.name.startswith(("test_", "conftest"))
        for node in _outside_loops(sources.tree(path))
        if _sleeps(node)
    ]
    assert found == []


def test_broad_handlers_have_reasons() -> None:
    """F21: whoever catches everything says why, beside it."""
    found = []
    for path in sources.product():
        lines = path.read_text().splitlines()
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.ExceptHandler) and _broad(node.type):
                near = lines[node.lineno - 1 : node.lineno + 2]
                reraises = any(isinstance(child, ast.Raise) and child.exc is None for child in ast.walk(node))
                if not reraises and not any("#" in line for line in near):
                    found.append(f"{sources.name(path)}:{node.lineno}")
    assert found == []


def _broad(kind: ast.expr | None) -> bool:
    return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))


def _outside_loops(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.While):
            yield from _outside_loops(child)


def _sleeps(node: ast.AST) -> bool:
    """A call of some `sleep`; with 0 it only lets others go on, with a minute or more it is work that never ends."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "sleep":
        return False
    seconds = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    blocking = isinstance(node.func.value, ast.Name) and node.func.value.id == "time"
    return blocking or (isinstance(seconds, int | float) and 0 < seconds < 60)
