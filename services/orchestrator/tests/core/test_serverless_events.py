"""Documents of the Serverless Workflow DSL that listen."""

from __future__ import annotations

import json

from .documents import Doc


def test_events_are_taken_in_the_order_in_which_they_came() -> None:
    """Q5: events that come early wait; each is taken once; those that no filter wants stay."""
    it = Doc(
        """
        do:
          - first: {call: h}
          - hear:
              listen:
                to:
                  all:
                    - with: {type: temperature, data: '${ .degrees > 38 }'}
                    - with: {type: pulse}
        """
    )
    it.send("pulse", {"bpm": 1})
    it.send("temperature", {"degrees": 37})
    it.send("noise")
    it.complete("/do/0/first")
    assert it.run.state == "SUSPENDED"
    it.send("temperature", {"degrees": 39})
    assert it.output == [{"bpm": 1}, {"degrees": 39}]
    assert [json.loads(text)["type"] for text in it.run.signals["events"]] == ["temperature", "noise"]


def test_events_that_belong_together() -> None:
    """Q5: a correlation is bound by the first event, and the others must have the same."""
    it = Doc(
        """
        do:
          - hear:
              listen:
                to:
                  all:
                    - {with: {type: a}, correlate: {room: {from: .room}}}
                    - {with: {type: b}, correlate: {room: {from: .room}}}
                read: envelope
              output: {as: 'map(.room)'}
        """
    )
    it.send("a", room=1)
    it.send("b", room=2)
    it.send("b", room=1)
    assert it.output == [1, 1]


def test_listening_until_it_is_enough() -> None:
    """Q5: until a condition holds, until an event comes, or for ever; with tasks for each event, one after the other."""
    it = Doc("do: [{hear: {listen: {to: {any: [], until: length == 2}}}}]")
    it.send("x", 1)
    assert it.run.state == "SUSPENDED"
    it.send("y", 2)
    assert it.output == [1, 2]
    text = """
        do:
          - hear:
              listen: {to: {any: [{with: {type: order}}], until: {one: {with: {type: close}}}}}
              foreach: {item: order, at: n, do: [{take: {call: h, with: {order: '${ $order }', n: '${ $n }'}}}]}
    """
    it = Doc(text)
    it.send("order", "a")
    it.send("order", "b")
    assert list(it.run.live) == ["/do/0/hear/foreach/do/0/take"]
    it.complete("/do/0/hear/foreach/do/0/take")
    taken = next(iter(it.run.live))
    assert json.loads(str(it.run.steps[taken].input)) == {"order": "b", "n": 1}
    it.complete(taken)
    it.send("close")
    assert it.output == ["a", "b"]


def test_a_document_that_does_not_listen_takes_no_event() -> None:
    """Q5: what nobody can ever take is refused."""
    it = Doc("do: [{work: {call: h}}]")
    reply = it.send("x")
    assert (reply.applied, reply.failure.code) == (False, "INVALID_REQUEST")
