"""The contract of requests: each rule with a request that breaks it, and a good request that does not."""

import timeit
from collections.abc import Callable

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from runtime_samples import good_run, good_step, good_swarm, run_context
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest
from tierflow_runtime.contract import check_run_request, check_step_request, check_swarm_request, refusal, refuse_if
from tierflow_runtime.values import FailureError, Violation

NOW = 1_800_000_000_000_000
MEBIBYTE = 1024 * 1024


def fields(violations: list[Violation]) -> list[str]:
    """The paths, in order."""
    return sorted(one.field for one in violations)


def test_good_requests() -> None:
    """A1, A2, A3: a well-formed request of each kind has no violation."""
    assert check_step_request(good_step(), NOW) == []
    assert check_run_request(good_run(), NOW) == []
    assert check_swarm_request(good_swarm(), NOW) == []


@pytest.mark.parametrize("part", ["context", "input", "allocation", "options"])
def test_each_part_is_required(part: str) -> None:
    """A1, A2: each of the four parts, removed, is named."""
    step, run = good_step(), good_run()
    step.ClearField(part)
    run.ClearField(part)
    assert fields(check_step_request(step, NOW)) == [part]
    assert fields(check_run_request(run, NOW)) == [part]


def test_empty_requests() -> None:
    """A5: everything that is missing is listed at once."""
    everything = ["allocation", "context", "input", "options"]
    assert fields(check_step_request(StepExecutionRequest(), NOW)) == everything
    assert fields(check_run_request(RunExecutionRequest(), NOW)) == everything
    assert fields(check_swarm_request(SwarmExecutionRequest(), NOW)) == ["input"]


def change(make: Callable[[], object], path: str, value: object):
    """A good request with one field changed."""
    request = make()
    *owners, name = path.split(".")
    target = request
    for owner in owners:
        target = getattr(target, owner)
    if value is None:
        target.ClearField(name)
    elif isinstance(value, dict):
        getattr(target, name).clear()
        getattr(target, name).update(value)
    else:
        setattr(target, name, value)
    return request


BAD_STEPS = [
    ("context.run_id", None),
    ("context.run_id", "run-1"),
    ("context.run_id", "6E2F8AE0-0000-7000-8000-000000000000"),
    ("context.run_id", "00000000-0000-0000-0000-000000000000"),
    ("context.swarm_id", "x"),
    ("context.parent_id", "x"),
    ("context.root_id", "x"),
    ("context.step_id", None),
    ("context.attempt_id", None),
    ("context.idempotency_key", None),
    ("context.attempt", None),
    ("context.epoch", None),
    ("context.tenant", "null"),
    ("context.user_id", "Undefined"),
    ("context.user_id", " ann"),
    ("context.user_id", "a" * 201),
    ("context.user_id", "a\0b"),
    ("context.request_id", "r" * 201),
    ("context.correlation_id", "c\0"),
    ("context.tracestate", "t" * 513),
    ("context.traceparent", "00-abc-def-01"),
    ("context.depth", 65),
    ("input.handler", None),
    ("input.handler", "h" * 201),
    ("input.grant_token", "g" * 4097),
    ("allocation.credits", -1),
    ("allocation.tokens", -1),
    ("allocation.memory_bytes", -1),
    ("allocation.concurrent_steps", -1),
    ("options.priority", 101),
    ("options.priority", -101),
    ("options.failure_policy", 99),
    ("options.on_lost", 99),
    ("options.strategy", "s" * 201),
    ("options.retry.max_attempts", 0),
    ("options.retry.max_attempts", 1001),
    ("options.retry.factor", 0.5),
    ("options.retry.factor", float("nan")),
    ("options.retry.jitter", 1.5),
]


