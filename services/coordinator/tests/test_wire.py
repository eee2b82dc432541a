"""The coding of swarms: what is written is read back, whatever it holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tierflow_contracts.events.v1 import event_pb2
from tierflow_coordinator import wire
from tierflow_coordinator.core import events, states
from tierflow_coordinator.core.board import Settings
from tierflow_coordinator.machine import SwarmMachine
from tierflow_runtime.values import Allocation, BlobRef, Context, Failure, Options, RetryPolicy, Usage, Violation

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)
COUNT = st.integers(0, 2**62)
USAGES = st.builds(
    Usage,
    credits=COUNT,
    wall_time=COUNT.map(lambda n: n % 10**15),
    cpu_time=COUNT.map(lambda n: n % 10**15),
    memory_bytes=COUNT,
    steps=COUNT,
    attempts=COUNT,
    tool_calls=COUNT,
    input_tokens=COUNT,
    output_tokens=COUNT,
    metrics=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2),
)
PLAIN_USAGES = st.builds(Usage, wall_time=COUNT.map(lambda n: n % 10**15), steps=COUNT, attempts=COUNT)
PAYLOADS = st.one_of(
    st.none(), st.just('{"a": 12345678901234567890}'), st.builds(BlobRef, sha256=st.just("ab" * 32), size=COUNT)
)
CODES = st.sampled_from(["TIMEOUT", "STEP_FAILED", "HANDLER_REJECTED"])
FAILURES = st.recursive(
    st.builds(
        Failure,
        code=CODES,
        message=TEXT,
        tier=st.integers(0, 3),
        detail=TEXT,
        retryable=st.booleans(),
        retry_after=st.none() | st.integers(0, 10**12),
        violations=st.lists(st.builds(Violation, field=TEXT, description=TEXT), max_size=2).map(tuple),
    ),
    lambda inner: st.builds(Failure, code=CODES, message=TEXT, cause=inner),
    max_leaves=3,
)
CONTEXTS = st.builds(
    Context,
    tenant=TEXT,
    user_id=TEXT,
    swarm_id=TEXT,
    correlation_id=TEXT,
    deadline=st.none() | st.integers(0, 2**52),
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    depth=st.integers(0, 64),
)
STATES = st.sampled_from(states.STATES)
ANY_USAGE = USAGES | PLAIN_USAGES | st.just(Usage())
EVENTS = st.one_of(
    st.builds(
        events.SwarmCreated,
        context=CONTEXTS,
        flow_hash=TEXT,
        flow_name=TEXT,
        flow_version=TEXT,
        input=PAYLOADS,
        allocation=st.builds(Allocation, credits=st.none() | COUNT, wall_time=st.none() | st.integers(0, 10**15)),
        options=st.builds(Options, priority=st.integers(-100, 100), retry=st.none() | st.builds(RetryPolicy)),
        goal=TEXT,
    ),
    st.builds(events.SwarmStateChanged, from_=STATES, to=STATES, reason=TEXT, actor=TEXT),
    st.builds(events.RunRequested, run_id=TEXT, generation=st.integers(1, 9)),
    st.builds(events.RunTaken, run_id=TEXT),
    st.builds(
        events.RunFinished,
        run_id=TEXT,
        generation=st.integers(1, 9),
        state=st.sampled_from(["COMPLETED", "FAILED", "CANCELLED"]),
        outcome=st.sampled_from(["SUCCESS", "PARTIAL", "DEGRADED", "FAILURE", "CANCELLED"]),
        output=PAYLOADS,
        failure=st.none() | FAILURES,
        usage=ANY_USAGE,
    ),
    st.builds(
        events.SwarmEnded,
        from_=STATES,
        to=STATES,
        outcome=st.sampled_from(["SUCCESS", "FAILURE", "CANCELLED"]),
        output=PAYLOADS,
        failure=st.none() | FAILURES,
        usage=ANY_USAGE,
        reason=TEXT,
        actor=TEXT,
    ),
    st.builds(events.CommandReceived, command_id=TEXT, command=TEXT, actor=TEXT, reason=TEXT),
    st.builds(
        events.ContextUpdated,
        version=COUNT,
        revision=COUNT,
        settings=st.builds(
            Settings,
            goal=TEXT,
            limits=st.builds(Allocation, credits=st.none() | COUNT),
            policy=st.just('{"tone":"dry"}'),
            adaptive=st.booleans(),
        ),
        changed=st.lists(TEXT, max_size=2).map(tuple),
        run_id=TEXT,
        reason=TEXT,
    ),
    st.builds(
        events.BlackboardChanged,
        revision=COUNT,
        changes=st.lists(
            st.builds(
                events.KeyChanged, key=TEXT, previous=COUNT, value=PAYLOADS, encoding=TEXT, size=COUNT, sha256=TEXT
            ),
            max_size=3,
        ).map(tuple),
        actor=TEXT,
        run_id=TEXT,
        step_id=TEXT,
        command_id=TEXT,
    ),
    st.builds(events.ContextCheckpointed, name=TEXT, revision=COUNT, hash=TEXT, actor=TEXT, command_id=TEXT),
    st.builds(events.ContextRestored, name=TEXT, to_revision=COUNT, revision=COUNT, hash=TEXT, reason=TEXT),
)


@given(st.lists(st.tuples(EVENTS, st.integers(1, 2**40), st.integers(0, 2**52)), max_size=5))
def test_events(some: list[tuple[events.SwarmEvent, int, int]]) -> None:
    """Q23, A9, A11: every event comes back as it was, numbers exactly, with its place and time; each has a class."""
    batch = event_pb2.EventBatch()
    for event, seq, time in some:
        message = event_pb2.Event.FromString(wire.encode(event, seq, time))
        assert message.WhichOneof("payload")
        batch.events.append(message)
        assert SwarmMachine().classify(event) in ("lifecycle", "audit")
    read = list(wire.decode(batch.SerializeToString()))
    assert read == [(seq, time, event) for event, seq, time in some]
