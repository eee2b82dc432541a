"""Documents of the CNCF Serverless Workflow DSL, decided step by step. After each decision the run is taken over: from its journal as it is on the wire, and from a snapshot."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest
from tierflow_contracts.events.v1 import event_pb2
from tierflow_flow import FlowError, parse
from tierflow_orchestrator import wire
from tierflow_orchestrator.core import Decision, dump, evolve, load
from tierflow_orchestrator.core.commands import Cancel, Pause, Resume, RunCommand, Signal, WakeUp
from tierflow_orchestrator.core.events import EventEmitted, RunEnded, StepCompleted, StepEntered
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.serverless import walking
from tierflow_orchestrator.core.serverless.errors import error_of

from .fakes import RUN_ID, SECOND, START, Shell

HEAD = "document: {dsl: 1.0.3, namespace: test, name: doc, version: 1.0.0}\n"


class Doc(Shell):
    """A run of a document. `told` is a decision after which somebody else takes over."""

    def __init__(self, text: str, given: Any = None, environment: dict[str, str] | None = None) -> None:
        self.environment = environment or {}
        super().__init__(parse(HEAD + dedent(text)), input=json.dumps(given or {}))

    def decide(self, command: RunCommand) -> Decision:
        self.run.environment = self.environment
        decision = super().decide(command)
        self._take_over()
        return decision

    def _take_over(self) -> None:
        batch = event_pb2.EventBatch()
        for seq, (event, time) in enumerate(self.journal, 1):
            batch.events.append(event_pb2.Event.FromString(wire.encode_event(event, seq, time)))
        told = Run.fresh(RUN_ID)
        told.flow = self.flow
        for _, time, event in wire.decode_events(batch.SerializeToString()):
            evolve(told, event, time)
        kept = load(dump(self.run))
        assert dump(kept) == dump(self.run)
        assert self.blobs or dump(told) == dump(self.run)  # a reference does not say its media type on the wire
        kept.flow = self.flow
        kept.contents = {sha: content.decode() for sha, content in self.blobs.items()}
        kept.make_due(self.now)
        self.run = kept

    def wake(self, after: float = 0) -> None:
        """The time that it waits for comes; `after` seconds at least."""
        moment = self.run.next_wake()
        assert moment is not None
        assert after == 0 or moment - START > after * SECOND - SECOND / 2, (moment - START) / SECOND
        self.now = max(self.now, moment)
        self.tell(WakeUp())

    def send(self, kind: str, data: Any = None, **more: Any) -> Any:
        number = sum(1 for event, _ in self.journal if type(event).__name__ == "SignalReceived")
        event = {"specversion": "1.0", "type": kind, "data": data, **more}
        return self.tell(Signal(command_id=f"c{number}", name=kind, payload=json.dumps(event))).reply

    def answer(self, step_id: str, body: Any = None, status: int = 200) -> None:
        self.complete(step_id, json.dumps({"status": status, "headers": {}, "body": body}))

    @property
    def output(self) -> Any:
        assert self.run.state == "COMPLETED", (self.run.state, self.run.failure)
        return json.loads(str(self.run.output))

    @property
    def error(self) -> dict[str, Any]:
        assert self.run.state == "FAILED", self.run.state
        failure = self.run.failure
        while failure is not None and failure.cause is not None:
            failure = failure.cause
        assert failure is not None
        return error_of(failure, "")

    def order(self) -> list[str]:
        return [event.step_id for event in self.events(StepEntered)]


def test_tasks_one_after_another_hand_on_their_data() -> None:
    """E1, E2: a document is a flow whose navigator is chosen from itself; its steps are its tasks, by their pointers."""
    it = Doc(
        """
        do:
          - first: {set: {n: '${ .start + 1 }'}}
          - inner:
              do:
                - second: {set: {n: '${ .n * 10 }'}, output: {as: .n}}
              output: {as: '{ n: ., was: $input.n }'}
          - third: {set: '${ . + {last: true} }'}
        """,
        {"start": 1},
    )
    assert it.flow.navigator == "serverless"
    assert it.order() == ["/do", "/do/0/first", "/do/1/inner", "/do/1/inner/do/0/second", "/do/2/third"]
    assert it.output == {"n": 20, "was": 2, "last": True}


def test_calls_go_to_handlers_and_their_answers_on() -> None:
    """E1: attempts, slots and retries of lost attempts are the core's; what the handler is given and what is made of its answer is the document's."""
    it = Doc(
        """
        use: {secrets: [api]}
        do:
          - fetch:
              call: http
              with:
                method: post
                endpoint:
                  uri: https://example.com/pets/{id}
                  authentication: {bearer: {token: '${ $secrets.api }'}}
                query: {q: '${ .id }'}
                headers: {x-y: z}
                body: {of: '${ .id }'}
                output: response
              export: {as: '{ kept: .content.name }'}
          - charge: {call: billing.charge, with: {name: '${ $context.kept }', status: '${ .statusCode }'}}
        """,
        {"id": 7},
        {"api": "s3cret"},
    )
    asked = json.loads(str(it.run.steps["/do/0/fetch"].input))
    assert asked == {
        "url": "https://example.com/pets/7",
        "method": "POST",
        "any_status": True,
        "follow_redirects": False,
        "headers": {"x-y": "z", "Authorization": "Bearer s3cret"},
        "query": {"q": "7"},
        "body": {"of": 7},
    }
    it.answer("/do/0/fetch", {"name": "Milou"})
    fetched = json.loads(str(it.run.steps["/do/0/fetch"].output))
    assert fetched["request"]["headers"] == {"x-y": "z"}
    assert json.loads(str(it.run.steps["/do/1/charge"].input)) == {"name": "Milou", "status": 200}
    it.complete("/do/1/charge", '"receipt"')
    assert it.output == "receipt"
    assert it.run.usage.credits == 10


def test_a_lost_executor_is_no_error_of_the_document() -> None:
    """R26: what was lost with its executor is tried again by the core."""
    from tierflow_orchestrator.core.commands import ReportLost

    it = Doc("do: [{work: {call: work}}]")
    it.tell(ReportLost(attempt_id=it.attempt_id("/do/0/work"), reason="gone"))
    it.tell(WakeUp())
    assert (it.state("/do/0/work"), it.run.steps["/do/0/work"].attempt) == ("SCHEDULED", 2)
    it.complete("/do/0/work")
    assert it.output == 1


def test_loops_bind_their_items_and_go_on_from_iteration_to_iteration() -> None:
    """E1: each iteration is steps of its own, named after it; `while` ends a loop, `exit` leaves it."""
    it = Doc(
        """
        do:
          - loop:
              for: {each: item, at: place, in: .items}
              while: '(.sum // 0) < 10'
              do:
                - add: {call: add, with: {a: '${ .sum // 0 }', b: '${ $item }', at: '${ $place }'}, output: {as: '{sum: .}'}}
                - seen: {if: $item == 3, set: '${ . + {seen: 3} }'}
        """,
        {"items": [1, 2, 3, 4, 5, 6]},
    )
    for index, total in enumerate([1, 3, 6, 10]):
        number = f"[{index}]" if index else ""
        step_id = f"/do/0/loop/do{number}/0/add"
        assert json.loads(str(it.run.steps[step_id].input)) == {"a": [0, 1, 3, 6][index], "b": index + 1, "at": index}
        it.complete(step_id, str(total))
    assert it.output == {"sum": 10}
    assert it.state("/do/0/loop/do[2]/1/seen") == "COMPLETED"
    assert it.state("/do/0/loop/do[1]/1/seen") == "SKIPPED"


def test_exit_leaves_a_loop_and_end_ends_the_document() -> None:
    """E1: flow directives."""
    text = """
        do:
          - loop:
              for: {in: .items}
              do:
                - pick: {set: {n: '${ $item }'}}
                - stop: {switch: [{enough: {when: .n == 2, then: WHERE}}]}
          - after: {set: {after: '${ .n }'}}
    """
    assert Doc(text.replace("WHERE", "exit"), {"items": [1, 2, 3]}).output == {"after": 2}
    assert Doc(text.replace("WHERE", "end"), {"items": [1, 2, 3]}).output == {"n": 2}
    assert Doc(text.replace("WHERE", "continue"), {"items": [1, 2, 3]}).output == {"after": 3}


def test_branches_run_side_by_side() -> None:
    """E1: the output of a fork is the outputs of its branches, in their order, whoever was first."""
    it = Doc("do: [{both: {fork: {branches: [{a: {call: h}}, {b: {call: h}}]}}}]")
    assert len(it.run.live) == 2
    it.complete("/do/0/both/fork/branches/1/b", '"b"')
    it.complete("/do/0/both/fork/branches/0/a", '"a"')
    assert it.output == ["a", "b"]


def test_of_competing_branches_the_others_are_stopped() -> None:
    """E1, G11, G1: the first one wins; what was in flight is told to stop, and the run ends when it has."""
    it = Doc("do: [{race: {fork: {compete: true, branches: [{a: {call: h}}, {b: {do: [{c: {call: h}}]}}]}}}]")
    it.complete("/do/0/race/fork/branches/0/a", '"a"')
    assert [stop.attempt_id for stop in it.stops] == [f"{RUN_ID}//do/0/race/fork/branches/1/b/do/0/c/1"]
    assert it.state("/do/0/race") == "COMPLETED"
    assert it.run.state == "RUNNING"
    it.cancelled("/do/0/race/fork/branches/1/b/do/0/c")
    assert it.output == "a"
    assert it.run.outcome == "SUCCESS"


def test_a_failed_branch_stops_the_others() -> None:
    """E1, G11: a fork fails with its branch."""
    it = Doc("do: [{both: {fork: {branches: [{a: {call: h}}, {b: {call: h}}]}}}]")
    it.fail("/do/0/both/fork/branches/0/a", "CONNECTION_FAILED")
    it.cancelled("/do/0/both/fork/branches/1/b")
    assert (it.error["status"], it.error["instance"]) == (503, "/do/0/both/fork/branches/0/a")


CATCH = """
    do:
      - attempt:
          try: [{work: {call: h}}]
          catch:
            errors: {with: {type: https://serverlessworkflow.io/spec/1.0.0/errors/communication}}
            as: problem
            when: $problem.status == 503
            RETRY
            do: [{handle: {set: {status: '${ $problem.status }', at: '${ $problem.instance }'}}}]
"""


def test_errors_are_caught_by_what_they_are() -> None:
    """F3, Lesson 13: an error is told by its type and status, never by its words."""
    text = CATCH.replace("            RETRY\n", "")
    it = Doc(text)
    it.fail("/do/0/attempt/try/0/work", "CONNECTION_FAILED")
    assert it.output == {"status": 503, "at": "/do/0/attempt/try/0/work"}
    assert it.run.outcome == "SUCCESS"
    it = Doc(text)
    it.fail("/do/0/attempt/try/0/work", "CONNECTION_TIMEOUT")
    assert it.error["status"] == 504
    it = Doc(text)
    it.fail("/do/0/attempt/try/0/work", "HANDLER_FAILED")
    assert it.error["type"].endswith("/runtime")


def test_tries_come_again_after_durable_delays() -> None:
    """Q1, F11: delays grow as the policy says, hold over restarts, and end with its limit."""
    it = Doc(CATCH.replace("RETRY", "retry: {delay: PT10S, backoff: {exponential: {}}, limit: {attempt: {count: 2}}}"))
    it.fail("/do/0/attempt/try/0/work", "CONNECTION_FAILED")
    assert it.run.state == "SUSPENDED"
    it.wake(10)
    it.fail("/do/0/attempt/try[1]/0/work", "CONNECTION_FAILED")
    it.wake(30)
    it.fail("/do/0/attempt/try[2]/0/work", "CONNECTION_FAILED")
    assert it.output == {"status": 503, "at": "/do/0/attempt/try/0/work"}
    it = Doc(CATCH.replace("RETRY", "retry: {delay: {seconds: 1}}"))
    it.fail("/do/0/attempt/try/0/work", "CONNECTION_FAILED")
    it.wake(1)
    it.complete("/do/0/attempt/try[1]/0/work", '"at last"')
    assert it.output == "at last"


def test_raised_errors_reach_whoever_asked() -> None:
    """F22, F23: the error of the document is the failure of the run, with the task where it arose."""
    it = Doc(
        """
        use: {errors: {no: {type: https://example.com/no, status: 418, title: No, detail: '${ "for \\(.who)" }'}}}
        do: [{deep: {do: [{stop: {raise: {error: no}}}]}}]
        """,
        {"who": "you"},
    )
    wanted = {"type": "https://example.com/no", "status": 418, "title": "No", "detail": "for you"}
    assert it.error == wanted | {"instance": "/do/0/deep/do/0/stop"}
    assert it.run.failure is not None
    assert "No: for you" in it.run.failure.message


def test_waits_are_durable_timers() -> None:
    """Q1, E13: a run that only waits is SUSPENDED, and goes on when its moment comes."""
    it = Doc("do: [{nap: {wait: {minutes: 5}}}, {said: {set: {awake: true}}}]")
    assert it.run.state == "SUSPENDED"
    it.wake(300)
    assert it.output == {"awake": True}


@pytest.mark.parametrize(
    "task",
    [
        "wait: PT1H",
        "listen: {to: {any: []}}",
        "do: [{inner: {wait: PT1H}}]",
        "do: [{inner: {call: h}}]",
        "for: {in: '[1,2]'}\n      do: [{inner: {wait: PT1H}}]",
    ],
)
def test_time_is_up(task: str) -> None:
    """F5, F32: whatever lasts too long is stopped, and is a timeout."""
    it = Doc(f"do:\n  - long:\n      {task}\n      timeout: {{after: PT30S}}\n")
    it.wake(30)
    if it.run.live:
        assert it.stops
        it.cancelled(next(iter(it.run.live)))
    assert (it.error["type"].rpartition("/")[2], it.error["instance"]) == ("timeout", "/do/0/long")


def test_the_time_of_a_call_is_its_attempts_timeout() -> None:
    """F5: a call's timeout is the executor's to keep."""
    it = Doc("do: [{work: {call: h, timeout: {after: PT7S}}}]")
    assert it.flow.by_id["/do/0/work"].timeout == 7 * SECOND
    it.fail("/do/0/work", "TIMEOUT")
    assert it.error["status"] == 408


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


def test_events_are_published_through_the_journal() -> None:
    """S10: an event of the document is one of the run's own."""
    it = Doc(
        "do: [{tell: {emit: {event: {with: {source: 'https://a.b', type: c.d, data: {n: '${ .n }'}}}}}}]", {"n": 3}
    )
    emitted = it.events(EventEmitted)[0]
    assert emitted.name == "c.d"
    event = json.loads(str(emitted.payload))
    assert (event["data"], event["specversion"], event["id"]) == ({"n": 3}, "1.0", f"{RUN_ID}/do/0/tell")
    assert it.output == event


def test_schemas_are_checked() -> None:
    """L1: input, output and context match their schemas, or it is a validation error."""
    schema = "schema: {document: {type: object, required: [n]}}"
    assert Doc(f"input: {{{schema}}}\ndo: [{{a: {{set: {{n: 1}}}}}}]").run.state == "FAILED"
    for section in ("input", "output", "export"):
        more = ", as: ." if section == "export" else ""
        it = Doc(f"do: [{{a: {{set: {{m: 1}}, {section}: {{{schema}{more}}}}}}}]")
        assert it.error["type"].endswith("/validation"), section


def test_expressions_that_fail_are_errors_of_the_document() -> None:
    """F3: they can be caught like others; what takes for ever is stopped."""
    it = Doc("do: [{a: {set: '${ [range(1e9)] }'}}]")
    assert it.error["type"].endswith("/expression")
    it = Doc("do: [{t: {try: [{a: {set: '${ .x + {} }'}}], catch: {errors: {with: {status: 400}}}}}]", {"x": 1})
    assert it.output == {"x": 1}


def test_functions_of_the_document() -> None:
    """E2: a function is a task of its own that begins with the call's arguments."""
    it = Doc(
        """
        use: {functions: {double: {set: {n: '${ .n * 2 }'}}}}
        do: [{a: {call: double, with: {n: '${ .n + 1 }'}}}, {b: {call: double, with: {n: '${ .n }'}}}]
        """,
        {"n": 1},
    )
    assert it.output == {"n": 8}
    assert it.order()[2] == "/do/0/a/call/double"


def test_commands_hold_for_documents_too() -> None:
    """G1, G2: pause, resume and cancel, with branches, waits and loops under way."""
    text = "do: [{both: {fork: {branches: [{a: {call: h}}, {b: {wait: PT1H}}]}}}]"
    it = Doc(text)
    it.tell(Pause(command_id="p"))
    it.complete("/do/0/both/fork/branches/0/a", "1")
    assert it.run.state == "PAUSED"
    it.tell(Resume(command_id="r"))
    assert it.run.state == "SUSPENDED"
    it.tell(Cancel(command_id="c"))
    assert it.run.state == "CANCELLED"
    it = Doc(text)
    it.tell(Cancel(command_id="c"))
    it.cancelled("/do/0/both/fork/branches/0/a")
    assert it.run.state == "CANCELLED"
    assert len(it.events(RunEnded)) == 1


def test_a_document_that_goes_round_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """E1, Lesson 29: tasks that take no time give way after some, and a run may begin only so many."""
    monkeypatch.setattr(walking, "MOST_STEPS", 2_000)
    it = Shell(parse(HEAD + "do: [{a: {set: {n: '${ (.n // 0) + 1 }'}}}, {b: {set: '${ . }', then: a}}]"), input="{}")
    decisions = 1
    while it.run.state != "FAILED":
        it.tell(WakeUp())
        decisions += 1
    it.check()
    assert decisions > 3
    assert "2000 tasks" in str(it.run.failure)


def test_values_that_are_large_are_stored_apart() -> None:
    """R33: what is large is handed on by reference, and is at hand for expressions after a takeover."""
    it = Doc(
        "do: [{work: {call: h, with: {}}}, {big: {set: {all: '${ . + . }'}}}, {m: {set: {n: '${ .all | length }'}}}]"
    )
    it.complete("/do/0/work", json.dumps("x" * 60_000))
    assert it.output == {"n": 120_000}
    assert it.blobs
    assert any(not isinstance(event.output, str) for event in it.events(StepCompleted))


PROBLEMS = [
    ("do: [{a: {set: {n: '${ .a + }'}}}]", "do[0].a.set.n"),
    ("do: [{a: {set: {n: '${ $nope }'}}}]", "$nope is not there"),
    ("do: [{a: {set: {n: 1}, then: nowhere}}]", "no task 'nowhere'"),
    ("do: [{a: {sett: {n: 1}}}]", "is no task"),
    ("do: [{a: {set: {n: 1}, wait: PT1S}}]", "several tasks at once"),
    ("do: [{a: {wait: P1Y}}]", "no duration"),
    ("do: [{a: {call: grpc, with: {}}}]", "UNSUPPORTED: calls of grpc"),
    ("do: [{a: {run: {container: {image: x}}}}]", "UNSUPPORTED: running containers"),
    ("do: [{a: {raise: {error: gone}}}]", "use.errors has no 'gone'"),
    ("do: [{a: {set: {n: 1}}}, {a: {set: {n: 2}}}]", "two tasks named 'a'"),
    ("do: [{a: {call: f}}]\nuse: {functions: {f: {call: f}}}", "calls itself"),
    ("do: [{a: {for: {in: .x}, do: [{b: {set: {n: '${ $item }'}}}]}}, {c: {set: {n: '${ $item }'}}}]", "$item is not"),
    ("do: [{a: {try: [{b: {wait: PT1S}}], catch: {retry: none}}}]", "use.retries has no 'none'"),
    ("do: [{a: {call: http, with: {method: get, endpoint: 'nowhere'}}}]", "no absolute URI"),
    ("schedule: {cron: '* * * * *'}\ndo: [{a: {wait: PT1S}}]", "UNSUPPORTED: schedules"),
    ("do: [{a: {fork: {branches: []}}}]", "at least one branch"),
    ("do: {a: 1}", "expected a list of tasks"),
]


@pytest.mark.parametrize(("text", "part"), PROBLEMS)
def test_what_is_wrong_is_told_with_its_place(text: str, part: str) -> None:
    """E5: every problem with its path and line, before anything runs; what this version does not do says so."""
    with pytest.raises(FlowError) as caught:
        parse(HEAD + text)
    found = caught.value.problems
    assert any(part in problem.description or part in problem.path for problem in found), found
    assert all(problem.line for problem in found)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """E5: no problem hides another."""
    with pytest.raises(FlowError) as caught:
        parse(HEAD + "do:\n" + "".join(f"  - t{i}: {{set: {{n: '${{ .a + }}'}}, then: x{i}}}\n" for i in range(5)))
    assert len(caught.value.problems) == 10
    assert sorted({problem.line for problem in caught.value.problems}) == [3, 4, 5, 6, 7]
