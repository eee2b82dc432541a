"""What a run was given is what it has: nothing that Tier 2 decides by itself raises it."""

from __future__ import annotations

import ast
import pathlib

import msgspec
import pytest
import tierflow_orchestrator
from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.commands import Pause, Resume, Retry
from tierflow_runtime.values import Allocation

from .fakes import Shell, call, flow
from .test_storm import Storm

TIER = pathlib.Path(tierflow_orchestrator.__file__).parent


@pytest.mark.parametrize("block", range(4))
def test_a_run_never_gives_itself_more(block: int) -> None:
    """B2, V14, Lesson 31: through random lives, restarts and resumes included, the allocation stays what Tier 1 gave, and no more attempts are made than it has."""
    limited = 0
    for seed in range(1000 + block * 20, 1020 + block * 20):
        storm = Storm(seed)
        given = storm.run.allocation
        storm.settle()
        for _ in range(40):
            storm.weather()
            assert storm.run.allocation == given, f"seed {seed}"
        limited += given.steps is not None
        assert given.steps is None or storm.run.attempts <= given.steps, f"seed {seed}"
    assert limited, "no life had a limit"


def test_only_what_somebody_asked_for_changes_it() -> None:
    """B2: of all events two carry a run's allocation, its creation and its update; the update is made of a request, and by nothing else of the tier."""
    carry = {
        name
        for name, kind in vars(events).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and "allocation" in kind.__struct_fields__
    }
    assert carry == {"RunCreated", "RunUpdated"}
    made, written = set(), set()
    for path in TIER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Update", "commands.Update"):
                made.add(path.name)
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if "run.allocation" in ast.unparse(target):
                    written.add(path.name)
    assert made == {"commanding.py"}
    assert written == {"evolve.py", "steered.py"}


def test_an_attempt_beyond_it_is_refused() -> None:
    """B2, G9, Lesson 31: the attempt that it does not have is not made, typed; neither pause and resume nor a retry fills it up again, only somebody's update does."""
    shell = Shell(flow(call("a"), call("b", "a")), allocation=Allocation(steps=1))
    shell.tell(Pause(command_id="p"))
    shell.complete("a")
    shell.tell(Resume(command_id="r"))
    failure = shell.run.steps["b"].failure
    assert failure is not None
    assert (failure.code, failure.retryable, shell.run.attempts) == ("BUDGET_EXHAUSTED", False, 1)
    shell.tell(Retry(command_id="again"))
    assert (shell.run.state, shell.run.attempts, shell.run.allocation) == ("FAILED", 1, Allocation(steps=1))


VERBS = frozenset(("begin", "reserve", "settle", "book", "lose", "charge", "correct", "grant", "restore"))


def test_nothing_but_the_ledger_counts() -> None:
    """D6, D1: no code of the tier writes what a run has used or how many attempts it has made; the ledger's verbs are called where events are applied, and nowhere else."""
    called: dict[str, set[str]] = {}
    for path in sorted((*(TIER / "core").rglob("*.py"), *TIER.glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            for written in _written(node):
                counted = any(written.endswith(f"run.{name}") for name in ("usage", "attempts"))
                assert not counted, f"{path.name}: {written}"
            function = node.func if isinstance(node, ast.Call) else None
            if isinstance(function, ast.Attribute) and ast.unparse(function.value).endswith("ledger"):
                called.setdefault(path.name, set()).add(function.attr)
    assert {name: verbs for name, found in called.items() if (verbs := found & VERBS)} == {
        "budget.py": {"restore"},
        "evolve.py": {"grant", "begin", "correct", "charge"},
        "moves.py": {"settle", "book", "lose"},
        "steered.py": {"grant"},
    }


def _written(node: ast.AST) -> list[str]:
    """What a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return [ast.unparse(target) for target in targets]
