"""Steering of runs that walk documents: breakpoints, single steps, skipped tasks."""

from __future__ import annotations

import json

from tierflow_orchestrator.core.commands import Pause, ReportResult, Resume, Retry, SetBreakpoints, Skip, StepOnce

from .documents import Doc

THREE = """
do:
  - one: {call: h, with: {n: 1}}
  - two: {call: h, with: {n: 2}}
  - three: {set: {of: '${ . }'}}
"""
LOOP = """
do:
  - each:
      for: {each: word, in: '["a", "b"]'}
      do: [{say: {call: h, with: {word: '${ $word }'}}}]
"""


def stopped_at(it: Doc) -> str:
    """Where the run waits for somebody."""
    assert it.run.state == "PAUSED"
    return it.run.reason


def test_a_breakpoint_holds_what_it_names() -> None:
    """C12: by its name, its pointer or its step; the run pauses before it, and goes on when it is resumed."""
    for name in ("two", "/do/1/two"):
        it = Doc(THREE)
        it.tell(SetBreakpoints(command_id="b", breakpoints=(name,)))
        it.complete("/do/0/one", "1")
        assert stopped_at(it) == "BREAKPOINT: /do/1/two"
        it.tell(Resume(command_id="r"))
        it.complete("/do/1/two", "2")
        assert it.output == {"of": 2}


def test_a_breakpoint_holds_every_iteration() -> None:
    """C12: a task is held each time that it is to begin; one step alone by the iteration's own id."""
    it = Doc(LOOP)
    it.tell(SetBreakpoints(command_id="b", breakpoints=("say",)))
    it.complete("/do/0/each/do/0/say", "1")
    assert stopped_at(it) == "BREAKPOINT: /do/0/each/do[1]/0/say"
    it.tell(SetBreakpoints(command_id="none", breakpoints=()))
    it.tell(Resume(command_id="r"))
    it.complete("/do/0/each/do[1]/0/say", "2")
    assert it.output == 2


def test_one_after_another() -> None:
    """C12: each step lets what is ready begin, and the run pauses before what comes after it."""
    it = Doc(THREE)
    it.tell(SetBreakpoints(command_id="b", breakpoints=("*",)))
    it.complete("/do/0/one", "1")
    assert stopped_at(it) == "BREAKPOINT: /do/1/two"
    it.tell(StepOnce(command_id="s"))
    it.complete("/do/1/two", "2")
    assert stopped_at(it).endswith("/do/2/three")
    it.tell(StepOnce(command_id="s2"))
    assert it.output == {"of": 2}


def test_one_is_skipped() -> None:
    """N8: it ends with what was given instead, and what follows goes on with that; without anything, with what was there before; the run is PARTIAL."""
    it = Doc(THREE)
    it.complete("/do/0/one", "1")
    it.tell(Skip(command_id="s", step_id="/do/1/two", output='{"by":"hand"}'))
    attempt_id = it.attempt_id("/do/1/two")
    assert it.state("/do/1/two") == "SCHEDULED"
    it.tell(ReportResult(attempt_id=attempt_id, state="CANCELLED"))
    assert it.output == {"of": {"by": "hand"}}
    assert (it.run.outcome, it.state("/do/1/two")) == ("PARTIAL", "SKIPPED")


def test_what_others_are_in_is_skipped() -> None:
    """N8, Lesson 32: what is in flight in it is stopped; the document goes on at once."""
    it = Doc(
        """
        do:
          - both: {fork: {branches: [{a: {call: h}}, {b: {wait: PT1H}}]}}
          - end: {set: {n: '${ .n }'}}
        """,
        {"n": 3},
    )
    it.tell(Skip(command_id="s", step_id="/do/0/both"))
    assert it.state("/do/0/both") == "SKIPPED"
    assert it.state("/do/0/both/fork/branches/1/b") == "CANCELLED"
    it.tell(ReportResult(attempt_id=it.attempt_id("/do/0/both/fork/branches/0/a"), state="CANCELLED"))
    assert it.output == {"n": 3}


