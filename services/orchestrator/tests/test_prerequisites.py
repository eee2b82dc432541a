"""What is missing before a run begins is said at once, and quickly (L7, P16)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_flow import parse
from tierflow_flow.norms import Policy, parse_policy
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.prerequisites import KEEP, Prerequisites, certain_calls
from tierflow_runtime.values import Allocation, Context

CONTEXT = Context(tenant="t", user_id="u", roles=("clerk",))
NEEDS_N = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}'


class Scene:
    """An orchestrator's view of executors and its policy."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.dispatcher = Dispatcher((), Reports(), lambda: True)
        self.policy = policy
        self.now = 0.0
        self.checks = Prerequisites(self.dispatcher, lambda: self.policy, clock=lambda: self.now)

    def greet(self, *handlers: Any, name: str = "e", labels: dict[str, str] | None = None) -> None:
        """An executor introduces itself."""
        link = Link(f"127.0.0.1:{len(self.dispatcher._links) + 1}", self.dispatcher, lambda: True)
        self.dispatcher._links[link.address] = link
        infos = [each if isinstance(each, pb.HandlerInfo) else pb.HandlerInfo(name=each) for each in handlers]
        link._greet(pb.ExecutorHello(name=name, executor_id=name, slots=1, handlers=infos, labels=labels or {}))

    def unmet(self, text: str, **allocation: Any) -> list[tuple[str, str, bool]]:
        """Code, place, and whether a run is refused for it."""
        found = self.checks.unmet(parse(text), CONTEXT, Allocation(**allocation))
        assert all(each.description and each.hint for each in found)
        return [(each.code, each.field, each.refuses) for each in found]


def test_nothing_is_missing() -> None:
    """L7: then nothing is said."""
    scene = Scene()
    scene.greet("a", "b")
    assert scene.unmet("name: f\nsteps: {x: {call: a}, y: {call: b, needs: x}}", steps=2) == []


@pytest.mark.parametrize(
    ("steps", "allocation", "wanted"),
    [
        ("{x: {call: gone}}", {}, [("HANDLER_NOT_FOUND", "steps.x.call", True)]),
        ("{x: {call: a, labels: {gpu: big}}}", {}, [("HANDLER_NOT_FOUND", "steps.x.labels", True)]),
        ("{x: {call: typed}}", {}, [("INPUT_INVALID", "steps.x.with", True)]),
        ("{x: {call: typed, if: 1 == 1}}", {}, [("INPUT_INVALID", "steps.x.with", False)]),
        ("{x: {call: typed, on_error: continue}}", {}, [("INPUT_INVALID", "steps.x.with", False)]),
        ("{x: {call: typed, with: {n: one}}}", {}, [("INPUT_INVALID", "steps.x.with.n", False)]),
        ("{x: {call: typed, with: {n: '${{ input.n }}'}}}", {}, []),
        ("{x: {call: typed, with: '${{ input.all }}'}}", {}, []),
        ("{x: {call: a}, y: {call: a, needs: x}}", {"steps": 1}, [("BUDGET_EXHAUSTED", "allocation.steps", True)]),
        ("{x: {call: a}, y: {call: a, needs: x, if: 1 == 1}}", {"steps": 1}, []),
        ("{x: {call: shell.run}}", {}, [("PERMISSION_DENIED", "steps.x.call", True)]),
        ("{x: {call: shell.run, if: 1 == 1}}", {}, [("PERMISSION_DENIED", "steps.x.call", False)]),
        ("{x: {call: pay}}", {}, [("PERMISSION_DENIED", "steps.x.call", True)]),
        ("{x: {call: perhaps}}", {}, []),
        ("{x: {call: later}}", {}, [("PERMISSION_DENIED", "steps.x.call", True)]),
        ("{c: {call: a}, x: {call: later, needs: c}}", {}, []),
        ("{x: {call: odd}}", {}, [("PERMISSION_DENIED", "steps.x.call", True)]),
    ],
)
def test_each_missing_thing_alone(steps: str, allocation: dict[str, Any], wanted: list[Any]) -> None:
    """L7, L10, L12: where, and whether a run would be refused; nothing is said of what depends on what is not known yet."""
    norms = """
norms:
  - {name: no-shell, prohibit: shell.*}
  - {name: bosses, permit: pay, if: '"boss" in run.roles'}
  - {name: little, prohibit: perhaps, if: call.input.n > 3}
  - {name: first, oblige: later, after: a}
  - {name: label, permit: odd, if: run.labels.nope == "x"}
"""
    scene = Scene(parse_policy(norms))
    typed = pb.HandlerInfo(name="typed", input_schema_json=NEEDS_N)
    scene.greet("a", "shell.run", pb.HandlerInfo(name="pay", side_effecting=True), "perhaps", "later", "odd", typed)
    scene.greet("b", name="other", labels={"gpu": "big"})
    assert scene.unmet(f"name: f\ninput: {{type: object}}\nsteps: {steps}", **allocation) == wanted