@pytest.mark.parametrize(("path", "value"), BAD_STEPS, ids=lambda value: str(value)[:40])
def test_each_rule_of_a_step_request(path: str, value: object) -> None:
    """A5, L2, F8: one wrong field is one violation with its path, and the failure says so."""
    violations = check_step_request(change(good_step, path, value), NOW)
    assert fields(violations) == [path]
    refused = refusal(violations)
    assert (refused.code, refused.retryable, refused.violations) == ("INVALID_REQUEST", False, tuple(violations))
    assert path in refused.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 0), ("timeout", -5), ("heartbeat_timeout", 0), ("retry.initial_delay", -1), ("retry.max_delay", -1)],
)
def test_lengths_of_time(name: str, value: int) -> None:
    """A5: timeouts are longer than nothing, delays not negative."""
    step = good_step()
    target = step.options
    *owners, last = name.split(".")
    for owner in owners:
        target = getattr(target, owner)
    getattr(target, last).FromMicroseconds(value)
    assert fields(check_step_request(step, NOW)) == [f"options.{name}"]


def test_times_that_protobuf_does_not_allow() -> None:
    """A5: a duration or moment that is none by protobuf's rules is a violation, not a crash."""
    step = good_step()
    step.allocation.wall_time.seconds, step.allocation.wall_time.nanos = 5, -5
    step.options.timeout.seconds = 2**62
    step.options.not_before.seconds = -1
    step.context.time_remaining.nanos = 2**31 - 1
    wrong = ["allocation.wall_time", "context.time_remaining", "options.not_before", "options.timeout"]
    assert fields(check_step_request(step, NOW)) == wrong


def test_deadlines() -> None:
    """R17: a deadline that has passed is refused as such; time remaining counts before the absolute moment."""
    late = good_step()
    late.context.deadline.FromMicroseconds(NOW - 1)
    violations = check_step_request(late, NOW)
    assert fields(violations) == ["context.deadline"]
    assert refusal(violations).code == "DEADLINE_EXCEEDED"
    late.context.time_remaining.FromMicroseconds(5)
    assert check_step_request(late, NOW) == []
    late.context.time_remaining.FromMicroseconds(0)
    assert fields(check_step_request(late, NOW)) == ["context.deadline"]
    assert check_step_request(good_step()) == [], "without a given moment the clock is read"


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{n}": "v" for n in range(33)},
        {"": "v"},
        {"tierflow.internal": "v"},
        {"tierflow/x": "v"},
        {"k" * 129: "v"},
        {"k": "v" * 129},
        {"k": "a\0"},
        {"a\0": "v"},
    ],
    ids=["too many", "empty", "reserved", "reserved path", "long key", "long value", "NUL value", "NUL key"],
)
def test_labels(labels: dict[str, str]) -> None:
    """L2: at most 32 labels of 128 characters, no reserved keys, no NUL."""
    violations = check_step_request(change(good_step, "context.labels", labels), NOW)
    assert len(violations) == 1
    assert violations[0].field.startswith("context.labels")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("NaN", "not JSON"),
        ('"\\ud800"', "not JSON"),
        ('{"a": "x\\u0000y"}', "NUL"),
        ('{"x\\u0000": 1}', "NUL"),
        ('[[["\\u0000"]]]', "NUL"),
        ("[" * 101 + "]" * 101, "nested"),
    ],
)
def test_json_texts(text: str, says: str) -> None:
    """A5, Lesson 28: what is not JSON, holds NUL, or is nested without end is refused at the edge."""
    violations = check_step_request(change(good_step, "input.input.json", text), NOW)
    assert fields(violations) == ["input.input.json"]
    assert says in violations[0].description


@pytest.mark.parametrize(
    "text", ['"a\\\\u0000"', "[]", "3", "[" * 100 + "]" * 100, "[" + "{}," * 500 + "{}]", '"ä\\n"']
)
def test_json_texts_that_only_look_bad(text: str) -> None:
    """A5, Lesson 28: an escaped backslash before u0000 is no NUL, many brackets side by side are not deep."""
    assert check_step_request(change(good_step, "input.input.json", text), NOW) == []


