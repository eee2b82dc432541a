"""Chains, diamonds, maps: what starts when."""

import msgspec
import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core.events import RunEnded, RunStateChanged, StepScheduled

from .fakes import Ref, Shell, Value, call, flow, map_


def test_chain():
    """B5, C3, C8, E1, Lesson 17: created, prepared, one step after the other, the last result and the end in one decision."""
    shell = Shell(flow(call("a", with_=Value({"n": 1})), call("b", "a", with_=Ref("steps.a.output"))))
    assert [e.to for e in shell.events(RunStateChanged)] == ["PREPARING", "RUNNING"]
    assert shell.states() == {"a": "SCHEDULED", "b": "PENDING"}
    assert shell.dispatched[0].input == '{"n": 1}'
    assert shell.run.percent() == 0
    shell.complete("a", '{"x":[1,2]}')
    assert shell.states() == {"a": "COMPLETED", "b": "SCHEDULED"}
    assert shell.dispatched[1].input == '{"x":[1,2]}'
    assert shell.run.percent() == 50
    decision = shell.complete("b", '"done"')
    assert [type(e).__name__ for e in decision.events] == ["StepStarted", "StepCompleted", "RunEnded"]
    assert (shell.run.state, shell.run.outcome, shell.run.output) == ("COMPLETED", "SUCCESS", '{"b":"done"}')
    assert shell.run.percent() == 100
    assert shell.run.usage.credits == 10
    assert shell.ends == 1
    shell.check()


def test_diamond():
    """E3, E4, Lesson 3, Lesson 15: independent steps are in flight together; a step starts as soon as its own needs are done."""
    shell = Shell(flow(call("a"), call("b", "a"), call("c", "a"), call("c2", "c"), call("d", "b", "c2")))
    shell.complete("a")
    assert shell.states() == {"a": "COMPLETED", "b": "SCHEDULED", "c": "SCHEDULED", "c2": "PENDING", "d": "PENDING"}
    shell.complete("c")
    assert shell.state("c2") == "SCHEDULED"
    shell.complete("c2")
    assert shell.state("d") == "PENDING"
    shell.complete("b")
    assert shell.state("d") == "SCHEDULED"
    shell.complete("d")
    assert shell.run.state == "COMPLETED"
    shell.check()


def test_map():
    """B5, E3, Lesson 4: the items of a map run with bounded concurrency, the join counts all of them, the output keeps their order."""
    shell = Shell(flow(map_("m", ["x", "y", "z"], concurrency=2), call("j", "m", with_=Ref("steps.m.output"))))
    assert shell.states() == {
        "m": "RUNNING",
        "j": "PENDING",
        "m[0]": "SCHEDULED",
        "m[1]": "SCHEDULED",
        "m[2]": "PENDING",
    }
    assert [d.input for d in shell.dispatched] == ['"x"', '"y"']
    shell.complete("m[1]", "11")
    assert shell.state("m[2]") == "SCHEDULED"
    shell.complete("m[2]", "12")
    assert shell.state("j") == "PENDING"
    shell.complete("m[0]", "10")
    assert shell.dispatched[-1].input == "[10,11,12]"
    shell.complete("j")
    assert shell.run.state == "COMPLETED"
    shell.check()


def test_nothing_to_do():
    """Lesson 17: an empty flow completes, and so does a map over nothing."""
    assert Shell(flow()).run.state == "COMPLETED"
    shell = Shell(flow(map_("m", []), call("j", "m", with_=Ref("steps.m.output"))))
    assert shell.dispatched[0].input == "[]"
    shell.complete("j")
    assert len(shell.events(RunEnded)) == 1
    assert len(shell.events(StepScheduled)) == 1
    shell.check()


def test_five_lifecycle_events():
    """H1: execution start, step start, step complete, step error, execution complete, in this order."""
    shell = Shell(flow(call("a"), call("b", "a", on_error="continue")))
    shell.complete("a")
    shell.fail("b")
    names = [type(event).__name__ for event in shell.events()]
    wanted = ["RunCreated", "StepStarted", "StepCompleted", "StepFailed", "RunEnded"]
    assert [name for name in names if name in wanted] == [*wanted[:3], "StepStarted", *wanted[3:]]


def test_the_definition_says_how_it_is_walked():
    """E1, E2: the same steps as a graph and as a sequence; the same input twice gives the same decisions."""
    text = "name: t\n%ssteps:\n  a: {call: h}\n  b: {call: h}\n"
    graph, sequence = (Shell(parse(text % head, "yaml")) for head in ("", "navigator: sequence\n"))
    assert graph.states() == {"a": "SCHEDULED", "b": "SCHEDULED"}
    assert sequence.states() == {"a": "SCHEDULED", "b": "PENDING"}
    again = Shell(parse(text % "", "yaml"))
    assert again.journal == graph.journal


def test_context_is_immutable():
    """L1: a run's context, its options and its flow cannot be changed; children are derived."""
    shell = Shell(flow(call("a")))
    for value, name in ((shell.run.context, "tenant"), (shell.run.options, "priority"), (shell.run.flow, "name")):
        with pytest.raises(AttributeError):
            setattr(value, name, "other")
    child = msgspec.structs.replace(shell.run.context, step_id="a")
    assert (child.step_id, shell.run.context.step_id) == ("a", "")
