# ruff: noqa: D101, D102
"""A toy machine for tests of the durable library: a counter that can be added to, parked and ended."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from tierflow_contracts.events.v1 import event_pb2
from tierflow_durable.durable import Durable, DurableOptions
from tierflow_durable.machine import Header, Source
from tierflow_runtime.values import Failure, FailureError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Add(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Adds `n`; `text` travels in the event."""

    n: int = 1
    text: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ends the counter."""


class Park(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Parks the counter, until `wake_at` where that is given."""

    wake_at: int | None = None


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The moment has come."""


Command = Add | End | Park | Wake


class Fact(msgspec.Struct, frozen=True):
    """The one event of counters."""

    kind: str
    n: int = 0
    text: str = ""
    wake_at: int | None = None


class Counter(msgspec.Struct):
    """The state."""

    id: str
    total: int = 0
    ended_at: int | None = None
    parked: bool = False
    wake_at: int | None = None
    woken: int = 0
    created_at: int = 0


class Decision:
    def __init__(self, events: list[Fact], reply: Any, blobs: dict[str, bytes] | None = None) -> None:
        self.events, self.reply, self.blobs = events, reply, blobs or {}


class Toy:
    """The machine. Facts travel as CommandReceived events: the reason holds their JSON."""

    kind = "run"

    def fresh(self, entity_id: str) -> Counter:
        return Counter(entity_id)

    def decide(self, state: Counter, command: Command, now: int) -> Decision:
        if state.ended_at is not None:
            return Decision([], state.total)
        match command:
            case Add(n=n, text=text):
                if n < 0:
                    raise FailureError(Failure(code="INVALID_REQUEST", message="n must not be negative"))
                events = [Fact("added", n, text)]
            case End():
                events = [Fact("ended")]
            case Park(wake_at=wake_at):
                events = [Fact("parked", wake_at=wake_at)]
            case Wake():
                events = [Fact("woken")] if state.wake_at is not None and state.wake_at <= now else []
        for event in events:
            self.evolve(state, event, now)
        return Decision(events, state.total)

    def evolve(self, state: Counter, event: Fact, time: int) -> None:
        state.created_at = state.created_at or time
        match event.kind:
            case "added":
                state.total += event.n
                state.parked = False
            case "ended":
                state.ended_at = time
            case "parked":
                state.parked, state.wake_at = True, event.wake_at
            case "woken":
                state.woken += 1
                state.parked, state.wake_at = False, None

    def header(self, state: Counter) -> Header:
        return Header(
            tenant="t",
            user_id="u",
            state="COMPLETED" if state.ended_at else "PAUSED" if state.parked else "RUNNING",
            name="toy",
            created_at=state.created_at,
            ended_at=state.ended_at,
            parked=state.parked,
            wake_at=state.wake_at,
            trace_id=TRACE[3:35],
            unacknowledged=state.ended_at is not None,
        )

    def source(self, state: Counter) -> Source:
        return Source(
            tenant="t",
            user_id="u",
            swarm_id="",
            run_id=state.id,
            trace_id=TRACE[3:35],
            correlation_id="",
            traceparent=TRACE,
        )

    def encode(self, event: Fact, seq: int, time: int) -> bytes:
        message = event_pb2.Event(
            seq=seq,
            command_received=event_pb2.CommandReceived(command=event.kind, reason=msgspec.json.encode(event).decode()),
        )
        message.time.FromMicroseconds(time)
        return message.SerializeToString()

    def classify(self, event: Fact) -> str:
        return "audit"

    def decode(self, data: bytes) -> Iterable[tuple[int, int, Fact]]:
        for event in event_pb2.EventBatch.FromString(data).events:
            yield event.seq, event.time.ToMicroseconds(), msgspec.json.decode(event.command_received.reason, type=Fact)

    def wake_command(self) -> Wake:
        return Wake()

    def abort_command(self, failure: Failure) -> End:
        return End()

    def dump(self, state: Counter) -> bytes:
        return msgspec.msgpack.encode(state)

    def load(self, data: bytes) -> Counter:
        return msgspec.msgpack.decode(data, type=Counter)

    def dump_command(self, command: Command) -> bytes:
        return msgspec.msgpack.encode(command)

    def load_command(self, data: bytes) -> Command:
        command: Command = msgspec.msgpack.decode(data, type=Command)
        return command

    def dump_reply(self, reply: Any) -> bytes:
        return msgspec.msgpack.encode(reply)

    def load_reply(self, data: bytes) -> Any:
        return msgspec.msgpack.decode(data)


class Notes:
    """Hooks that note what they hear."""

    def __init__(self) -> None:
        self.committed_facts: list[tuple[str, Fact]] = []
        self.opened_ids: list[str] = []
        self.closed_ids: list[tuple[str, str]] = []
        self.replaced: list[str] = []

    def prepare_now(self, state: Counter, first: Fact | None, command: Command | None) -> bool:
        return True

    async def prepare(self, state: Counter, first: Fact | None, command: Command | None) -> None: ...

    def missing(self, state: Counter, command: Command | None) -> Sequence[str]:
        return ()

    def provide(self, state: Counter, sha256: str, content: bytes) -> None: ...

    def settle(self, entity: Any) -> None: ...

    def committed(self, entity: Any, events: Sequence[Fact]) -> None:
        self.committed_facts += [(entity.id, event) for event in events]

    def replaces(self, instance_id: str) -> None:
        self.replaced.append(instance_id)

    def opened(self, entity: Any) -> None:
        self.opened_ids.append(entity.id)

    def closed(self, entity: Any, reason: str) -> None:
        self.closed_ids.append((entity.id, reason))


class Node:
    """One instance of the toy tier within the test's process."""

    def __init__(
        self, database_url: str, name: str, *, publisher: Any = None, lease: float = 20.0, heartbeat: float = 0.2
    ) -> None:
        self.notes = Notes()
        self.fenced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        options = DurableOptions(
            schema="toy",
            database_url=database_url,
            name=name,
            address="127.0.0.1:1",  # nobody listens there: peers cannot forward
            lease=lease,
            heartbeat=heartbeat,
        )
        self.durable = Durable(Toy(), self.notes, options, publisher=publisher, on_fenced=self._on_fenced)

    def _on_fenced(self, why: str) -> None:
        if not self.fenced.done():
            self.fenced.set_result(why)

    async def die(self) -> None:
        """As kill -9: the loops stop, nothing is handed over."""
        await self.durable.close()

    @property
    def host(self) -> Any:
        return self.durable.host
