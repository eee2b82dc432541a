"""Budgets of swarms: what their run holds, what comes back, what is granted anew. See docs/budgets.md."""

from __future__ import annotations

import pytest
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.decide import decide
from tierflow_coordinator.core.ledger import ledger_of, returned
from tierflow_coordinator.core.react import react
from tierflow_coordinator.core.swarm import Swarm, evolve
from tierflow_coordinator.wire import decode, encode, run_command
from tierflow_runtime.ledger import DIMENSIONS
from tierflow_runtime.values import Allocation, Context, Failure, Options, Usage

RUN = "0190f000-0000-7000-8000-000000000002"
LIMITS = Allocation(credits=2**60, steps=10, memory_bytes=7)


def swarm_with(allocation: Allocation = LIMITS) -> tuple[Swarm, list[events.SwarmEvent]]:
    swarm = Swarm(swarm_id="s")
    command = commands.CreateSwarm(
        context=Context(tenant="t", user_id="u", swarm_id="s"), flow_hash="0" * 64, flow_name="f", flow_version="1", input="{}",
        allocation=allocation, options=Options(), run_id=RUN,
    )  # fmt: skip
    journal = list(decide(swarm, command, 1).events)
    return swarm, journal


def finish(state: str = "COMPLETED", generation: int = 1, **used: int) -> commands.FinishRun:
    used.setdefault("attempts", 1)
    usage = Usage(**used)
    return commands.FinishRun(run_id=RUN, generation=generation, state=state, outcome="SUCCESS", usage=usage)


def balance(swarm: Swarm, name: str = "credits") -> tuple[int | None, int, int, int | None]:
    b = ledger_of(swarm).balance(name)
    assert (b.total or 0) + b.overdrawn == b.reserved + b.consumed + (b.available or 0) or b.total is None, "V57"
    return b.total, b.reserved, b.consumed, b.available


def whole(swarm: Swarm, journal: list[events.SwarmEvent]) -> None:
    """U7: the journal, written and read, gives the swarm and its balance."""
    again, batch = Swarm(swarm_id="s"), EventBatch()
    for number, event in enumerate(journal, 1):
        batch.events.add().ParseFromString(encode(event, number, number))
    read = [event for _, _, event in decode(batch.SerializeToString())]
    assert read == journal
    for event in read:
        evolve(again, event, 1)
    assert [ledger_of(again).balance(name) for name in DIMENSIONS] == [
        ledger_of(swarm).balance(name) for name in DIMENSIONS
    ]


def test_the_run_holds_what_the_swarm_has() -> None:
    """D2, D3, D4: from before it is asked for until its end; then what it used is spent and the rest is free, exactly."""
    swarm, journal = swarm_with()
    assert balance(swarm) == (2**60, 2**60, 0, 0)
    assert [event.grant for event in journal if isinstance(event, events.RunRequested)] == [LIMITS]
    whole(swarm, journal)
    journal += decide(swarm, finish(credits=3, attempts=4), 2).events
    assert (balance(swarm), balance(swarm, "steps")) == ((2**60, 0, 3, 2**60 - 3), (10, 0, 4, 6))
    assert returned(swarm.allocation, swarm.usage) == Allocation(credits=2**60 - 3, steps=6, memory_bytes=7)
    whole(swarm, journal)


def test_a_retry_is_funded_with_what_is_left() -> None:
    """R31, D3, Lesson 31: the next generation holds what the ones before it have left; the run is told what all of them together may spend."""
    swarm, journal = swarm_with(Allocation(credits=100))
    journal += decide(swarm, finish("FAILED", credits=30), 2).events
    command = commands.SteerSwarm(command_id="again", command=states.RETRY, actor="a", reason="")
    emitted = decide(swarm, command, 3).events
    journal += emitted
    (asked,) = (event for event in emitted if isinstance(event, events.RunRequested))
    assert (asked.generation, asked.grant, balance(swarm)) == (2, Allocation(credits=70), (100, 70, 30, 0))
    (received,) = (event for event in emitted if isinstance(event, events.CommandReceived))
    (told,) = react(swarm, received)
    assert isinstance(told, commands.CommandRun)
    changes = run_command(told).changes
    assert (changes.credits, changes.HasField("tokens"), changes.tokens) == (100, True, 0)
    journal += decide(swarm, finish(generation=2, credits=55, attempts=3), 4).events
    assert (balance(swarm), swarm.usage.attempts) == ((100, 0, 55, 45), 3)
    whole(swarm, journal)


@pytest.mark.parametrize("end", ["refused", "stopped", "terminated"])
def test_every_end_settles(end: str) -> None:
    """D8: what was never begun gives everything back; only a swarm that is ended by force goes on holding what its run may still spend."""
    swarm, journal = swarm_with(Allocation(credits=100))
    if end == "refused":
        refusal = commands.RefuseRun(run_id=RUN, failure=Failure(code="FLOW_NOT_FOUND", message="gone"))
        journal += decide(swarm, refusal, 2).events
    else:
        journal += decide(swarm, commands.TakeRun(run_id=RUN), 2).events
        verb = states.CANCEL if end == "stopped" else states.TERMINATE
        journal += decide(swarm, commands.SteerSwarm(command_id="x", command=verb, actor="a", reason=""), 3).events
        if end == "stopped":
            journal += decide(swarm, finish("CANCELLED", credits=1), 4).events
    assert swarm.ended
    wanted = {"refused": (100, 0, 0, 100), "stopped": (100, 0, 1, 99), "terminated": (100, 100, 0, 0)}
    assert balance(swarm) == wanted[end]
    whole(swarm, journal)


def test_a_budget_is_changed_while_it_is_held() -> None:
    """C12, D2: more for the swarm is more for its run, less takes nothing that is spent; each is journaled, once."""
    swarm, journal = swarm_with(Allocation(credits=100))
    more = commands.FundSwarm(command_id="more", limits=Allocation(credits=150), actor="ann", reason="worth it")
    emitted = decide(swarm, more, 2).events
    journal += emitted
    (updated,) = emitted
    assert isinstance(updated, events.ContextUpdated)
    assert (updated.changed, updated.actor, updated.grant) == (("limits",), "ann", Allocation(credits=150))
    assert balance(swarm) == (150, 150, 0, 0)
    assert not decide(swarm, more, 3).events
    journal += decide(swarm, commands.FundSwarm(command_id="less", limits=Allocation(credits=20, tokens=9)), 4).events
    assert (balance(swarm), balance(swarm, "tokens")) == ((20, 20, 0, 0), (9, 9, 0, 0))
    cleared = commands.FundSwarm(command_id="any", limits=Allocation(), cleared=("credits",))
    journal += decide(swarm, cleared, 5).events
    assert balance(swarm) == (None, 0, 0, None)
    whole(swarm, journal)


def test_limits_of_the_context_are_for_the_next_run() -> None:
    """I7, D2: changing them gives the run under way nothing: it is free until somebody funds the run, or asks for the next."""
    swarm, journal = swarm_with(Allocation(credits=100))
    update = commands.UpdateContext(command_id="c", expected=1, limits=Allocation(credits=130))
    journal += decide(swarm, update, 2).events
    assert balance(swarm) == (130, 100, 0, 30)
    whole(swarm, journal)


def test_without_limits_nothing_is_said() -> None:
    """P15: no grant in the journal, nothing held."""
    swarm, journal = swarm_with(Allocation(memory_bytes=5))
    assert all(event.grant is None for event in journal if isinstance(event, events.RunRequested))
    assert balance(swarm) == (None, 0, 0, None)
