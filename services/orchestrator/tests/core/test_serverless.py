"""Documents of the Serverless Workflow DSL, decided step by step."""

from __future__ import annotations

import json

import pytest
from tierflow_flow import parse
from tierflow_flow.definition import Norm
from tierflow_flow.norms import Policy
from tierflow_orchestrator.core.commands import Cancel, DecideApproval, Pause, ReportLost, Resume, WakeUp
from tierflow_orchestrator.core.events import EventEmitted, RunEnded, StepCompleted
from tierflow_orchestrator.core.serverless import walking

from .documents import HEAD, Doc
from .fakes import RUN_ID, SECOND, Shell, Value


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


def test_apis_that_describe_themselves() -> None:
    """E1: an OpenAPI operation is the handler's to find; status and output are the document's."""
    text = """
        do:
          - find:
              call: openapi
              with:
                document: {endpoint: "https://a.b/openapi.json"}
                operationId: find
                parameters: {n: "${ .n }", none: "${ .none }"}
                output: response
    """
    it = Doc(text, {"n": 1})
    asked = json.loads(str(it.run.steps["/do/0/find"].input))
    assert (asked["document"], asked["operation"], asked["parameters"]) == (
        "https://a.b/openapi.json",
        "find",
        {"n": 1},
    )
    request = {"method": "GET", "url": "https://a.b/find?n=1"}
    it.complete("/do/0/find", json.dumps({"status": 200, "headers": {}, "body": [1], "request": request}))
    assert it.output["content"] == [1]
    assert it.output["request"]["method"] == "GET"
    it = Doc(text, {"n": 1})
    it.answer("/do/0/find", None, 404)
    assert (it.error["status"], it.error["title"]) == (404, "Not Found")


def test_a_lost_executor_is_no_error_of_the_document() -> None:
    """R26: what was lost with its executor is tried again by the core."""
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


def test_other_documents_run_as_runs_of_their_own() -> None:
    """E12: `run: workflow` is a sub-flow; its error is the error of the document that ran it."""
    text = "do: [{other: {run: {workflow: {namespace: a, name: b, version: latest, input: {n: '${ .n }'}}}}}]"
    it = Doc(text, {"n": 3})
    assert (it.flow.subflows, it.flow.handlers, it.flow.called) == (True, (), ("flow:a.b",))
    assert json.loads(str(it.run.steps["/do/0/other"].input)) == {"n": 3}
    it.complete("/do/0/other", '{"m": 4}')
    assert it.output == {"m": 4}


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


@pytest.mark.parametrize("verdict", ["APPROVED", "REJECTED", ""])
def test_norms_hold_for_documents_too(verdict: str) -> None:
    """L13: what people must agree to is asked before the call; a no, or no answer in time, is an error of the document."""
    ask = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"], "timeout": "5s"}))
    text = "do: [{t: {try: [{work: {call: h, with: {n: 1}}}], catch: {errors: {with: {status: 403}}, do: [{no: {set: {no: 1}}}]}}}]"
    it = Doc(text, policy=Policy((ask,)))
    step_id = "/do/0/t/try/0/work"
    assert (it.state(step_id), it.run.state) == ("AWAITING_APPROVAL", "SUSPENDED")
    if verdict:
        it.tell(DecideApproval(command_id="d", step_id=step_id, verdict=verdict, actor="ada"))
    else:
        it.wake(5)
    if verdict == "APPROVED":
        it.complete(step_id, '"done"')
    assert it.output == ("done" if verdict == "APPROVED" else {"no": 1})


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
