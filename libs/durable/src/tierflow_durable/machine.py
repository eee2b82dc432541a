"""What a tier gives to the durable library: its state machine, and what it wants to hear.

A *machine* is pure: it decides, evolves, and turns events into bytes and back. *Hooks* are the shell: they act on what was committed. The library owns the rest:
who holds an entity, when a decision is committed, what a caller is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, FailureError, Micros

if TYPE_CHECKING:
    from tierflow_durable.entity import Entity

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")
C_in = TypeVar("C_in", contravariant=True)
E_in = TypeVar("E_in", contravariant=True)


class UnknownRecord(FailureError):
    """Something stored that this build does not know: a newer version wrote it. Whoever would go on without it would lose facts, so nobody does."""

    def __init__(self, what: str) -> None:
        message = f"{what} is not known to this build: an instance of a newer version goes on with it"
        super().__init__(failure("UNAVAILABLE", message, component="durable", operation="load", retry_after=1_000_000))


class Header(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The entity's row: what listing, waking and ownership need (rule R6). Written only when it differs from the one written last."""

    tenant: str
    user_id: str
    state: str
    reason: str = ""
    name: str = ""
    """Name of the flow."""
    version: str = ""
    """Version of the flow."""
    parent_id: str | None = None
    """The swarm of a run."""
    trace_id: str = ""
    correlation_id: str = ""
    labels: Mapping[str, str] = {}
    outcome: str = ""
    generation: int = 1
    created_at: Micros = 0
    ended_at: Micros | None = None
    """Set means that the entity has ended: its owner lets it go."""
    parked: bool = False
    """Nothing is in flight and it waits: its owner lets it go until wake_at or a command (rule R15)."""
    wake_at: Micros | None = None
    unacknowledged: bool = False
    """Ended, and the tier above has not yet acknowledged the result (rule R28)."""


class Source(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose events they are, for subjects and for the head of each published batch."""

    tenant: str
    user_id: str
    swarm_id: str
    run_id: str
    trace_id: str
    correlation_id: str
    traceparent: str = ""


class Decision(Protocol):
    """What a decision yields: events already applied to the state, an answer, and large values to be stored with them."""

    @property
    def events(self) -> Sequence[Any]:
        """In order, already applied."""
        ...

    @property
    def reply(self) -> Any:
        """For the caller, once the events are committed."""
        ...

    @property
    def blobs(self) -> Mapping[str, bytes]:
        """By SHA-256."""
        ...


class Machine(Protocol[S, C, E]):
    """The pure state machine of one kind of entity, with its coding."""

    kind: str
    """`swarm`, `run` or `schedule`."""

    def fresh(self, entity_id: str) -> S:
        """The state before the first event."""
        ...

    def decide(self, state: S, command: C, now: Micros) -> Decision:
        """Decides, and applies the events it emits to `state`. Raises `FailureError` to refuse: then no event was applied."""
        ...

    def evolve(self, state: S, event: E, time: Micros) -> None:
        """Applies a stored event while loading."""
        ...

    def header(self, state: S) -> Header:
        """The row of the entity."""
        ...

    def source(self, state: S) -> Source:
        """Whose events they are; constant over the entity's life."""
        ...

    def encode(self, event: E, seq: int, time: Micros) -> bytes:
        """The event as a serialised `tierflow.events.v1.Event`."""
        ...

    def classify(self, event: E) -> str:
        """The class of the event: lifecycle, steps, tools, approvals or audit."""
        ...

    def decode(self, data: bytes) -> Iterable[tuple[int, Micros, E]]:
        """The events in a serialised `tierflow.events.v1.EventBatch`, with sequence number and time."""
        ...

    def wake_command(self) -> C:
        """The command that says that a moment the entity waited for has come."""
        ...

    def abort_command(self, failure: Failure) -> C:
        """The command that ends an entity whose machine failed while deciding."""
        ...

    def dump(self, state: S) -> bytes:
        """The state as a snapshot."""
        ...

    def load(self, data: bytes) -> S:
        """The state of a snapshot."""
        ...

    def dump_command(self, command: C) -> bytes:
        """A command for forwarding to the owner."""
        ...

    def load_command(self, data: bytes) -> C:
        """A forwarded command."""
        ...

    def dump_reply(self, reply: Any) -> bytes:
        """An answer for the instance that forwarded the command."""
        ...

    def load_reply(self, data: bytes) -> Any:
        """A forwarded answer."""
        ...


class Hooks(Protocol[S, C_in, E_in]):
    """The shell of a tier. None of these may block; all run on the event loop."""

    def prepare_now(self, state: S, first: E_in | None, command: C_in | None) -> bool:
        """Gives a state what it needs from outside (a run's flow) before it is built from its events or takes its first command.

        `first` is its first stored event (None for a new entity, or one that comes from a snapshot), `command` the first command of a new one. Returns False
        where that takes waiting: then `prepare` is called. Both may raise `FailureError`: then the command is refused.
        """
        ...

    async def prepare(self, state: S, first: E_in | None, command: C_in | None) -> None:
        """As `prepare_now`, where it takes waiting."""
        ...

    def missing(self, state: S, command: C_in | None) -> Sequence[str]:
        """SHA-256 names of large values that the machine must look into before it decides `command` (None: before it goes on after loading)."""
        ...

    def provide(self, state: S, sha256: str, content: bytes) -> None:
        """Gives a value that was named as missing."""
        ...

    def settle(self, entity: Entity[S]) -> None:
        """After each decision, in the same slice and commit: further commands may be applied with `host.apply` (slots for steps that became ready)."""
        ...

    def committed(self, entity: Entity[S], events: Sequence[E_in]) -> None:
        """The events are committed: carry out what they demand."""
        ...

    def replaces(self, instance_id: str) -> None:
        """This instance takes over entities of a fenced one: tell the tier below before anything is sent for them (rule R25)."""
        ...

    def opened(self, entity: Entity[S]) -> None:
        """This instance has become the owner of a stored entity: carry out every effect not known to be done (rule R16)."""
        ...

    def closed(self, entity: Entity[S], reason: str) -> None:
        """The entity is no longer in memory: ended, parked, released, lost or fenced."""
        ...


class RequestKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request id of a client, with the hash of the body it came with (rule R8)."""

    tenant: str
    request_id: str
    body_hash: bytes
