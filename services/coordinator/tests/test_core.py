"""The core of Tier 1: tables, decisions, and what holds after any interleaving."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.decide import decide
from tierflow_coordinator.core.react import after_run_state, open_effects, react
from tierflow_coordinator.core.swarm import Swarm, evolve
from tierflow_runtime.values import Allocation, Context, Failure, FailureError, Options, Usage

RUN = "019aa000-0000-7000-8000-000000000002"
OTHER_RUN = "019aa000-0000-7000-8000-000000000003"
CREATE = commands.CreateSwarm(
    context=Context(tenant="acme", user_id="ann", swarm_id="s", run_id=RUN),
    run_id=RUN,
    flow_hash="ab" * 32,
    flow_name="greet",
    flow_version="1",
    input='{"name": "Ann"}',
    allocation=Allocation(credits=2**60),
    options=Options(priority=3),
)
LOST = Failure(code="HANDLER_NOT_FOUND", message="No executor offers `greet`.", tier=2)


def steer(command: str, command_id: str = "c1") -> commands.SteerSwarm:
    return commands.SteerSwarm(command=command, command_id=command_id, actor="ann", reason="why")


def finish(state: str = "COMPLETED", *, run_id: str = RUN) -> commands.FinishRun:
    outcome = {"COMPLETED": "SUCCESS", "FAILED": "FAILURE", "CANCELLED": "CANCELLED"}[state]
    return commands.FinishRun(
        run_id=run_id,
        generation=1,
        state=state,
        outcome=outcome,
        output='{"x": 1}' if state == "COMPLETED" else None,
        usage=Usage(steps=1),
    )


def swarm_in(state: str) -> Swarm:
    """A swarm that came to `state` by commands alone, where commands lead there."""
    swarm = Swarm(swarm_id="s")
    ways: dict[str, tuple[commands.SwarmCommand, ...]] = {
        states.STARTING: (),
        states.RUNNING: (commands.TakeRun(run_id=RUN),),
        states.PAUSING: (commands.TakeRun(run_id=RUN), steer("pause", "p")),
        states.PAUSED: (
            commands.TakeRun(run_id=RUN),
            steer("pause", "p"),
            commands.ReportRunState(run_id=RUN, state="PAUSED"),
        ),
        states.STOPPING: (commands.TakeRun(run_id=RUN), steer("stop", "p")),
        states.STOPPED: (steer("cancel", "p"), finish("CANCELLED")),
        states.COMPLETED: (finish(),),
        states.FAILED: (finish("FAILED"),),
        states.TERMINATED: (steer("terminate", "p"),),
    }
    for command in (CREATE, *ways[state]):
        decide(swarm, command, 1)
    assert swarm.state == state
    return swarm


REACHABLE = [state for state in states.STATES if state != states.IDLE]


def test_a_command_names_those_before_it() -> None:
    """R14: on different ways they may reach the run in another order; those that the swarm was told later are not among them."""
    swarm = swarm_in(states.RUNNING)
    ids = []
    for number in range(20):
        verb = states.RESUME if number % 2 else states.PAUSE
        decided = decide(
            swarm, commands.SteerSwarm(command_id=f"c{number}", command=verb, actor="a", reason=""), number
        )
        ids.append(next(event for event in decided.events if isinstance(event, events.CommandReceived)))
    (late,) = react(swarm, ids[3])
    assert isinstance(late, commands.CommandRun)
    assert late.supersedes == ("c0", "c1", "c2")
    (last,) = react(swarm, ids[-1])
    assert isinstance(last, commands.CommandRun)
    assert last.supersedes == tuple(f"c{number}" for number in range(3, 19))


def test_transitions_are_a_table() -> None:
    """C2: over all pairs of states, exactly those in the table are allowed; the refusal names both."""
    assert set(states.TRANSITIONS) == {states.NEW, *states.STATES}
    for before, after in itertools.product(states.TRANSITIONS, states.STATES):
        if after in states.TRANSITIONS[before]:
            states.check(before, after)
        else:
            with pytest.raises(FailureError) as caught:
                states.check(before, after)
            assert caught.value.failure.code == "STATE_CONFLICT"
            assert after in caught.value.failure.message
            assert before in caught.value.failure.message
    assert all(not states.TRANSITIONS[state] for state in states.ENDED - {states.FAILED})
    assert states.TRANSITIONS[states.FAILED] == {states.STARTING, states.RUNNING}, "C9, R31: into the next generation"


@pytest.mark.parametrize("command", states.COMMANDS)
@pytest.mark.parametrize("state", REACHABLE)
def test_command_in_every_state(command: str, state: str) -> None:
    """C2, G8, G9: a command leads where the table says, and elsewhere changes nothing and tells the stored state."""
    swarm = swarm_in(state)
    before = msgspec.structs.replace(swarm)
    decision = decide(swarm, steer(command, "new"), 2)
    expected = states.COMMANDS[command].get(state)
    if expected is None:
        assert (decision.reply.applied, decision.reply.state) == (False, state)
        assert not decision.events
        assert swarm == before
    else:
        assert (decision.reply.applied, decision.reply.state) == (True, expected)
        assert decision.events[0] == events.CommandReceived(
            command_id="new", command=command, actor="ann", reason="why"
        )
        again = decide(swarm, steer(command, "new"), 3)
        assert not again.events
        assert again.reply.applied


def test_reason_is_kept() -> None:
    """G8: why it was stopped, and by whom, is in the terminal event and in the state."""
    swarm = swarm_in(states.RUNNING)
    decide(swarm, steer("stop"), 2)
    ended = decide(swarm, finish("CANCELLED"), 3).events[-1]
    assert isinstance(ended, events.SwarmEnded)
    assert (ended.to, ended.reason, ended.actor, ended.outcome) == (states.STOPPED, "why", "ann", "CANCELLED")
    assert swarm.reason == "why"


def test_acceptance_is_journaled_with_the_end() -> None:
    """Lesson 17: a result that overtakes the note of acceptance yields the whole history in one decision."""
    swarm = swarm_in(states.STARTING)
    decision = decide(swarm, finish(), 2)
    assert [type(event).__name__ for event in decision.events] == [
        "RunTaken",
        "SwarmStateChanged",
        "RunFinished",
        "SwarmEnded",
    ]
    assert swarm.state == states.COMPLETED
    assert swarm.usage == Usage(steps=1)


def test_refused_run_fails_the_swarm() -> None:
    """F23: what Tier 2 said is the cause, with its tier; nothing is relabelled."""
    swarm = swarm_in(states.STARTING)
    decide(swarm, commands.RefuseRun(run_id=RUN, failure=LOST), 2)
    assert swarm.state == states.FAILED
    assert swarm.failure is not None
    assert swarm.failure.cause == LOST
    assert swarm.failure.code == LOST.code


def test_failure_of_a_run_is_not_relabelled() -> None:
    """F23: a failure that arose in Tier 3 reaches the swarm as it is."""
    deep = Failure(code="HANDLER_FAILED", message="boom", tier=3, cause=Failure(code="TIMEOUT", message="slow", tier=3))
    swarm = swarm_in(states.RUNNING)
    decide(swarm, msgspec.structs.replace(finish("FAILED"), failure=deep), 2)
    assert swarm.failure == deep


def test_late_refusal_is_stale() -> None:
    """R28: a refusal for a run that was taken answers a request that was sent twice."""
    swarm = swarm_in(states.RUNNING)
    assert not decide(swarm, commands.RefuseRun(run_id=RUN, failure=LOST), 2).events
    assert swarm.state == states.RUNNING


def test_refusal_after_cancel_is_stopped() -> None:
    """R29: a run that was cancelled before it was taken is refused by its tombstone; the swarm is stopped, not failed."""
    swarm = swarm_in(states.STARTING)
    decide(swarm, steer("cancel"), 2)
    refused = commands.RefuseRun(run_id=RUN, failure=Failure(code="CANCELLED", message="cancelled before", tier=2))
    decide(swarm, refused, 3)
    assert (swarm.state, swarm.outcome, swarm.failure) == (states.STOPPED, "CANCELLED", None)


def test_result_of_another_run_is_stale() -> None:
    """R23: what belongs to another run or generation changes nothing."""
    swarm = swarm_in(states.RUNNING)
    assert not decide(swarm, finish(run_id=OTHER_RUN), 2).events
    assert not decide(swarm, msgspec.structs.replace(finish(), generation=2), 2).events


def test_resume_before_the_run_was_taken() -> None:
    """C1: a resumed swarm whose run no orchestrator has taken is STARTING, not RUNNING."""
    swarm = swarm_in(states.STARTING)
    decide(swarm, steer("pause", "p"), 2)
    assert decide(swarm, steer("resume", "r"), 3).reply.state == states.STARTING


def test_effects_of_commands() -> None:
    """G4, C7: each command goes down to the run; a cancel also while the run is not taken (R29)."""
    told = {"pause": "pause", "cancel": "cancel", "stop": "pause", "terminate": "cancel"}
    for command, word in told.items():
        swarm = swarm_in(states.STARTING)
        decision = decide(swarm, steer(command), 2)
        effects = [effect for event in decision.events for effect in react(swarm, event)]
        orders = [effect for effect in effects if isinstance(effect, commands.CommandRun)]
        assert [(order.command, order.command_id) for order in orders] == [(word, "c1")]
        assert orders[0] in open_effects(swarm)


def test_cancel_hastens_a_graceful_stop() -> None:
    """G8: a cancel after a graceful stop stops at once; the state stays STOPPING and the command applied."""
    swarm = swarm_in(states.STOPPING)
    decision = decide(swarm, steer("cancel", "now"), 2)
    assert decision.reply == commands.Reply(applied=True, state=states.STOPPING)
    assert [effect.command for event in decision.events for effect in react(swarm, event)] == ["cancel"]  # type: ignore[attr-defined]
    assert not decide(swarm, steer("cancel", "again"), 3).reply.applied


def test_graceful_stop_cancels_when_nothing_runs() -> None:
    """G8: once the run says PAUSED, what is left of it is cancelled."""
    swarm = swarm_in(states.STOPPING)
    assert not after_run_state(swarm, "PAUSING")
    (effect,) = after_run_state(swarm, "PAUSED")
    assert isinstance(effect, commands.CommandRun)
    assert (effect.command, effect.command_id) == ("cancel", "p/cancel")
    assert not after_run_state(swarm_in(states.PAUSED), "PAUSED")


def test_nothing_before_creation() -> None:
    """C2: an entity that was never created takes no command."""
    with pytest.raises(FailureError):
        decide(Swarm(swarm_id="s"), steer("pause"), 1)
    with pytest.raises(FailureError):
        decide(swarm_in(states.STARTING), CREATE, 1)


_COMMAND_IDS = st.sampled_from(["a", "b", "c", "d", "e"])
_ANY = st.one_of(
    st.just(commands.TakeRun(run_id=RUN)),
    st.just(commands.RefuseRun(run_id=RUN, failure=LOST)),
    st.builds(finish, st.sampled_from(list(states.RUN_ENDS))),
    st.builds(
        lambda end, generation: msgspec.structs.replace(finish(end), generation=generation),
        st.sampled_from(list(states.RUN_ENDS)),
        st.integers(2, 4),
    ),
    st.just(finish(run_id=OTHER_RUN)),
    st.builds(
        commands.ReportRunState,
        run_id=st.just(RUN),
        state=st.sampled_from(["RUNNING", "PAUSING", "PAUSED", "SUSPENDED", "CANCELLING"]),
    ),
    st.builds(steer, st.sampled_from(list(states.COMMANDS)), _COMMAND_IDS),
)


def check_history(journal: list[events.SwarmEvent]) -> None:
    """What docs/invariants.md says of a swarm's events (U1 to U5), from the events alone."""
    state = states.NEW
    taken = finished = False
    generation = 1
    for number, event in enumerate(journal):
        retried = isinstance(event, events.CommandReceived) and event.command == "retry"
        reopened = isinstance(event, events.SwarmStateChanged) and event.from_ == states.FAILED
        assert state not in states.ENDED or (state == states.FAILED and (retried or reopened)), (
            "U1: nothing after the end"
        )
        if number < 2:
            assert type(event) is (events.SwarmCreated, events.RunRequested)[number], "U2: first things first"
            state = states.STARTING
        elif isinstance(event, events.SwarmStateChanged | events.SwarmEnded):
            assert event.from_ == state, "U3: every move names the state it came from"
            assert event.to in states.TRANSITIONS[state], "U3: and is in the table"
            state = event.to
        elif isinstance(event, events.RunTaken):
            assert (event.run_id, taken, finished) == (RUN, False, False), "U4"
            taken = True
        elif isinstance(event, events.RunRequested):
            assert (event.run_id, event.generation) == (RUN, generation + 1), "U2, R31: one generation after the other"
            generation += 1
            taken = finished = False
        elif isinstance(event, events.RunFinished):
            assert (event.run_id, taken, finished) == (RUN, True, False), "U4"
            assert isinstance(journal[number + 1], events.SwarmEnded), "U5: the run's end is the swarm's"
            finished = True
        else:
            assert isinstance(event, events.CommandReceived)
            assert not any(
                isinstance(earlier, events.CommandReceived) and earlier.command_id == event.command_id
                for earlier in journal[:number]
            ), "U6: a command once"


