"""Commands from any replica (rule R14): applied here, handed to the owner, or applied after a claim."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Generic, TypeVar

import grpc
import msgspec
from tierflow_contracts.common.v1 import peer_service_pb2, peer_service_pb2_grpc
from tierflow_runtime import wire
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

from tierflow_durable.database import unavailable
from tierflow_durable.host import Host
from tierflow_durable.ids import uuid7
from tierflow_durable.reading import Reader

S = TypeVar("S")
C = TypeVar("C")

PATIENCE = 20.0
"""Seconds for which a command looks for an owner: longer than a fenced one's lease."""


class Router(Generic[S, C]):
    """Brings each command to the one place where it may be decided."""

    def __init__(self, host: Host[S, C, Any], reader: Reader[S]) -> None:
        self._host = host
        self._reader = reader
        self._channels: dict[str, tuple[grpc.aio.Channel, Any]] = {}

    async def command(self, entity_id: str, command: C, command_id: str = "") -> Any:
        """Applies a command wherever its entity is owned, and returns the reply after the commit.

        Raises FailureError: NOT_FOUND, QUARANTINED, DATABASE_UNAVAILABLE, UNAVAILABLE when no owner was reached in time, or what the machine refuses with.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        pause = 0.01
        while True:
            done, reply = await self._try(entity_id, command, command_id or uuid7())
            if done:
                return reply
            if loop.time() > until:
                raise FailureError(
                    failure(
                        "UNAVAILABLE",
                        f"the owner of {self._host.machine.kind} {entity_id} cannot be reached; try again",
                        component="durable",
                        operation="command",
                    )
                )
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 0.5)

    async def _try(self, entity_id: str, command: C, command_id: str) -> tuple[bool, Any]:
        host = self._host
        if entity_id in host.entities:
            return await self.here(entity_id, command)
        row = await host.database.fetchrow("owner", id=entity_id)
        if row is None:
            raise self._reader.not_found(entity_id)
        if row["ended_at"] is not None and (answer := await self._on_ended(entity_id, command)) is not None:
            return True, answer
        owner = None if row["owner"] is None else str(row["owner"])
        if owner == host.instance.id:
            return False, None
        if owner is not None and not row["fenced"]:
            return await self._forward(row["address"], entity_id, command, command_id)
        return await self._claim_and_apply(entity_id, owner, command)

    async def _claim_and_apply(self, entity_id: str, owner: str | None, command: C) -> tuple[bool, Any]:
        host = self._host
        entity = None if host.draining else await host.owning.claim(entity_id, owner)
        if entity is None:
            return False, None
        try:
            return await self.here(entity_id, command)
        finally:  # from now on it may be parked again, and nobody else would look
            entity.held -= 1
            host.touch(entity)

    async def here(self, entity_id: str, command: C) -> tuple[bool, Any]:
        """Applies a command to an entity in memory; (False, None) where it is just being let go or was lost before the commit."""
        host = self._host
        entity = host.entities.get(entity_id)
        if entity is None:
            return False, None
        if not host.instance.alive:
            raise unavailable("command")
        if entity.closing:
            await asyncio.wait({entity.wait_released()}, timeout=5)
            return False, None
        await host.provide_missing(entity.state, command)
        if entity.closing or host.entities.get(entity_id) is not entity:
            return False, None
        reply = host.apply(entity, command)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.when_committed(entity, lambda: None if future.done() else future.set_result(None))
        released = entity.wait_released()
        host.touch(entity)
        await asyncio.wait({future, released}, return_when=asyncio.FIRST_COMPLETED)
        return (True, reply) if future.done() or entity.seq == entity.committed_seq else (False, None)

    async def _on_ended(self, entity_id: str, command: C) -> Any | None:
        """The answer of an ended entity, where the command changes nothing: no claim, no write."""
        loaded = await self._host.loader.load(entity_id)
        if loaded is None:
            return None
        decision = self._host.machine.decide(loaded.state, command, max(self._host.clock.now(), loaded.last_time))
        return None if decision.events else decision.reply

    async def _forward(self, address: str, entity_id: str, command: C, command_id: str) -> tuple[bool, Any]:
        stub = self._stub(address)
        request = peer_service_pb2.ForwardRequest(
            instance_id=self._host.instance.id,
            commands=[
                peer_service_pb2.ForwardedCommand(
                    entity_id=entity_id,
                    command_id=command_id,
                    command=self._host.machine.dump_command(command),
                    kind=self._host.machine.kind,
                )
            ],
        )
        try:
            response = await stub.Forward(request, timeout=5)
        except grpc.aio.AioRpcError:
            return False, None
        reply = response.replies[0]
        if reply.HasField("failure"):
            told = wire.failure_from_proto(reply.failure)
            if told.code in ("NOT_OWNER", "STALE"):
                return False, None
            raise FailureError(told)
        return True, self._host.machine.load_reply(reply.reply)

    def _stub(self, address: str) -> Any:
        if address not in self._channels:
            channel = grpc.aio.insecure_channel(address)
            self._channels[address] = (channel, peer_service_pb2_grpc.PeerServiceStub(channel))
        return self._channels[address][1]

    async def close(self) -> None:
        """Closes the channels to peers."""
        for channel, _ in self._channels.values():
            await channel.close(None)
        self._channels.clear()


class PeerServicer(peer_service_pb2_grpc.PeerServiceServicer):
    """Applies commands that peers hand on to entities owned here."""

    def __init__(self, host: Host[Any, Any, Any], router: Router[Any, Any]) -> None:
        self._host = host
        self._router = router
        self._others: dict[str, PeerServicer] = {}

    def beside(self, other: PeerServicer) -> None:
        """Another kind of entity that this process owns: one service hands commands to both."""
        self._others[other._host.machine.kind] = other

    async def Forward(self, request: peer_service_pb2.ForwardRequest, context: Any) -> peer_service_pb2.ForwardResponse:  # noqa: N802
        """See the proto."""
        replies = [await self._others.get(item.kind, self)._one(item) for item in request.commands]
        return peer_service_pb2.ForwardResponse(replies=replies)

    async def _one(self, item: peer_service_pb2.ForwardedCommand) -> peer_service_pb2.ForwardedReply:
        try:
            done, reply = await self._router.here(item.entity_id, self._read(item.command))
            if not done:
                raise FailureError(
                    failure(
                        "NOT_OWNER",
                        "the entity is owned elsewhere; read its owner again",
                        component="durable",
                        operation="forward",
                    )
                )
            return peer_service_pb2.ForwardedReply(reply=self._host.machine.dump_reply(reply))
        except FailureError as error:
            return peer_service_pb2.ForwardedReply(failure=wire.failure_to_proto(error.failure))

    def _read(self, coded: bytes) -> Any:
        try:
            return self._host.machine.load_command(coded)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FailureError(
                failure(
                    "INVALID_REQUEST",
                    f"the command cannot be read: {error}",
                    component="durable",
                    operation="forward",
                )
            ) from error
