"""Blocks in Python: the same documents as written by hand."""

from __future__ import annotations

import pytest
from tierflow import flow, goto, undo
from tierflow_flow import parse

WRITTEN = """
name: trips
compensate_on: [cancel]
steps:
  start: {call: a.start}
  trip:
    needs: [start]
    retry: {max_attempts: 2, initial_delay: 5s}
    timeout: 10m
    compensate: {call: trips.cancel, with: {room: "${{ output.room }}"}, timeout: 5s}
    steps:
      hotel:
        call: hotels.book
        with: {day: "${{ steps.start.output.day }}"}
        compensate: {call: hotels.cancel, with: {room: "${{ output.room }}"}, retry: {max_attempts: 9}}
      flight:
        call: flights.book
        on_error: {goto: other, then: retry, calls: 2}
      other: {call: flights.other, with: {why: "${{ last_error.code }}"}}
    output: {room: "${{ steps.hotel.output.room }}"}
  each:
    map: ${{ steps.trip.output.guests }}
    concurrency: 4
    tolerate: 1
    steps:
      ask: {call: mail.ask, with: {guest: "${{ item }}", at: "${{ index }}"}}
  poll:
    needs: [each]
    loop: {until: steps.look.output.done, delay: 2s, factor: 2, max_delay: 1m, max: 50}
    timeout: 1h
    steps:
      look: {call: mail.look, with: {at: "${{ loop.index }}", before: "${{ loop.last }}"}}
  count: {loop: {for: 3, while: loop.index < 2}, steps: {inner: {steps: {tell: {emit: counted}}}}}
"""


def test_blocks_are_what_they_are_written_by_hand() -> None:
    """E11, E13, K4: one hash."""
    f = flow("trips", compensate_on=["cancel"])
    start = f.call("start", "a.start")
    whole = undo("trips.cancel", timeout="5s", room=f.output_of.room)
    retry = {"max_attempts": 2, "initial_delay": "5s"}
    with f.group("trip", needs=[start], retry=retry, timeout="10m", compensate=whole) as trip:
        single = undo("hotels.cancel", retry={"max_attempts": 9}, room=f.output_of.room)
        hotel = f.call("hotel", "hotels.book", compensate=single, day=start.output.day)
        f.call("flight", "flights.book", on_error=goto("other", then="retry", calls=2))
        f.call("other", "flights.other", why=f.last_error.code)
        trip.yields = {"room": hotel.output.room}
    with f.each("each", trip.output.guests, concurrency=4, tolerate=1) as each:
        f.call("ask", "mail.ask", guest=f.item, at=f.index)
    with f.loop("poll", needs=[each], delay="2s", factor=2, max_delay="1m", max=50, timeout="1h") as poll:
        look = f.call("look", "mail.look", at=poll.index, before=poll.last)
        poll.until(look.output.done)
    with f.loop("count", for_=3, while_="loop.index < 2"), f.group("inner"):
        f.emit("tell", "counted")
    assert parse(f.to_json(), "json").canonical == parse(WRITTEN).canonical


def test_ids_are_taken_once_in_each_block() -> None:
    """E5, E15: what is within is apart from what is around."""
    f = flow("f")
    f.call("a", "h")
    with f.group("g"):
        f.call("a", "h")
        with pytest.raises(ValueError, match="there is a step 'a' already"):
            f.call("a", "h")
    with pytest.raises(ValueError, match="there is a step 'g' already"):
        f.group("g")
    assert set(f.to_dict()["steps"]["g"]["steps"]) == {"a"}