def test_what_cannot_be_skipped() -> None:
    """C12: a task that has not begun or is over, and the document as a whole."""
    it = Doc(THREE)
    for step_id, code in (("/do", "STATE_CONFLICT"), ("/do/1/two", "INVALID_REQUEST")):
        failure = it.tell(Skip(command_id=step_id, step_id=step_id)).reply.failure
        assert failure is not None
        assert failure.code == code


FAILING = """
do:
  - one: {call: h, with: {n: 1}, output: {as: '{n: .}'}, export: {as: '{first: .n}'}}
  - pause: {wait: PT1H}
  - heard: {listen: {to: {one: {with: {type: go}}}}, output: {as: '.[0]'}}
  - two: {call: h, with: {of: '${ . }', first: '${ $context.first }'}}
  - three: {set: {of: '${ . }', first: '${ $context.first }'}}
"""


def failed(it: Doc, step_id: str) -> None:
    """An attempt fails for good."""
    it.fail(step_id, code="HANDLER_REJECTED", retryable=False)


def test_a_retry_does_not_do_twice_what_was_done() -> None:
    """C9, R31, Q9: the document is walked again; what completed stands with what it gave, waits and events included; what failed is tried again, under an attempt of its own."""
    it = Doc(FAILING)
    it.complete("/do/0/one", "1")
    it.wake()
    it.send("go", {"x": 2})
    before = it.attempt_id("/do/3/two")
    failed(it, "/do/3/two")
    assert it.run.state == "FAILED"
    assert it.tell(Retry(command_id="again")).reply.generation == 2
    assert it.state("/do/3/two") == "SCHEDULED"
    assert it.attempt_id("/do/3/two") != before
    assert json.loads(str(it.run.steps["/do/3/two"].input)) == {"of": {"x": 2}, "first": 1}
    failed(it, "/do/3/two")
    assert it.tell(Retry(command_id="once more")).reply.generation == 3
    it.complete("/do/3/two", "5")
    assert it.output == {"of": 5, "first": 1}
    assert it.run.attempts == 4


def test_a_retry_gives_a_loop_its_iterations_back() -> None:
    """C9: iterations that were done are not done again; what is given something else than before is."""
    it = Doc(
        """
        do:
          - each:
              for: {each: word, in: '["a", "b", "c"]'}
              do: [{say: {call: h, with: {word: '${ $word }'}}}]
          - end: {try: [{no: {call: h}}], catch: {errors: {with: {status: 404}}}}
        """
    )
    it.complete("/do/0/each/do/0/say", "1")
    it.complete("/do/0/each/do[1]/0/say", "2")
    failed(it, "/do/0/each/do[2]/0/say")
    it.tell(Retry(command_id="again"))
    assert [it.state(f"/do/0/each/do{at}/0/say") for at in ("", "[1]", "[2]")] == [
        "COMPLETED",
        "COMPLETED",
        "SCHEDULED",
    ]
    it.complete("/do/0/each/do[2]/0/say", "3")
    it.complete("/do/1/end/try/0/no", "4")
    assert it.output == 4


def test_what_was_skipped_stays_so() -> None:
    """N8, R31: in the next generation, too."""
    it = Doc(FAILING)
    it.complete("/do/0/one", "1")
    it.tell(Skip(command_id="s", step_id="/do/1/pause"))
    it.tell(Skip(command_id="t", step_id="/do/2/heard", output="7"))
    failed(it, "/do/3/two")
    it.tell(Retry(command_id="again"))
    it.complete("/do/3/two", "8")
    assert it.output == {"of": 8, "first": 1}
    assert it.run.outcome == "PARTIAL"


def test_an_event_that_comes_while_it_is_paused_is_taken_when_it_is_resumed() -> None:
    """G6, Q5: nothing moves while it is paused; then what is there already is taken, without anything else having to come."""
    it = Doc("do: [{hear: {listen: {to: {one: {with: {type: go}}}}}}]")
    it.tell(Pause(command_id="p"))
    it.send("go", {"n": 1})
    assert it.state("/do/0/hear") == "RUNNING"
    it.tell(Resume(command_id="r"))
    assert it.output == [{"n": 1}]
