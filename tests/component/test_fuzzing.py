"""Nonsense of every kind, from fixed seeds, to the running system and to the flow language. `make fuzz` is the long form."""

import pathlib
from collections.abc import AsyncIterator, Callable

import pytest
from tierflow_runtime.errors import failure
from tierflow_testing.fuzzing.calls import Case, Outcome, complaint
from tierflow_testing.fuzzing.cases import methods
from tierflow_testing.fuzzing.language import Language
from tierflow_testing.fuzzing.session import Session, documented
from tierflow_testing.fuzzing.world import World
from tierflow_testing.stack import Stack

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "proto"
SEED = "ci"
EACH = 30


@pytest.fixture
async def session(make_stack: Callable[..., Stack]) -> AsyncIterator[tuple[Session, Stack]]:
    stack = make_stack(environment={"TIERFLOW_DRAIN_TIMEOUT": "1"})
    world = World.of(stack)
    await world.open()
    yield Session(world, SEED, stack.services, documented(PROTOS)), stack
    await world.rest()
    await world.close()


async def test_nonsense_to_every_rpc(session: tuple[Session, Stack]) -> None:
    """A5, F22, F27, F28, L6: no call crashes, hangs, or ends INTERNAL or UNKNOWN; each status is one that its contract names; nothing refused is stored; the work goes on."""
    fuzzing, stack = session
    assert len(methods()) > 45
    assert all(
        fuzzing.documented.get(f"/{method.containing_service.full_name}/{method.name}") for _, method in methods()
    )
    for tier, method in methods():
        await fuzzing.lot(tier, method, range(EACH))
    assert fuzzing.calls == EACH * len(methods())
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= set(fuzzing.statuses)
    assert not fuzzing.findings, "\n\n".join(str(finding) for finding in fuzzing.findings[:5])
    assert await fuzzing.accounts.strangers(stack.database_url, fuzzing.world.own) == []


def test_nonsense_to_the_flow_language() -> None:
    """E5, L13, Lesson 10: whatever the text of a flow or an expression, reading and evaluating it ends soon and without any error but its own."""
    language = Language(SEED)
    language.run(count=150)
    assert language.findings == []
    assert language.accepted > 3
    assert language.evaluated > 100


def test_the_judge_judges() -> None:
    """F22: statuses that must not be, calls that hang and internals that are told are all found; what the contract says is not."""
    (method,) = [method for _, method in methods() if method.name == "GetSwarm"]
    missing, contract = failure("NOT_FOUND", "There is no such swarm."), documented(PROTOS)
    outcome = Outcome(Case("x", method, [b""]), "NOT_FOUND", 0.1, missing)
    assert complaint(outcome, contract) == ""
    assert complaint(Outcome(Case("x", method, [b"\xff"], sound=False), "INVALID_ARGUMENT", 0.1, missing), {}) == ""
    for wrong in (
        Outcome(outcome.case, "UNKNOWN", 0.1),
        Outcome(outcome.case, "HUNG", 9.0),
        Outcome(outcome.case, "DEADLINE_EXCEEDED", 5.0),
        Outcome(outcome.case, "OK", 60.0),
        Outcome(outcome.case, "NOT_FOUND", 0.1, missing, details='File "/x.py"'),
        Outcome(outcome.case, "ALREADY_EXISTS", 0.1, missing),
        Outcome(outcome.case, "UNAVAILABLE", 0.1),
    ):
        assert complaint(wrong, contract), wrong