def test_protobuf_values() -> None:
    """A3, Lesson 28: a value sent by hand is held to the same rules as JSON text."""
    cases = {
        "NUL": Value(string_value="a\0"),
        "JSON has neither": Value(number_value=float("inf")),
        "no kind": Value(),
    }
    for says, value in cases.items():
        step = good_step()
        step.input.input.value.struct_value.fields["x"].list_value.values.add().CopyFrom(value)
        violations = check_step_request(step, NOW)
        assert fields(violations) == ["input.input.value"]
        assert says in violations[0].description
    fine = good_swarm()
    fine.input.flow.input.value.struct_value.CopyFrom(Struct())
    fine.input.flow.input.value.struct_value.update({"n": 3, "list": [1, None, {"a": True}]})
    assert check_swarm_request(fine, NOW) == []


@pytest.mark.parametrize("make", [good_run, good_swarm], ids=["run", "swarm"])
def test_input_of_a_flow_is_an_object(make: Callable[[], object]) -> None:
    """A3: the input of a flow is a JSON object; none at all is allowed, null is not."""
    check = check_run_request if make is good_run else check_swarm_request
    path = "input.input" if make is good_run else "input.flow.input"
    assert check(change(make, path, None), NOW) == []
    for text in ("[]", "3", "null"):
        assert fields(check(change(make, f"{path}.json", text), NOW)) == [f"{path}.json"]


