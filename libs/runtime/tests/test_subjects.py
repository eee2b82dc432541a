"""Subjects and the catalogue of events."""

import timeit

import pytest
from hypothesis import given
from runtime_samples import text
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime.subjects import (
    CATALOGUE,
    PROGRESS_SUBJECTS,
    RELIABLE,
    RELIABLE_SUBJECTS,
    class_of,
    subjects_of,
    token,
    untoken,
)
from tierflow_runtime.values import FailureError


def test_every_kind_of_event_has_a_class() -> None:
    """A11: the catalogue has every payload of the contract and no other, each with a class of the contract."""
    kinds = {field.name for field in ev.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert set(CATALOGUE) == kinds
    classes = set(ev.EventClass.values()) - {ev.EVENT_CLASS_UNSPECIFIED}
    assert set(RELIABLE) | {ev.EVENT_CLASS_PROGRESS} == classes


@pytest.mark.parametrize("kind", list(CATALOGUE))
def test_classes(kind: str) -> None:
    """A11: an event's class is known from its payload."""
    event = ev.Event(seq=1)
    getattr(event, kind).SetInParent()
    assert class_of(event) == CATALOGUE[kind]


def test_events_of_no_kind_are_refused() -> None:
    """A11: an event without a payload, or of a kind that a newer build made, has no class."""
    newer = ev.Event.FromString(ev.Event(seq=1).SerializeToString() + b"\xfa\xf0\x04\x00")
    for event in (ev.Event(seq=7), newer):
        with pytest.raises(FailureError) as caught:
            class_of(event)
        assert caught.value.failure.code == "INTERNAL"


def test_subjects() -> None:
    """H10: subjects are dotted, tenant, swarm, run, class; a swarm's own have no run; progress has its step."""
    run = subjects_of("acme", "s1", "r1")
    assert run.of(ev.EVENT_CLASS_STEPS) == "tierflow.v1.acme.s1.r1.steps"
    assert subjects_of("acme", "s1").of(ev.EVENT_CLASS_LIFECYCLE) == "tierflow.v1.acme.s1.-.lifecycle"
    assert run.progress("analyse[3]") == "tierflow.v1.acme.s1.r1.progress.analyse=5B3=5D"


def test_streams_take_all_subjects_and_no_other() -> None:
    """H10, H11: each class is in exactly one of the two streams: reliable, or fire and forget."""
    assert [subject.rsplit(".", 1)[1] for subject in RELIABLE_SUBJECTS] == [
        "lifecycle",
        "steps",
        "tools",
        "approvals",
        "audit",
    ]
    assert PROGRESS_SUBJECTS == ("tierflow.v1.*.*.*.progress.>",)


@given(text, text)
def test_tokens(one: str, other: str) -> None:
    """H10, L4: any text is one token without wildcards, and different tenants never share a subject."""
    for given_text in (one, other):
        made = token(given_text)
        assert made
        assert not set(made) & set(". *>\t\r\n")
        assert made.isascii()
        assert untoken(made) == given_text
    assert (token(one) == token(other)) == (one == other)


def test_subjects_are_built_once() -> None:
    """H16: an entity's subjects are built once; finding them again is a look-up of a microsecond or so."""
    assert subjects_of("acme", "s", "r") is subjects_of("acme", "s", "r")
    each = (
        min(timeit.repeat(lambda: subjects_of("acme", "s", "r").of(ev.EVENT_CLASS_STEPS), number=1000, repeat=10))
        / 1000
    )
    assert each < 20e-6
