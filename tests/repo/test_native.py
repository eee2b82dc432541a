"""What `make native` compiles: that the list is true, and that all of it is Python which mypyc takes. Compiling itself is too slow for here."""

import ast
import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import native
import native_modules

TRAITS = {"Generic", "Protocol"}
"""Bases that a compiled class may have beside another."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By path within its package, the text of each module that is compiled."""
    tree = tmp_path_factory.mktemp("tree")
    for name, source in native.sources().items():
        (tree / name).symlink_to(source)
    return {str(path): (tree / path).read_text() for path in native_modules.matching(tree)}


def test_every_name_in_the_list_is_a_module(compiled: dict[str, str]) -> None:
    """Q33: who renames a module of the hot path hears of it here, and not by a system that became slower."""
    assert len(compiled) > 100
    assert {path.partition("/")[0] for path in compiled} == native.sources().keys()


def test_a_name_that_is_no_module_is_refused(tmp_path: pathlib.Path) -> None:
    """Q33: the message says where to correct it."""
    with pytest.raises(SystemExit, match=r"no module is called .*: correct tools/native_modules.py"):
        native_modules.matching(tmp_path)


def test_nothing_is_written_that_cannot_be_compiled(compiled: dict[str, str]) -> None:
    """Q33: no asynchronous generator and no class with two bases in a module that is compiled; such code belongs into another module."""
    found = [
        f"{path}:{node.lineno}"
        for path, text in compiled.items()
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.AsyncFunctionDef) and _yields(node))
        or (isinstance(node, ast.ClassDef) and len([base for base in node.bases if _name(base) not in TRAITS]) > 1)
    ]
    assert found == []


def test_no_end_of_a_compiled_block_awaits(compiled: dict[str, str]) -> None:
    """Q33: where a `finally`, an `except` or an `async with` awaits, compiled code takes another coroutine's error for its own: `afterwards` is for that."""
    found = [
        f"{path}:{node.lineno}"
        for path, text in compiled.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.AsyncWith)
        or (isinstance(node, ast.Try) and _waits(node.finalbody))
        or (isinstance(node, ast.ExceptHandler) and _waits(node.body))
    ]
    assert found == []


def test_what_is_not_compiled_inherits_from_nothing_compiled(compiled: dict[str, str]) -> None:
    """Q33: a compiled class refuses to be the base of one that is not."""
    names = {path.removesuffix(".py").replace("/", "."): path for path in compiled}
    found = []
    for root in native.sources().values():
        for path in root.rglob("*.py"):
            if str(path.relative_to(root.parent)) in compiled:
                continue
            tree = ast.parse(path.read_text())
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in names]
            theirs = {alias.asname or alias.name for node in imports for alias in node.names}
            bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
            found += [f"{path.name}: {base.id}" for base in bases if isinstance(base, ast.Name) and base.id in theirs]
    assert found == []


def test_structs_stay_what_they_are(compiled: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Q33: of a struct mypyc would drop what stands beside its bases, and types of fields: what is stored would be read wrongly."""
    module = tmp_path / "m.py"
    for text in ("class A(msgspec.Struct): ...", "class A(Value, frozen=True): ...", "class A(Event): ..."):
        module.write_text(text)
        assert not native_modules.can_be(module)
    module.write_text("class A(B): ...")
    assert native_modules.can_be(module)
    assert "tierflow_orchestrator/core/decide.py" in compiled
    assert "tierflow_orchestrator/core/step.py" not in compiled


def _yields(function: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(node, ast.Yield) for node in _within(function.body))


def _waits(body: list[ast.stmt]) -> bool:
    waits = ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield | ast.YieldFrom
    return any(isinstance(node, waits) for node in _within(body))


def _within(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Everything in some statements that is run with them, without the functions that they define."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def _name(base: ast.expr) -> str:
    return ast.unparse(base).partition("[")[0].rpartition(".")[2]
