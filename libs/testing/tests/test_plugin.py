"""What the plug-in keeps out of the log."""

import asyncio
import logging

import pytest


def test_calls_that_outlive_their_loop_are_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    """O2: what gRPC says when a call ends after its event loop is not logged; whatever else a loop says is."""
    said = {
        "Exception in callback PollerCompletionQueue._handle_events()": RuntimeError("Event loop is closed"),
        "Exception in callback PollerCompletionQueue._handle_events(1)": RuntimeError("something else"),
        "Exception in callback mine()": RuntimeError("Event loop is closed"),
    }
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        for message, error in said.items():
            loop.call_exception_handler({"message": message, "exception": error})
    loop.close()
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == list(said)[1:]
