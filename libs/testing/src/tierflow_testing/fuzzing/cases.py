"""Cases: for each RPC of all three tiers, the n-th hostile call of a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass
from tierflow_contracts.common.v1 import flow_pb2, peer_service_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.executor.v1 import executor_service_pb2 as ex
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orc
from tierflow_durable.ids import uuid7

from tierflow_testing.fuzzing import world as worlds
from tierflow_testing.fuzzing.calls import Case
from tierflow_testing.fuzzing.messages import Maker, spoilt
from tierflow_testing.fuzzing.values import TEXTS
from tierflow_testing.fuzzing.world import World

FILES = {"coordinator": (api, peer_service_pb2), "orchestrator": (orc, peer_service_pb2), "executor": (ex,)}
PATIENT = frozenset(
    ("WaitSwarm", "WaitRun", "WatchSwarm", "WatchRun", "ExecuteStep", "ExecuteSwarms", "ExecuteRuns", "ExecuteSteps")
)
"""Methods whose calls may last until their deadline."""
LARGEST = 4 * 1024 * 1024 - 1024
"""Bytes of the largest message that is sent; gRPC refuses larger ones by itself."""


def methods() -> list[tuple[str, MethodDescriptor]]:
    """Every RPC of every tier, with the tier."""
    return [
        (tier, method)
        for tier, files in FILES.items()
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def make_case(world: World, seed: str, tier: str, method: MethodDescriptor, number: int) -> Case:
    """The case of that number; the same for the same seed, but for the ids in the world."""
    name = f"{seed}/{tier}/{method.name}/{number}"
    chance = random.Random(name)
    maker = Maker(chance, world.pools)
    script = _SCRIPTS.get(method.name)
    if script is not None:
        frames = script(world, maker)
    else:
        frames = [_request(world, maker, method)] * chance.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 2))
    coded = [_coded(chance, frame, 0.12) for frame in frames]
    patient = method.name in PATIENT
    return Case(
        name=name,
        method=method,
        frames=coded,
        deadline=1.0 if patient else 40.0,
        metadata=_metadata(chance),
        half_close=chance.random() < (0.75 if script is not None else 0.95),
        patient=patient,
        sound=all(_is_sound(method, frame) for frame in coded),
    )


def _request(world: World, maker: Maker, method: MethodDescriptor) -> Message:
    """A request of the method's type: valid, mutated, or made from nothing."""
    kind = method.input_type
    make = worlds.valid_requests(world).get(kind.full_name)
    seed = make() if make is not None else _with_ids(world, maker, GetMessageClass(kind)())
    way = maker.chance.random()
    if way < 0.1:
        return seed
    return maker.mutated(seed) if way < 0.75 else maker.made(kind)


def _with_ids(world: World, maker: Maker, message: Message) -> Message:
    for field in message.DESCRIPTOR.fields:
        if field.name in world.pools and not field.is_repeated and field.message_type is None:
            setattr(message, field.name, maker.chance.choice(world.pools[field.name]))
    return message


def _coded(chance: random.Random, frame: Message, share: float) -> bytes:
    try:
        coded = frame.SerializeToString()
    except (EncodeError, ValueError):  # deeper than the encoder goes
        coded = b""
    coded = spoilt(chance, coded) if chance.random() < share else coded
    return coded if len(coded) <= LARGEST else coded[:LARGEST]


