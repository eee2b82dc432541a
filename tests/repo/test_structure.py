"""How the repository's code is cut: sizes, words, dependencies. Each rule says where it is broken."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest
from radon.complexity import cc_visit

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources

MOST_LINES = 400
MOST_COMPLEXITY = 10
MOST_PARAMETERS = 8

SERVICES = ("coordinator", "orchestrator", "executor")
FORBIDDEN_IN_CORES = {
    "grpc",
    "asyncpg",
    "nats",
    "asyncio",
    "tierflow_contracts",
    "time",
    "random",
    "uuid",
    "secrets",
    "socket",
    "threading",
    "logging",
    "os",
}
WORDS = {"task", "job", "worker", "workflow", "activity", "manager", "util", "utils", "helper", "helpers", "canceled"}
WORDS_OF_OTHERS = {"task", "tasks", "create_task", "max_concurrent_tasks", "worker_id", "Task", "task_of"}
"""Names that Python, pytest or the requirements give to things of theirs: an asyncio task is one. So are the parts of a document of the Serverless Workflow DSL."""
CONTAINERS = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict"}
MAY_HOLD_SQL = ("libs/durable/src/", "libs/testing/src/", "benchmarks/")
SQL = re.compile(
    r"\b(SELECT\s.+?\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX|SCHEMA))\b",
    re.IGNORECASE | re.DOTALL,
)


def test_modules_are_short() -> None:
    """B4: no module is longer than 400 lines."""
    long = {
        sources.name(path): lines
        for path in sources.modules()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_functions_are_simple() -> None:
    """B4: no function has a cyclomatic complexity above 10."""
    complex_ones = {
        f"{sources.name(path)}:{block.lineno} {block.name}": block.complexity
        for path in sources.product()
        for block in cc_visit(path.read_text())
        if block.letter != "C" and block.complexity > MOST_COMPLEXITY
    }
    assert complex_ones == {}


def test_constructors_are_small() -> None:
    """B4: no constructor takes more than 8 parameters; what needs more takes a value that holds them."""
    big = {}
    for path in sources.product():
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) - 1
                if count > MOST_PARAMETERS:
                    big[f"{sources.name(path)}:{node.lineno}"] = count
    assert big == {}


def test_services_know_libraries_only() -> None:
    """A7, B1, B3: no service names another as a dependency, and Tier 1 has no flow language, Tier 3 no journal."""
    declared = {}
    for service in SERVICES:
        project = tomllib.loads((sources.ROOT / f"services/{service}/pyproject.toml").read_text())["project"]
        declared[service] = {re.split(r"[\s<>=\[;]", text, maxsplit=1)[0] for text in project["dependencies"]}
    for service, dependencies in declared.items():
        assert not dependencies & {f"tierflow-{other}" for other in SERVICES}, service
    assert "tierflow-flow" not in declared["coordinator"]
    assert not {"tierflow-durable", "tierflow-flow"} & declared["executor"]


def test_cores_only_decide() -> None:
    """B1, B2, E1: no core imports input, output, clock, chance or wire format, waits, or asks for the time."""
    broken = []
    for path in sources.product():
        if "core" not in path.relative_to(sources.ROOT).parts:
            continue
        for node in ast.walk(sources.tree(path)):
            foreign = {name.split(".")[0] for name in _imported(node)} & FORBIDDEN_IN_CORES
            if foreign or isinstance(node, ast.Await | ast.AsyncFunctionDef) or _asks_the_time(node):
                broken.append(f"{sources.name(path)}:{node.lineno} {', '.join(foreign) or type(node).__name__}")
    assert broken == []


def test_no_globals_are_changed() -> None:
    """B10: no function of a service or library changes a variable of its module."""
    broken = [
        f"{sources.name(path)}:{node.lineno} {', '.join(node.names)}"
        for path in sources.product()
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.Global)
    ]
    assert broken == []


def test_services_have_no_module_state() -> None:
    """B10: what a module of a service holds is constant and written in capitals; everything else is passed in."""
    broken = [
        f"{sources.name(path)}:{statement.lineno} {target}"
        for path in sources.product()
        if sources.name(path).startswith("services/")
        for statement in sources.tree(path).body
        for target in _mutable_targets(statement)
        if not target.startswith("__") and not target.strip("_").isupper()
    ]
    assert broken == []


def test_sql_has_its_places() -> None:
    """B13: SQL is written in SQL files; the few modules that may hold a statement are named here."""
    found = [
        f"{sources.name(path)}:{node.lineno}"
        for path in sources.product()
        if not sources.name(path).startswith(MAY_HOLD_SQL)
        for node in _texts(sources.tree(path))
        if SQL.search(str(node.value))
    ]
    assert found == []


def test_words() -> None:
    """B4: one word per thing; the words that the glossary excludes name nothing of ours."""
    found = [
        f"{sources.name(path)}:{getattr(node, 'lineno', 1)} {identifier}"
        for path in sources.modules()
        for node in ast.walk(sources.tree(path))
        for identifier in _defined(node)
        if identifier not in WORDS_OF_OTHERS and _words(identifier) & WORDS
    ]
    found += [sources.name(path) for path in sources.modules() if _words(path.stem) & WORDS]
    assert found == []


def test_protos_use_the_same_words() -> None:
    """B4: the contracts use the words of the glossary."""
    declaration = re.compile(r"\s*(?:message|enum|rpc|service|(?:repeated |optional )?[\w.]+)\s+(\w+)\s*[={(]")
    found = [
        f"{sources.name(path)}:{number} {declared[1]}"
        for path in sources.tracked()
        if path.suffix == ".proto"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (declared := declaration.match(line)) and declared[1] not in WORDS_OF_OTHERS and _words(declared[1]) & WORDS
    ]
    assert found == []


@pytest.mark.parametrize("library", ["contracts", "runtime", "durable", "flow", "sdk", "cli", "testing"])
def test_libraries_do_not_know_services(library: str) -> None:
    """A7: what is shared does not depend on who shares it."""
    text = (sources.ROOT / f"libs/{library}/pyproject.toml").read_text()
    assert not [service for service in SERVICES if f'"tierflow-{service}"' in text]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def _asks_the_time(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    return (
        node.func.attr in ("now", "utcnow", "today")
        and isinstance(owner, ast.Name)
        and owner.id in ("datetime", "date")
    )


def _mutable_targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.AnnAssign):
        targets, value = [statement.target], statement.value
    elif isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    else:
        return []
    made = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    mutable = (
        isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        or made in CONTAINERS
    )
    return [target.id for target in targets if isinstance(target, ast.Name)] if mutable else []


def _texts(tree: ast.Module) -> list[ast.Constant]:
    """The strings of a module that are not documentation."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    return [node for node in found if isinstance(node.value, str)]


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return []


def _words(identifier: str) -> set[str]:
    return {
        word.lower() for part in identifier.split("_") for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", part)
    }
