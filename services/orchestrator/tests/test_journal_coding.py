"""What the core decides, through the journal's coding and back: nothing of it is lost on the way."""

import pytest
from tierflow_contracts.events.v1 import event_pb2
from tierflow_orchestrator import wire, wire_reading
from tierflow_orchestrator.core import dump
from tierflow_runtime.subjects import CATALOGUE

from .core.fakes import fold
from .core.test_storm import Storm


@pytest.mark.parametrize("block", range(4))
def test_events_come_back_as_they_were(block: int) -> None:
    """V12, R16, K7: every event of random lives is the same after coding, and the run that they give is the same, byte for byte."""
    kinds = set()
    for seed in range(block * 25, block * 25 + 25):
        storm = Storm(seed)
        storm.settle()
        for _ in range(40):
            storm.weather()
        batch = event_pb2.EventBatch()
        for number, (event, time) in enumerate(storm.journal, 1):
            batch.events.append(event_pb2.Event.FromString(wire.encode_event(event, number, time)))
            kinds.add(type(event).__name__)
        read = list(wire.decode_events(batch.SerializeToString()))
        assert read == [(number, time, event) for number, (event, time) in enumerate(storm.journal, 1)]
        loaded = fold(storm.flow, [(event, time) for _, time, event in read])
        assert dump(loaded) == dump(storm.run), f"seed {seed}"
    assert len(kinds) >= 12, "the lives are too dull to show anything"


def test_every_event_of_a_run_is_published() -> None:
    """A11, C5: what can be in a journal has a class, under which it is published."""
    assert set(wire_reading._DECODERS) <= set(CATALOGUE)