def _is_sound(method: MethodDescriptor, coded: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(coded)
    except DecodeError:
        return False
    return True


def _metadata(chance: random.Random) -> Sequence[tuple[str, str]]:
    """Nothing, mostly; sometimes an identity or a trace that is none."""
    if chance.random() < 0.93:
        return ()
    key = chance.choice(("tierflow-tenant", "tierflow-user", "traceparent", "x-request-id", "tracestate"))
    value = chance.choice([text for text in TEXTS if text.isascii() and text.isprintable() and text == text.strip()])
    return ((key, value),)


# --- streams: frames in any order, with or without the hello that must come first ---


def _some(maker: Maker, choices: Sequence[Callable[[], Message]]) -> list[Message]:
    frames = [maker.chance.choice(choices)() for _ in range(maker.chance.choice((0, 1, 1, 2, 3, 5, 8)))]
    return [maker.mutated(frame) if maker.chance.random() < 0.5 else frame for frame in frames]


def _execute_swarms(world: World, maker: Maker) -> list[Message]:
    def junk(most: int) -> list[str]:
        return [
            maker.chance.choice((uuid7(), maker.chance.choice(TEXTS))) for _ in range(maker.chance.randint(0, most))
        ]

    return _some(
        maker,
        (
            lambda: api.ExecuteSwarmsRequest(execute=[worlds.swarm(worlds.FLOW, "{}", uuid7())]),
            lambda: api.ExecuteSwarmsRequest(execute=[worlds.swarm(worlds.FLOW, "{}", "same")] * 3),
            lambda: api.ExecuteSwarmsRequest(execute=[worlds.swarm(worlds.FLOW, "{}")]),
            lambda: api.ExecuteSwarmsRequest(attach=[*world.pools["swarm_id"][:2], *junk(5)]),
            lambda: api.ExecuteSwarmsRequest(attach=junk(300)),
            api.ExecuteSwarmsRequest,
        ),
    )


def _execute_runs(world: World, maker: Maker) -> list[Message]:
    chance = maker.chance
    ref = flow_pb2.FlowRef(name="fuzzed")
    hello = orc.ExecuteRunsRequest(
        hello=orc.CoordinatorHello(instance_id=uuid7(), name=chance.choice(("fuzzer", *TEXTS)))
    )

    def command() -> Message:
        one = orc.CommandRunRequest(
            run_id=chance.choice((uuid7(), *TEXTS)), command=chance.choice(orc.RunCommand.values()), command_id=uuid7()
        )
        return orc.ExecuteRunsRequest(commands=[one] * chance.choice((1, 3)))

    def acknowledged() -> Message:
        one = orc.RunAcknowledgement(
            run_id=chance.choice((uuid7(), *TEXTS)), generation=chance.choice((0, 1, 2**31, 2**32 - 1))
        )
        return orc.ExecuteRunsRequest(acknowledge=[one])

    frames = _some(
        maker,
        (
            lambda: hello,
            lambda: orc.ExecuteRunsRequest(execute=[worlds.run(ref)]),
            lambda: orc.ExecuteRunsRequest(
                execute=[worlds.run(flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml=worlds.FLOW)))] * 2
            ),
            command,
            acknowledged,
            orc.ExecuteRunsRequest,
        ),
    )
    return [hello, *frames] if chance.random() < 0.85 else frames


def _execute_steps(world: World, maker: Maker) -> list[Message]:
    chance = maker.chance
    instance = uuid7()
    hello = ex.ExecuteStepsRequest(
        hello=ex.OrchestratorHello(instance_id=instance, name="fuzzer", address=chance.choice(TEXTS))
    )

    def ids() -> list[str]:
        return [chance.choice((uuid7(), *TEXTS)) for _ in range(chance.randint(1, 5))]

    frames = _some(
        maker,
        (
            lambda: hello,
            lambda: ex.ExecuteStepsRequest(
                hello=ex.OrchestratorHello(instance_id=instance, replaces=[*ids(), instance])
            ),
            lambda: ex.ExecuteStepsRequest(execute=[worlds.step()]),
            lambda: ex.ExecuteStepsRequest(execute=[worlds.step()] * 3),
            lambda: ex.ExecuteStepsRequest(cancel=[ex.CancelStepRequest(attempt_id=each) for each in ids()]),
            lambda: ex.ExecuteStepsRequest(acknowledge=ids()),
            lambda: ex.ExecuteStepsRequest(adopt=ids()),
            ex.ExecuteStepsRequest,
        ),
    )
    return [hello, *frames] if chance.random() < 0.85 else frames


def _put_blob(world: World, maker: Maker) -> list[Message]:
    known = world.pools["sha256"][0]

    def named() -> Message:
        return orc.PutBlobRequest(sha256=maker.chance.choice((known, "0" * 64, *TEXTS)))

    def part() -> Message:
        return orc.PutBlobRequest(chunk=maker.chance.choice((b"", b"fuzzed", b"\0" * 300_000)))

    right: list[Message] = [orc.PutBlobRequest(sha256=known), orc.PutBlobRequest(chunk=b"fuzzed")]
    choices: tuple[list[Message], ...] = (
        [],
        right,
        list(reversed(right)),
        _some(maker, (named, part, orc.PutBlobRequest)),
    )
    return maker.chance.choice(choices)


_SCRIPTS: dict[str, Callable[[World, Any], list[Message]]] = {
    "ExecuteSwarms": _execute_swarms,
    "ExecuteRuns": _execute_runs,
    "ExecuteSteps": _execute_steps,
    "PutBlob": _put_blob,
}
