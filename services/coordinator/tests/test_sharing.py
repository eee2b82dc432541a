"""What a swarm shares, in the core alone: versions, conflicts, who may change what, and going back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tierflow_contracts.events.v1 import event_pb2
from tierflow_coordinator import wire
from tierflow_coordinator.core import commands, events, sharing
from tierflow_coordinator.core.board import MOST_CHECKPOINTS
from tierflow_coordinator.core.decide import decide
from tierflow_coordinator.core.swarm import Swarm, evolve, settings_of
from tierflow_coordinator.machine import SwarmMachine
from tierflow_runtime.values import Allocation, Context, FailureError, Options

RUN = "019aa000-0000-7000-8000-000000000002"
AGENT = {"run_id": RUN, "step_id": "think", "actor": "ann"}


class Sharing:
    """A swarm with its journal, and short ways to tell it something."""

    def __init__(self, **options: Any) -> None:
        self.swarm = Swarm(swarm_id="s")
        self.journal: list[events.SwarmEvent] = []
        self._commands = 0
        self.tell(
            commands.CreateSwarm(
                context=Context(tenant="acme", user_id="ann", swarm_id="s", run_id=RUN, labels={"team": "a"}),
                run_id=RUN, flow_hash="ab" * 32, flow_name="greet", flow_version="1", input=None,
                allocation=Allocation(credits=2**60), options=Options(**options), goal="find out",
            )
        )  # fmt: skip

    def tell(self, command: commands.SwarmCommand) -> commands.Reply:
        decision = decide(self.swarm, command, 7)
        self.journal.extend(decision.events)
        return decision.reply

    def _id(self, given: str) -> str:
        self._commands += 1
        return given or f"c{self._commands}"

    def write(self, *changes: commands.KeyChange, command_id: str = "", **author: str) -> commands.Reply:
        return self.tell(commands.WriteKeys(command_id=self._id(command_id), changes=changes, **author))

    def update(self, expected: int, command_id: str = "", **changes: Any) -> commands.Reply:
        return self.tell(commands.UpdateContext(command_id=self._id(command_id), expected=expected, **changes))

    def mark(self, name: str) -> str:
        self.tell(commands.CheckpointContext(command_id=self._id(""), name=name))
        return self.hash

    def restore(self, name: str, expected: int | None = None) -> commands.Reply:
        return self.tell(commands.RestoreContext(command_id=self._id(""), name=name, expected=expected))

    @property
    def board(self) -> Any:
        return sharing.shared(self.swarm)

    @property
    def hash(self) -> str:
        return str(self.board.hash(settings_of(self.swarm)))

    def texts(self) -> dict[str, Any]:
        return {key: entry.value for key, entry in self.board.entries.items()}


def put(key: str, text: str | None, expected: int | None = None) -> commands.KeyChange:
    if text is None:
        return commands.KeyChange(key=key, expected=expected)
    return commands.KeyChange(
        key=key, value=text, size=len(text), sha256=hashlib.sha256(text.encode()).hexdigest(), expected=expected
    )


def code_of(raised: pytest.ExceptionInfo[FailureError]) -> str:
    return raised.value.failure.code


def test_a_key_is_written_from_the_version_that_was_read() -> None:
    """I11: a write that expects another version than there is changes nothing, and says which field and which version."""
    it = Sharing()
    first = it.write(put("facts", "1", expected=0), **AGENT)
    assert it.board.entries["facts"].version == first.revision == 2
    assert (it.board.entries["facts"].run_id, it.board.entries["facts"].step_id) == (RUN, "think")
    it.write(put("facts", "2", expected=2))
    with pytest.raises(FailureError) as raised:
        it.write(put("other", "1"), put("facts", "3", expected=2))
    assert code_of(raised) == "VERSION_CONFLICT"
    assert raised.value.failure.violations[0].field == "changes[1].expected_version"
    assert "version 3" in raised.value.failure.message
    assert it.texts() == {"facts": "2"}  # all of a write or nothing of it
    with pytest.raises(FailureError):
        it.write(put("facts", "3", expected=0))
    it.write(put("facts", None, expected=3))
    assert it.texts() == {}
    assert it.board.bytes == 0
    assert it.write(put("facts", "4", expected=0)).revision == 5  # never a version that it had before


def test_a_command_that_is_repeated_changes_nothing() -> None:
    """I11, A14: the same command id again is answered as the first time, even where the version has moved on."""
    it = Sharing()
    once = it.write(put("a", "1", expected=0), command_id="w")
    it.write(put("a", "2"))
    again = it.write(put("a", "1", expected=0), command_id="w")
    assert (again.applied, again.revision) == (once.applied, once.revision) == (True, 2)
    assert it.texts() == {"a": "2"}
    nothing = it.write(put("gone", None))
    assert (nothing.applied, nothing.revision) == (False, 3)


def test_one_context_with_a_version() -> None:
    """I7: a change of the context names the version that it was made from; what it says is what the swarm goes by from then on."""
    it = Sharing()
    it.write(put("a", "1"))  # writing keys leaves the context's version alone
    it.update(1, goal="find out more", limits=Allocation(credits=5), policy='{"tone": "dry"}')
    swarm = it.swarm
    assert (it.board.version, it.board.revision) == (2, 3)
    assert (swarm.goal, swarm.allocation.credits) == ("find out more", 5)
    with pytest.raises(FailureError) as raised:
        it.update(1, goal="something else")
    assert code_of(raised) == "VERSION_CONFLICT"
    assert raised.value.failure.violations[0].field == "expected_version"
    it.update(2, policy='{"tone": null, "depth": {"max": 3}}')
    assert json.loads(it.board.policy) == {"depth": {"max": 3}}
    assert it.update(3, goal="find out more").applied is False  # nothing is different
    event = it.journal[-1]
    assert isinstance(event, events.ContextUpdated)
    assert event.changed == ("policy",)


def test_the_next_write_honours_the_policy() -> None:
    """I7: what the policy says of the blackboard counts from the next decision on."""
    it = Sharing()
    it.write(put("goal/main", "1"), put("b", "2"))
    it.update(1, policy='{"blackboard": {"max_keys": 2, "protected": ["goal/"]}}')
    with pytest.raises(FailureError) as raised:
        it.write(put("c", "3"))
    assert code_of(raised) == "PAYLOAD_TOO_LARGE"
    it.write(put("b", "3"))  # as many as before
    with pytest.raises(FailureError) as raised:
        it.write(put("goal/main", "2"), **AGENT)
    assert code_of(raised) == "PERMISSION_DENIED"
    it.write(put("goal/main", "2"))  # a person may
    with pytest.raises(FailureError) as raised:
        it.update(2, policy='{"blackboard": {"max_keys": "many"}}')
    assert code_of(raised) == "INVALID_REQUEST"
    assert "changes.policy.blackboard" in raised.value.failure.message


@pytest.mark.parametrize("adaptive", [False, True])
def test_agents_change_policy_only_while_the_swarm_is_adaptive(adaptive: bool) -> None:
    """B20: with the flag off nothing that agents want of the context is accepted; with it on each change is a version, with who made it."""
    it = Sharing(emergent=adaptive)
    if not adaptive:
        with pytest.raises(FailureError) as raised:
            it.update(1, policy='{"tone": "dry"}', **AGENT)
        assert code_of(raised) == "PERMISSION_DENIED"
        assert it.board.version == 1
        it.update(1, adaptive=True, actor="ann")  # a person switches it on
    version = it.board.version
    it.update(version, policy='{"tone": "dry"}', reason="they frown", **AGENT)
    event = it.journal[-1]
    assert isinstance(event, events.ContextUpdated)
    assert (event.version, event.run_id, event.step_id, event.reason) == (version + 1, RUN, "think", "they frown")
    assert SwarmMachine().classify(event) == "audit"
    for change in ({"limits": Allocation()}, {"adaptive": True}):
        with pytest.raises(FailureError) as raised:
            it.update(version + 1, **change, **AGENT)
        assert code_of(raised) == "PERMISSION_DENIED"
    it.update(version + 1, adaptive=False, actor="ann")
    with pytest.raises(FailureError):
        it.update(version + 2, policy="{}", **AGENT)


def test_what_an_ended_swarm_shared_stays() -> None:
    """I11, V5: once a swarm has ended nothing of what it shares changes."""
    it = Sharing()
    it.write(put("a", "1"))
    it.tell(commands.SteerSwarm(command="terminate", command_id="t"))
    for attempt in (lambda: it.write(put("a", "2")), lambda: it.update(1, goal="x"), lambda: it.mark("m")):
        with pytest.raises(FailureError) as raised:
            attempt()
        assert code_of(raised) == "STATE_CONFLICT"


def test_a_swarm_that_shares_nothing_carries_nothing() -> None:
    """I8: no board is made before something is written."""
    it = Sharing()
    with pytest.raises(FailureError):
        it.write(put("a", "1", expected=9))
    assert it.swarm.board is None
    assert it.board.revision == 1
    assert sharing.shared(Swarm(swarm_id="t")).entries == {}


def test_old_snapshots_are_read() -> None:
    """Q23: a snapshot from before there was a blackboard is a swarm without one."""
    fields = msgspec.msgpack.decode(SwarmMachine().dump(Sharing().swarm))
    del fields["board"]
    assert SwarmMachine().load(msgspec.msgpack.encode(fields)).board is None


KEYS = st.sampled_from("abcd")
ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.lists(st.tuples(KEYS, st.none() | st.sampled_from("123")), min_size=1, max_size=3)),
    st.tuples(st.just("policy"), st.sampled_from(["x", "y"])),
    st.tuples(st.just("mark"), st.sampled_from(["m", "n", "o"])),
    st.tuples(st.just("restore"), st.sampled_from(["m", "n", "o"])),
)


@given(st.lists(ACTIONS, max_size=25))
def test_versions_rise_and_every_checkpoint_can_be_gone_back_to(actions: list[tuple[str, Any]]) -> None:
    """I7, I11, K5, K6, U9: whatever is written, revisions rise by one, no key has a version twice, and a restore gives exactly the state, and the hash, of its checkpoint."""
    it = Sharing()
    marks: dict[str, tuple[str, dict[str, Any], str]] = {}
    versions: dict[str, int] = {}
    for kind, what in actions:
        before = it.board.revision
        if kind == "write":
            it.write(*(put(key, text) for key, text in dict(what).items()))
        elif kind == "policy":
            it.update(it.board.version, policy=json.dumps({"tone": what}))
        elif kind == "mark":
            marks[what] = (it.mark(what), it.texts(), it.board.policy)
        elif what in marks:
            hash_then, texts, policy = marks[what]
            reply = it.restore(what)
            assert (it.hash, it.texts(), it.board.policy) == (hash_then, texts, policy)
            assert reply.revision == it.board.revision
        assert it.board.revision in (before, before + 1)
        for key, entry in it.board.entries.items():
            assert versions.get(key, 0) <= entry.version <= it.board.revision
            versions[key] = entry.version
        assert it.board.bytes == sum(entry.size for entry in it.board.entries.values())
    _same_again(it)


def _same_again(it: Sharing) -> None:
    """The stored journal gives the same state, and so does a snapshot of it (R16, Q23)."""
    again = Swarm(swarm_id="s")
    for seq, event in enumerate(it.journal, 1):
        coded = event_pb2.EventBatch(events=[event_pb2.Event.FromString(wire.encode(event, seq, 7))])
        for _, time, read in wire.decode(coded.SerializeToString()):
            evolve(again, read, time)
    assert again == it.swarm
    assert SwarmMachine().load(SwarmMachine().dump(again)) == again


def test_checkpoints_store_changes_only_and_are_bounded() -> None:
    """K5, K6, K12: a checkpoint of many keys holds only those that were written since; beyond the most that are kept the oldest is gone; a name that is not there is said so."""
    it = Sharing()
    it.write(*(put(f"k{i}", str(i)) for i in range(100)))
    it.mark("start")
    small = len(SwarmMachine().dump(it.swarm))
    it.write(put("k1", '"other"'))
    it.mark("later")
    assert set(it.swarm.board.checkpoints[0].before) == {"k1"} if it.swarm.board else False
    assert len(SwarmMachine().dump(it.swarm)) < small * 1.2
    with pytest.raises(FailureError) as raised:
        it.restore("start", expected=1)
    assert code_of(raised) == "VERSION_CONFLICT"
    assert it.restore("start").changed == 1
    assert it.restore("start").applied is False  # it is there already
    for n in range(MOST_CHECKPOINTS):
        it.mark(f"m{n}")
    with pytest.raises(FailureError) as raised:
        it.restore("start")
    assert code_of(raised) == "NOT_FOUND"
    assert "m0" in raised.value.failure.message