@given(st.lists(st.tuples(_ANY, st.booleans()), max_size=30), st.sampled_from(list(states.RUN_ENDS)))
def test_any_interleaving(script: list[tuple[commands.SwarmCommand | None, bool]], end: str) -> None:
    """C6, C1, U1 to U8, Lesson 8, Lesson 17, Lesson 45: answers, commands, duplicates and restarts in any order end with exactly one terminal event; the journal yields the state."""
    swarm = Swarm(swarm_id="s")
    journal: list[tuple[events.SwarmEvent, int]] = [(event, 1) for event in decide(swarm, CREATE, 1).events]
    for now, (command, restart) in enumerate([*script, (None, True)], start=2):
        before = swarm.state
        command = command or msgspec.structs.replace(finish(end), generation=swarm.generation)
        decision = decide(swarm, command, now)
        journal += [(event, now) for event in decision.events]
        assert decision.reply.state == swarm.state
        if before in states.ENDED and not (before == states.FAILED and getattr(command, "command", "") == "retry"):
            assert not decision.events
        if restart:
            folded = Swarm(swarm_id="s")
            for event, time in journal:
                evolve(folded, event, time)
            assert folded == swarm, "U7: memory is the journal"
            swarm = folded
        open_now = open_effects(swarm)
        if not swarm.ended:
            assert any(isinstance(effect, commands.RequestRun) for effect in open_now), "U8: nothing is forgotten"
        if swarm.state in (states.PAUSING, states.STOPPING) or (swarm.state == states.TERMINATED and swarm.run_open):
            assert any(isinstance(effect, commands.CommandRun) for effect in open_now), "U8: nothing is forgotten"
        if swarm.ended and not swarm.run_open:
            assert not open_now
    check_history([event for event, _ in journal])
    ends = [event for event, _ in journal if isinstance(event, events.SwarmEnded)]
    assert len(ends) == swarm.generation, "U1, R31: one end for each generation"
    assert swarm.state == ends[-1].to
    assert swarm.ended


@given(st.lists(_ANY, max_size=20))
def test_snapshots(script: list[commands.SwarmCommand]) -> None:
    """R6: a snapshot holds all of the state; a forwarded command arrives as it was sent (R14)."""
    swarm = Swarm(swarm_id="s")
    for command in (CREATE, *script):
        decide(swarm, msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=commands.SwarmCommand), 5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(swarm), type=Swarm) == swarm
