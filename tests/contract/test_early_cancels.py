"""Cancels that come before their runs (R29)."""

import asyncio
import time

import grpc
import pytest
from tierflow_contracts.common.v1 import execution_pb2, flow_pb2, state_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as api
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure_of
from tierflow_runtime.requests import run_request
from tierflow_runtime.values import Allocation, Context, Options
from tierflow_runtime.wire import context_to_proto
from tierflow_testing.stack import Stack

ECHO = "{name: early, version: '1', steps: {echo: {call: contract.echo, with: {given: 1}}}}"


def context_of(run_id: str) -> Context:
    """The context of a run of a swarm that this test plays."""
    return Context(tenant="default", user_id="dev", swarm_id=uuid7(), run_id=run_id)


def cancel(run_id: str, context: execution_pb2.ExecutionContext | None) -> api.CommandRunRequest:
    """A cancel, as a coordinator sends it."""
    return api.CommandRunRequest(
        run_id=run_id, command=api.RUN_COMMAND_CANCEL, command_id="c", actor="ann", reason="too late", context=context
    )


async def test_a_cancel_before_its_run_refuses_it(system: Stack) -> None:
    """R29: a cancel of an unknown run leaves one that is cancelled from its beginning and is acknowledged; it refuses the request that comes later."""
    run_id = uuid7()
    context = context_of(run_id)
    request = run_request(
        context, flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml=ECHO)), input="{}", allocation=Allocation(), options=Options()
    )  # fmt: skip
    async with open_channel(system.orchestrators[0].address) as channel:
        tier2 = OrchestratorServiceStub(channel)
        answers = [await tier2.CommandRun(cancel(run_id, context_to_proto(context))) for _ in range(2)]
        assert [(answer.applied, answer.state) for answer in answers] == [(True, state_pb2.RUN_STATE_CANCELLED)] * 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tier2.StartRun(request)
        assert failure_of(refused.value).code == "CANCELLED"
        run = (await tier2.GetRun(api.GetRunRequest(run_id=run_id))).run
        assert (run.state, run.outcome, run.reason) == (
            state_pb2.RUN_STATE_CANCELLED,
            state_pb2.OUTCOME_CANCELLED,
            "too late",
        )
        batch = (await tier2.ListRunEvents(api.ListRunEventsRequest(run_id=run_id))).batch
        kinds = [event.WhichOneof("payload") for event in batch.events]
        assert kinds == ["run_created", "command_received", "run_state_changed", "run_ended"]
        assert not (await tier2.ListSteps(api.ListStepsRequest(run_id=run_id))).steps


async def test_a_cancel_and_its_run_at_once(system: Stack) -> None:
    """R29, R3, C6: whichever is stored first, there is one run, and it ends cancelled."""
    async with open_channel(system.orchestrators[0].address) as channel:
        tier2 = OrchestratorServiceStub(channel)
        for _ in range(20):
            context = context_of(uuid7())
            request = run_request(
                context, flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml=ECHO)), input="{}", allocation=Allocation(),
                options=Options(not_before=2**52),
            )  # fmt: skip
            started, cancelled = await asyncio.gather(
                tier2.StartRun(request),
                tier2.CommandRun(cancel(context.run_id, context_to_proto(context))),
                return_exceptions=True,
            )
            assert not isinstance(cancelled, BaseException)
            if isinstance(started, BaseException):
                assert isinstance(started, grpc.aio.AioRpcError)
                assert failure_of(started).code == "CANCELLED"
            waited = await tier2.WaitRun(api.WaitRunRequest(run_id=context.run_id), timeout=60)
            assert waited.run.state == state_pb2.RUN_STATE_CANCELLED


async def test_who_cancels_an_unknown_run_without_its_context(system: Stack) -> None:
    """R29, C1, Lesson 8: a person who mistypes an id learns that there is no such run, and leaves nothing; a context of another run is refused."""
    run_id = uuid7()
    async with open_channel(system.orchestrators[0].address) as channel:
        tier2 = OrchestratorServiceStub(channel)
        for context, code in ((None, "NOT_FOUND"), (context_to_proto(context_of(uuid7())), "INVALID_REQUEST")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await tier2.CommandRun(cancel(run_id, context))
            assert failure_of(refused.value).code == code
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await tier2.GetRun(api.GetRunRequest(run_id=run_id))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("days", "words"), [(-31, "31 days old"), (0.1, "minutes ahead of the clock")])
async def test_ids_out_of_time_are_refused(system: Stack, days: float, words: str) -> None:
    """R8, A5: the id of a new run is neither older than what is kept nor far ahead of the clock, be it asked for or cancelled before it came."""
    run_id = uuid7(time.time_ns() // 1000 + int(days * 86_400_000_000))
    context = context_of(run_id)
    request = run_request(
        context, flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml=ECHO)), input="{}", allocation=Allocation(), options=Options()
    )  # fmt: skip
    async with open_channel(system.orchestrators[0].address) as channel:
        tier2 = OrchestratorServiceStub(channel)
        for call in (tier2.StartRun(request), tier2.CommandRun(cancel(run_id, context_to_proto(context)))):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            failure = failure_of(refused.value)
            assert (refused.value.code(), failure.code) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
            assert [words in each.description for each in failure.violations] == [True]
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await tier2.GetRun(api.GetRunRequest(run_id=run_id))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
