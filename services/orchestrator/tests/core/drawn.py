"""Random flows of all kinds of steps, for the property tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from tierflow_flow.definition import Cache, Flow, Join, Norm, StepSpec
from tierflow_runtime.values import Failure, RetryPolicy, Usage

from .fakes import (
    SECOND,
    Computed,
    Ref,
    Value,
    approval,
    call,
    emit,
    fail,
    flow,
    map_,
    raising,
    signal,
    subflow,
    switch,
    wait,
)

CODES = ("TIMEOUT", "RATE_LIMITED", "HANDLER_REJECTED", "EXECUTOR_LOST")


USAGES = st.builds(Usage, credits=st.integers(0, 9), memory_bytes=st.integers(0, 3), steps=st.integers(0, 2))
FAILURES = st.builds(
    Failure,
    code=st.sampled_from(CODES),
    message=st.just("it broke"),
    retryable=st.booleans(),
    retry_after=st.sampled_from((None, 2 * SECOND)),
)
RESULTS = st.one_of(
    st.fixed_dictionaries({"state": st.just("COMPLETED"), "output": st.sampled_from(("1", '"x"', None))}),
    st.fixed_dictionaries({"state": st.just("COMPLETED"), "outcome": st.just("DEGRADED")}),
    st.fixed_dictionaries({"state": st.just("FAILED"), "failure": st.one_of(st.none(), FAILURES)}),
    st.fixed_dictionaries({"state": st.just("CANCELLED")}),
)

PLAIN: list[dict[str, Any]] = [{}]
ASKED = Value({"users": ["ada"], "timeout": "5s"})
NORMS: list[tuple[Norm, ...]] = [()] * 4 + [
    (Norm("ask", "oblige", ("h1",), approval=ASKED),),
    (
        Norm("ask", "oblige", ("*",), approval=Value({"users": ["ada", "bob"], "needed": 2})),
        Norm("no", "prohibit", ("h2",)),
    ),
    (
        Norm("ask", "oblige", ("h*",), approval=ASKED),
        Norm("too", "oblige", ("h2",), approval=Value({"roles": ["boss"], "users": ["eve"]})),
    ),
    (Norm("may", "permit", ("h1",)), Norm("first", "oblige", ("h2",), after=("h1",))),
]
CONDITIONS = PLAIN * 20 + [
    {"condition": Value(True)},
    {"condition": Value(True), "always": True},
    {"condition": Value(False)},
    {"condition": Value(False), "always": True},
    {"condition": Computed(raising), "always": True},
    {"condition": Value("yes")},
    {"condition": Computed(lambda scope: scope.lookup("status", ("failure",))), "always": True},
    {"condition": Computed(lambda scope: scope.lookup("status", ("success",))), "always": True},
]


@st.composite
def specs(draw: st.DrawFn, step_id: str, before: list[str]) -> StepSpec:
    needs = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
    kind = draw(
        st.sampled_from(
            ["call"] * 12 + ["wait", "wait", "emit", "fail", "signal", "signal", "approval", "approval", "flow", "flow"]
        )
    )
    if kind in ("emit", "fail"):
        more = {
            "on_error": draw(st.sampled_from(("stop", "continue", "continue"))),
            **draw(st.sampled_from(CONDITIONS)),
        }
        return {"emit": emit, "fail": fail}[kind](step_id, *needs, **more)
    if kind == "flow":
        share = draw(st.sampled_from(({}, {}, {"allocation": {"steps": 1}})))
        return subflow(step_id, "other", *needs, settings=share, on_error=draw(st.sampled_from(("stop", "continue"))))
    if kind == "approval":
        said: dict[str, Any] = {"users": ["ada", "bob"], "needed": draw(st.sampled_from((1, 2)))}
        said |= draw(st.sampled_from(({}, {"roles": ["boss"]}, {"timeout": "5s"})))
        if "timeout" in said and draw(st.booleans()):
            said["escalate"] = {"users": ["eve"], "timeout": "5s"}
        return approval(step_id, *needs, **said, on_error=draw(st.sampled_from(("stop", "continue"))))
    if kind == "signal":
        timeout = draw(st.sampled_from(({}, {"timeout": 5 * SECOND})))
        on_error = draw(st.sampled_from(("stop", "continue")))
        return signal(step_id, draw(st.sampled_from(("one", "two"))), *needs, settings=timeout, on_error=on_error)
    if kind == "wait":
        length = draw(st.sampled_from(("5s", "0s", "1m", "never")))
        on_error = draw(st.sampled_from(("stop", "continue")))
        return wait(step_id, length, *needs, on_error=on_error, **draw(st.sampled_from(CONDITIONS)))
    more: dict[str, Any] = {"handler": draw(st.sampled_from(("h1", "h2")))}
    more |= draw(st.sampled_from(CONDITIONS))
    more["on_error"] = draw(st.sampled_from(("stop", "stop", "continue")))
    more["on_lost"] = draw(st.sampled_from(("", "RETRY", "FAIL", "ASK")))
    more["side_effecting"] = draw(st.booleans())
    if draw(st.booleans()):
        more["retry"] = RetryPolicy(max_attempts=draw(st.integers(1, 3)), initial_delay=SECOND, max_delay=4 * SECOND)
    if needs and draw(st.booleans()):
        more["with_"] = Ref(f"steps.{needs[0]}.output")
    elif draw(st.sampled_from([False] * 24 + [True])):
        more["with_"] = Computed(raising)
    if draw(st.sampled_from((False, False, False, True))):
        more["cache"] = Cache(Value(draw(st.sampled_from((1, 2)))), SECOND, "flow", "1")
    more["allocation"] = draw(st.sampled_from(({}, {}, {"credits": 9})))
    more["priority"] = draw(st.sampled_from((0, 0, 0, 5, -1)))
    more["start_timeout"] = draw(st.sampled_from((None, None, None, 30 * SECOND)))
    more["total_timeout"] = draw(st.sampled_from((None, None, None, 40 * SECOND)))
    if draw(st.sampled_from((False, False, True))):
        more["concurrency"] = draw(st.sampled_from((None, 1, 2)))
        more["tolerate"] = draw(st.integers(0, 2))
        return map_(step_id, draw(st.sampled_from((3, 2, 1, 4, 0))), *needs, **more)
    return call(step_id, *needs, **more)


@st.composite
def switched(draw: st.DrawFn, made: list[StepSpec]) -> list[StepSpec]:
    """The same steps, the last two of them chosen by a switch that needs the first."""
    first, middle, (one, other) = made[0], made[1:-2], made[-2:]
    truths = st.sampled_from((True, False, Computed(raising)))
    cases = [(draw(truths), [one.id]), (draw(truths), [one.id, other.id])]
    route = switch("route", cases, first.id, settings={"default": draw(st.sampled_from(([], [other.id])))})
    chosen = [replace(spec, needs=(*spec.needs, "route"), chosen_by="route") for spec in (one, other)]
    return [first, route, *middle, *chosen]


@st.composite
def joined(draw: st.DrawFn, spec: StepSpec) -> StepSpec:
    """The same step, now and then with a join over some of what it needs."""
    counted = [name for name in spec.needs if name != spec.chosen_by]
    if len(counted) < 2 or not draw(st.sampled_from((False, True))):
        return spec
    of = draw(st.lists(st.sampled_from(counted), unique=True, min_size=1))
    return replace(spec, join=Join(draw(st.integers(1, len(of))), tuple(of)))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    made: list[StepSpec] = []
    for number in range(draw(st.sampled_from((4, 3, 5, 6, 2, 1, 0)))):
        made.append(draw(specs(f"s{number}", [spec.id for spec in made])))
    if len(made) > 2 and draw(st.sampled_from((False, False, True))):
        made = draw(switched(made))
    made = [draw(joined(spec)) for spec in made]
    return flow(
        *made,
        norms=draw(st.sampled_from(NORMS)),
        failure_policy=draw(st.sampled_from(("FAIL_FAST", "CONTINUE", "PAUSE"))),
        concurrency=draw(st.sampled_from((None, None, 1, 3))),
        retry=RetryPolicy(max_attempts=draw(st.integers(1, 2)), initial_delay=SECOND),
        run_timeout=draw(st.sampled_from((None, None, None, None, 60 * SECOND))),
        output=draw(st.sampled_from([None] * 8 + [Value({"ok": True}), Computed(raising)])),
    )
