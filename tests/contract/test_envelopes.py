"""The three execution requests: one envelope, and requests built in one place."""

import ast
import pathlib

import pytest
from google.protobuf.descriptor import Descriptor
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest, SwarmInput
from tierflow_contracts.events.v1.event_pb2 import Event
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest
from tierflow_runtime import subjects
from tierflow_runtime.requests import run_request, step_request
from tierflow_runtime.values import Allocation, Context, Options, RetryPolicy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILDERS = {
    "libs/runtime/src/tierflow_runtime/requests.py": "the builder of the tiers",
    "libs/sdk/src/tierflow/": "the client's own, for the SDK knows no library of the services",
    "libs/testing/src/tierflow_testing/executor_peer.py": "stands in for an orchestrator, so that executors can be tested alone",
}
"""Where execution requests are constructed, and why there."""

CONTEXT = Context(
    tenant="acme",
    user_id="ann",
    swarm_id="019a0000-0000-7000-8000-000000000001",
    run_id="019a0000-0000-7000-8000-000000000002",
    parent_id="019a0000-0000-7000-8000-000000000001",
    root_id="019a0000-0000-7000-8000-000000000001",
    correlation_id="order-7",
    request_id="r-1",
    depth=1,
    deadline=1_800_000_000_000_001,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    tracestate="vendor=1",
    labels={"team": "billing"},
)


@pytest.mark.parametrize(
    ("request_type", "input_type"),
    [(StepExecutionRequest, "StepInput"), (RunExecutionRequest, "RunInput"), (SwarmExecutionRequest, "SwarmInput")],
)
def test_the_envelope_has_four_parts(request_type: type, input_type: str) -> None:
    """A1, A2, A3, A4, O6, Lesson 1: each request has exactly context, input, allocation and options, as 1 to 4, of the same types."""
    descriptor: Descriptor = request_type.DESCRIPTOR
    seen = {field.number: (field.name, field.message_type.name, field.is_repeated) for field in descriptor.fields}
    assert seen == {
        1: ("context", "ExecutionContext", False),
        2: ("input", input_type, False),
        3: ("allocation", "ResourceAllocation", False),
        4: ("options", "ExecutionOptions", False),
    }


def test_the_shared_parts_are_the_same_messages() -> None:
    """A4: context, allocation and options are one message type each in all three requests."""
    types = [
        [
            request.DESCRIPTOR.fields_by_name[part].message_type.full_name
            for part in ("context", "allocation", "options")
        ]
        for request in (StepExecutionRequest, RunExecutionRequest, SwarmExecutionRequest)
    ]
    assert types[0] == types[1] == types[2]


def test_a_run_request_of_tier_1_is_what_tier_2_reads() -> None:
    """A2: the bytes of a run request are fixed: what a coordinator of this build sends, any orchestrator of this contract reads."""
    options = Options(priority=5, retry=RetryPolicy(max_attempts=4), failure_policy="CONTINUE")
    flow = FlowRef(name="billing", version="2")
    allocation = Allocation(credits=2**53 + 1, wall_time=1_500_000)
    built = run_request(
        CONTEXT, flow, input='{"n":1}', allocation=allocation, options=options, now=1_799_999_999_000_001
    )
    data = built.SerializeToString(deterministic=True)
    golden = (ROOT / "tests/contract/golden/run_request.bin").read_bytes()
    assert data == golden
    read = RunExecutionRequest.FromString(golden)
    assert read.context.run_id == CONTEXT.run_id
    assert read.context.time_remaining.ToMicroseconds() == 1_000_000
    assert read.input.flow.version == "2"
    assert read.allocation.credits == 2**53 + 1
    assert read.options.retry.max_attempts == 4


def test_a_step_request_of_tier_2_is_what_tier_3_reads() -> None:
    """A1: the bytes of a step request are fixed likewise."""
    built = step_request(
        CONTEXT,
        "http.request",
        input='{"url":"http://x"}',
        allocation=Allocation(memory_bytes=1 << 30),
        options=Options(timeout=30_000_000, on_lost="ASK"),
        step_id="fetch[3]",
        attempt=2,
        attempt_id="a-2",
        idempotency_key="k",
        epoch=2,
        last_heartbeat='{"at":5}',
        grant_token="g",
    )
    golden = (ROOT / "tests/contract/golden/step_request.bin").read_bytes()
    assert built.SerializeToString(deterministic=True) == golden
    read = StepExecutionRequest.FromString(golden)
    assert (read.context.step_id, read.context.attempt, read.context.epoch) == ("fetch[3]", 2, 2)
    assert (read.input.handler, read.input.last_heartbeat.json, read.input.grant_token) == (
        "http.request",
        '{"at":5}',
        "g",
    )


def test_plans_are_a_choice() -> None:
    """A3, A10: a plan is one flow, several fixed flows or a goal, never two of them; agents and team are beside it."""
    fields = SwarmInput.DESCRIPTOR.fields_by_name
    assert [field.name for field in SwarmInput.DESCRIPTOR.oneofs_by_name["plan"].fields] == ["flow", "fixed", "goal"]
    assert fields["available_agents"].message_type.name == "Agent"
    assert fields["team_configuration"].message_type.name == "TeamConfiguration"


def product() -> list[pathlib.Path]:
    """All code of the product; tests and what is generated are not."""
    paths = [path for folder in ("libs", "services") for path in (ROOT / folder).glob("*/src/**/*.py")]
    assert len(paths) > 50
    return [path for path in paths if "tierflow_contracts" not in path.parts]


def calls(path: pathlib.Path) -> list[tuple[str, int]]:
    """The names of everything that a module calls with arguments (without any, a message is an empty one to copy into), and where."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.append((name, node.lineno))
    return found


def test_requests_are_built_in_one_place() -> None:
    """A6, Lesson 1: no code but the builder constructs an execution request, so that it cannot have other fields than its reader expects."""
    requests = {"StepExecutionRequest", "RunExecutionRequest", "SwarmExecutionRequest"}
    elsewhere, there = [], 0
    for path in product():
        name = str(path.relative_to(ROOT))
        lines = [line for called, line in calls(path) if called in requests]
        if name.startswith(tuple(BUILDERS)):
            there += len(lines)
        else:
            elsewhere += [f"{name}:{line}" for line in lines]
    assert elsewhere == []
    assert there >= 3, "the builder itself was looked at"


def test_one_module_publishes() -> None:
    """B16, B11: only the publisher publishes on the connection; everybody else goes through it."""
    publishing = []
    for path in product():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            past_it = node.func.attr == "publish" and not owner.endswith("publisher") and owner != "self"
            if past_it or (node.func.attr == "_send_command" and owner == "client"):
                publishing.append(str(path.relative_to(ROOT)))
    assert publishing == ["libs/runtime/src/tierflow_runtime/publisher.py"]
    streams = [str(path.relative_to(ROOT)) for path in product() if "jetstream(" in path.read_text()]
    assert "libs/runtime/src/tierflow_runtime/messaging.py" in streams


def test_every_class_of_events_has_its_place() -> None:
    """A11, H10: every payload of the contract is in the catalogue, and every class of it in the subjects of a stream."""
    kinds = {field.name for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert kinds == set(subjects.CATALOGUE)
    for event_class in set(subjects.CATALOGUE.values()):
        name = subjects.RELIABLE.get(event_class, "progress.>")
        assert f"tierflow.v1.*.*.*.{name}" in subjects.RELIABLE_SUBJECTS + subjects.PROGRESS_SUBJECTS