def test_everything_at_once() -> None:
    """L7, F29: one failure with all of it, the code of the first, a hint for each."""
    scene = Scene(parse_policy("norms: [{name: no, prohibit: a}]"))
    scene.greet("a", pb.HandlerInfo(name="typed", input_schema_json=NEEDS_N))
    flow = parse("name: f\nsteps: {x: {call: gone}, y: {call: typed}, z: {call: a}}")
    refused = scene.checks.refusal(flow, CONTEXT, Allocation(steps=1))
    assert refused is not None
    assert (refused.code, len(refused.violations)) == ("HANDLER_NOT_FOUND", 4)
    assert "and 3 more" in refused.message
    assert "start one that does" in refused.message


def test_a_policy_that_cannot_be_read_refuses_all() -> None:
    """L14: before anything begins."""
    scene = Scene(Policy(unreadable="gone"))
    scene.greet("a")
    assert scene.unmet("name: f\nsteps: {x: {call: a}}") == [("PERMISSION_DENIED", "steps.x.call", True)]


def test_what_was_found_is_kept_for_a_while() -> None:
    """P16: 30 seconds, and no longer than executors and policy stay as they are."""
    scene = Scene()
    text = "name: f\nsteps: {x: {call: a}}"
    assert scene.unmet(text) == [("HANDLER_NOT_FOUND", "steps.x.call", True)]
    scene.unmet(text)
    assert scene.checks.looks == 1
    scene.greet("a")
    assert scene.unmet(text) == []
    scene.policy = Policy()
    scene.unmet(text)
    assert scene.checks.looks == 3
    scene.now += KEEP
    scene.unmet(text)
    assert scene.checks.looks == 4


def test_it_is_quick() -> None:
    """P16, L7: a thousand steps with norms, looked at for the first time, take parts of a second; known, parts of that."""
    scene = Scene(parse_policy("norms: [{name: no, prohibit: h7, if: run.tenant == 'x'}, {name: p, permit: '*'}]"))
    scene.greet(*(pb.HandlerInfo(name=f"h{n}", input_schema_json=NEEDS_N) for n in range(50)))
    steps = "\n".join(f"  s{n}: {{call: h{n % 50}, with: {{n: '${{{{ input.n }}}}'}}}}" for n in range(1000))
    flow = parse(f"name: f\ninput: {{n: integer}}\nsteps:\n{steps}")
    fresh, known = [], []
    for _ in range(4):
        scene.dispatcher.changes += 1
        for times in (fresh, known):
            began = time.perf_counter()
            assert scene.checks.unmet(flow, CONTEXT, Allocation()) == []
            times.append(time.perf_counter() - began)
    assert min(fresh) < 1
    assert min(known) < 0.1


def test_certain_calls() -> None:
    """L7: what is chosen, has a condition, is an item, or needs one that does, is not certain."""
    flow = parse("""
name: f
steps:
  a: {call: h}
  s: {switch: [{if: 1 == 1, then: b}]}
  b: {call: h}
  c: {call: h, needs: b}
  d: {call: h, needs: a, if: 1 == 1}
  e: {call: h, needs: [a]}
  m: {map: [1], call: h}
  w: {wait: 1s}
  x: {call: h, needs: w}
""")
    assert certain_calls(flow) == {"a", "e", "x"}
