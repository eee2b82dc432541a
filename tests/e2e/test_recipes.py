"""Every line of docs/operations.md, run against the real services as an operator would type it."""

import json
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tierflow import Client, Handle, NotFound
from tierflow_contracts.common.v1.state_pb2 import SWARM_STATE_STOPPED, RunState
from tierflow_testing import grpcurl
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/operations.md"
RECIPES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.S | re.M) for line in block.splitlines()
]
STEERING = ("/PauseSwarm", "/ResumeSwarm", "/CancelSwarm", "/StopSwarm", "/CommandRun")
FURTHER = ("RetrySwarm", "SkipStep", "StepSwarm", "SetBreakpoints", "UpdateSwarm", "MigrateSwarm", "AskSwarm")
SLEEPER = {
    "name": "sleeper",
    "version": "1",
    "steps": {"sleep": {"call": "sleep", "timeout": "10m", "with": {"seconds": 300}}},
}
TIERS = ("coordinator", "orchestrator", "executor")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Stack(tmp_path_factory.mktemp("recipes"), StackOptions()) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address) as client:
        yield client


async def _run(recipe: str, stack: Stack, **ids: str) -> list[dict[str, Any]]:
    for number, service in enumerate((stack.coordinators[0], stack.orchestrators[0], stack.executors[0]), 7701):
        recipe = recipe.replace(f"127.0.0.1:{number}", service.address)
    for name, value in ids.items():
        recipe = recipe.replace(name, value)
    texts = [text async for text in grpcurl.run(grpcurl.parse(recipe))]
    return [json.loads(text) if text.startswith("{") else {"text": text} for text in texts]


async def test_every_recipe_works(stack: Stack, client: Client) -> None:
    """A13, I15, N8, Q14, A3, Lesson 44: in the order of the page; each line answers, and steering steers."""
    await client.register_flow(
        {"name": "greet", "version": "1", "steps": {"greet": {"call": "echo", "with": {"hello": "${{ input.who }}"}}}}
    )
    ended = await client.submit("greet", {"who": "Ada"})
    await ended.result(60)
    said: dict[str, list[dict[str, Any]]] = {}
    for recipe in RECIPES:
        if any(method in recipe for method in STEERING + FURTHER):
            continue
        said[recipe] = await _run(recipe, stack, SWARM_ID=ended.id, RUN_ID=ended.run_id)
        assert said[recipe], recipe
    orders = [answer["swarmId"] for recipe, (answer, *_) in said.items() if '"order-17"' in recipe]
    assert len(set(orders)) == 1
    health = [answer["status"] for recipe, (answer, *_) in said.items() if "Health/Check" in recipe]
    assert health == ["SERVING"] * 3
    (step,) = [answer for recipe, (answer, *_) in said.items() if "ExecuteStep" in recipe]
    assert step["state"] == "STEP_STATE_COMPLETED"
    assert json.loads(step["output"]["json"]) == {"hello": "Ada"}
    watched = next(messages for recipe, messages in said.items() if "WatchSwarm" in recipe)
    assert "ready" in watched[0]
    assert any("swarmEnded" in event for message in watched for event in message.get("batch", {}).get("events", ()))


async def _sleeper(client: Client) -> Handle:
    """A swarm whose run Tier 2 has stored: some recipes speak to it there."""
    handle = await client.submit(SLEEPER)

    async def stored() -> bool:
        try:
            await client.get_run(handle.run_id)
        except NotFound:
            return False
        return True

    await eventually(stored)
    return handle


async def test_steering_recipes_steer(stack: Stack, client: Client) -> None:
    """N8: pause and resume one swarm, then end it; each of the endings on a swarm of its own."""
    recipes = [recipe for recipe in RECIPES if any(method in recipe for method in STEERING)]
    assert len(recipes) == 11
    handle = await _sleeper(client)
    for recipe in recipes:
        (answer,) = await _run(recipe, stack, SWARM_ID=handle.id, RUN_ID=handle.run_id)
        assert answer["applied"] is True, (recipe, answer)
        if not re.search("Pause|Resume|PAUSE|RESUME", recipe):
            if "StopSwarm" in recipe and "FORCE" not in recipe:  # lets the step finish, which sleeps for minutes
                await handle.cancel()
            result = await handle.wait(60)
            assert result.outcome == "CANCELLED", recipe
            handle = await _sleeper(client)
    await handle.cancel()
    assert (await handle.wait(60)).state == "STOPPED"
    assert (await client.get(handle.id)).state == SWARM_STATE_STOPPED


async def test_further_recipes(stack: Stack, client: Client) -> None:
    """N8, C9, C12, Q5, Q21, S11: each line on a swarm for which it is meant."""
    broken = await client.submit({"name": "broken", "version": "1", "steps": {"no": {"fail": {"code": "NO"}}}})
    await broken.wait(60)
    emit = {"emit": "looked.at", "answer": "change", "with": {"good": True}, "needs": ["change"]}
    asked = await client.submit(
        {"name": "asked", "version": "1", "steps": {"change": {"signal": "change"}, "reply": emit}}
    )
    busy, paused = await _sleeper(client), await _sleeper(client)
    await client.pause(paused.id, interrupt=True)

    async def is_paused() -> bool:
        return RunState.Name((await client.get_run(paused.run_id)).state) == "RUN_STATE_PAUSED"

    await eventually(is_paused)
    meant = dict.fromkeys(FURTHER, busy) | dict.fromkeys(("StepSwarm", "MigrateSwarm"), paused)
    meant |= {"RetrySwarm": broken, "AskSwarm": asked}
    recipes = [recipe for recipe in RECIPES if any(method in recipe for method in FURTHER)]
    # One step is the last that a paused run is told here, and a step that was skipped is the end of its run.
    recipes.sort(key=lambda recipe: "StepSwarm" in recipe or "SkipStep" in recipe)
    assert len(recipes) == len(FURTHER) + 1
    for recipe in recipes:
        (method,) = [method for method in FURTHER if method in recipe]
        (answer,) = await _run(recipe, stack, SWARM_ID=meant[method].id)
        shown = answer.get("difference") or answer.get("plan") or answer.get("answer") or answer["applied"]
        assert shown, (recipe, answer)
    await paused.cancel()


@pytest.mark.parametrize("version", grpcurl.VERSIONS)
async def test_reflection_of_both_versions(stack: Stack, version: str) -> None:
    """A13: v1 and v1alpha on all three tiers; with it every service and type is described."""
    for service in (stack.coordinators[0], stack.orchestrators[0], stack.executors[0]):
        async with grpc.aio.insecure_channel(service.address) as channel:
            reflection = grpcurl.Reflection(channel, version=version)
            names = await reflection.services()
            assert {"grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= set(names)
            tier = service.name.removesuffix("-0")
            assert any(name.startswith(f"tierflow.{tier}.v1.") for name in names)
            for name in names:
                if name.startswith("tierflow."):
                    assert await reflection.describe(name)


async def test_a_bad_request_is_refused_with_all_violations(stack: Stack) -> None:
    """A3, Lesson 44: what is wrong is listed by field, all of it, in the details that grpcurl shows."""
    line = f'grpcurl -plaintext -d \'{{"options": {{"priority": 1000}}}}\' {stack.address} tierflow.coordinator.v1.CoordinatorService/SubmitSwarm'
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _run(line, stack)
    from tierflow.errors import InvalidRequest, call_error

    error = call_error(caught.value, stack.address)
    assert isinstance(error, InvalidRequest)
    assert {violation.field for violation in error.violations} == {"input", "options.priority"}