def test_large_values_are_refused_with_the_way_out() -> None:
    """Q15, Lesson 27, Lesson 34: more than 1 MiB inline is PAYLOAD_TOO_LARGE for good, and the message names blobs."""
    just = '{"a":"' + "x" * (MEBIBYTE - 8) + '"}'
    assert len(just) == MEBIBYTE
    assert check_run_request(change(good_run, "input.input.json", just), NOW) == []
    for text in (just + " ", '{"a":"' + "ä" * (MEBIBYTE // 2) + '"}'):
        violations = check_run_request(change(good_run, "input.input.json", text), NOW)
        refused = refusal(violations)
        assert (refused.code, refused.retryable) == ("PAYLOAD_TOO_LARGE", False)
        assert "blob" in refused.message


def test_large_and_wrong_is_an_invalid_request() -> None:
    """A5: one failure for one request; where more is wrong than the size, it is INVALID_REQUEST with everything listed."""
    run = change(good_run, "input.input.json", "x" * (MEBIBYTE + 1))
    run.options.priority = 200
    refused = refusal(check_run_request(run, NOW))
    assert refused.code == "INVALID_REQUEST"
    assert sorted(one.field for one in refused.violations) == ["input.input.json", "options.priority"]


def test_references() -> None:
    """R33: a reference has a SHA-256 and a size."""
    run = good_run()
    run.input.input.ref.sha256 = "ABC"
    run.input.input.ref.size = -1
    assert fields(check_run_request(run, NOW)) == ["input.input.ref.sha256", "input.input.ref.size"]
    run.input.input.ref.sha256, run.input.input.ref.size = "0f" * 32, 10
    assert check_run_request(run, NOW) == []


def test_runs_need_their_identity() -> None:
    """A2, L2: tenant, user, swarm and run are required of Tier 1, and a run is not its own parent."""
    for name in ("tenant", "user_id", "swarm_id", "run_id"):
        assert fields(check_run_request(change(good_run, f"context.{name}", None), NOW)) == [f"context.{name}"]
    own = good_run()
    own.context.parent_id = own.context.run_id
    assert fields(check_run_request(own, NOW)) == ["context.parent_id"]


def test_flow_references() -> None:
    """A2: a flow is named, addressed by its hash, or brought along."""
    none = good_run()
    none.input.flow.Clear()
    assert fields(check_run_request(none, NOW)) == ["input.flow"]
    none.input.ClearField("flow")
    assert fields(check_run_request(none, NOW)) == ["input.flow"]
    version_only = good_run()
    version_only.input.flow.ClearField("hash")
    version_only.input.flow.version = "1"
    assert fields(check_run_request(version_only, NOW)) == ["input.flow.name"]
    assert fields(check_run_request(change(good_run, "input.flow.hash", "zz"), NOW)) == ["input.flow.hash"]
    source = good_run()
    source.input.flow.source.SetInParent()
    assert fields(check_run_request(source, NOW)) == ["input.flow.source.yaml"]
    source.input.flow.source.yaml = "a\0"
    assert fields(check_run_request(source, NOW)) == ["input.flow.source.yaml"]
    source.input.flow.source.yaml = "x" * (MEBIBYTE + 1)
    assert refusal(check_run_request(source, NOW)).code == "PAYLOAD_TOO_LARGE"


def test_plans() -> None:
    """A3, A10: a plan has its required part; every flow of a fixed plan is looked at; agents have ids and sound loads."""
    empty = good_swarm()
    empty.input.ClearField("plan")
    assert fields(check_swarm_request(empty, NOW)) == ["input.plan"]
    fixed = SwarmExecutionRequest()
    fixed.input.fixed.SetInParent()
    assert fields(check_swarm_request(fixed, NOW)) == ["input.fixed.flows"]
    fixed.input.fixed.flows.add().flow.name = "a"
    fixed.input.fixed.flows.add().input.json = "[]"
    assert fields(check_swarm_request(fixed, NOW)) == ["input.fixed.flows[1].flow", "input.fixed.flows[1].input.json"]
    goal = SwarmExecutionRequest()
    goal.input.goal.SetInParent()
    assert fields(check_swarm_request(goal, NOW)) == ["input.goal.goal"]
    goal.input.goal.goal = "sort it out"
    for load in (1, -1):
        goal.input.available_agents.add(
            agent_id="a", capabilities=["code", ""], max_concurrent_tasks=2, current_load=load
        )
    goal.input.team_configuration.max_agents = -1
    goal.input.team_configuration.settings.json = "3"
    assert fields(check_swarm_request(goal, NOW)) == [
        "input.available_agents[0].capabilities[1]",
        "input.available_agents[1].agent_id",
        "input.available_agents[1].capabilities[1]",
        "input.available_agents[1].current_load",
        "input.team_configuration.max_agents",
        "input.team_configuration.settings.json",
    ]


def test_clients_choose_no_ids() -> None:
    """A3, L2: ids are chosen by the server; a client that brings one is told so."""
    swarm = good_swarm()
    context = run_context()
    swarm.context.swarm_id, swarm.context.run_id = context.swarm_id, context.run_id
    swarm.context.request_id = "r"
    assert fields(check_swarm_request(swarm, NOW)) == ["context.run_id", "context.swarm_id"]


def test_everything_is_listed_at_once() -> None:
    """A5: a request with many faults is refused once, with all of them."""
    step = good_step()
    for path, value in (
        ("context.run_id", "x"),
        ("context.epoch", None),
        ("options.priority", 500),
        ("allocation.steps", -3),
    ):
        *owners, name = path.split(".")
        target = step
        for owner in owners:
            target = getattr(target, owner)
        if value is None:
            target.ClearField(name)
        else:
            setattr(target, name, value)
    step.input.input.json = "{"
    with pytest.raises(FailureError) as caught:
        refuse_if(check_step_request(step, NOW), "dispatcher", "ExecuteStep")
    seen = caught.value.failure
    assert (seen.code, seen.component, seen.operation) == ("INVALID_REQUEST", "dispatcher", "ExecuteStep")
    wrong = ["allocation.steps", "context.epoch", "context.run_id", "input.input.json", "options.priority"]
    assert sorted(one.field for one in seen.violations) == wrong


def test_a_good_step_request_is_checked_in_microseconds() -> None:
    """A5: the check is cheap enough for the hot path: about 9 µs on the reference machine; the bound here leaves room for a busy one."""
    step = good_step()
    best = min(timeit.repeat(lambda: check_step_request(step, NOW), number=500, repeat=10)) / 500
    assert best < 50e-6
