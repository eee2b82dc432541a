"""A run in memory: what its events have made of it, and the questions that its shell asks.

Only `evolve` changes it. What is marked as derived is not part of the stored state: it is rebuilt from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, Final

from tierflow_flow.definition import Flow, StepSpec
from tierflow_flow.norms import Policy
from tierflow_runtime.ledger import Ledger
from tierflow_runtime.values import NO_ALLOCATION, BlobRef, Context, Failure, Micros, Options, Payload

from tierflow_orchestrator.core import budget, progress
from tierflow_orchestrator.core.clocks import Clocks, earliest
from tierflow_orchestrator.core.payloads import LARGEST_BYTES
from tierflow_orchestrator.core.states import RUN, STEP
from tierflow_orchestrator.core.steer import Steer
from tierflow_orchestrator.core.step import Step

STARTING: Final = frozenset(("RUNNING", "COMPENSATING"))
"""States of a run in which attempts start."""
REMEMBERED_COMMANDS: Final = 256
"""Ids of commands that a run remembers; older ones are forgotten first."""


class Run(Clocks):
    """One execution of a flow. The shell gives `flow` before any command or event, and `contents` as they are asked for."""

    __slots__ = (
        "allocation",
        "around",
        "asked",
        "backoff",
        "cancel_asked",
        "commands",
        "contents",
        "context",
        "counts_by_state",
        "created_at",
        "deadline",
        "decided",
        "degraded",
        "due",
        "ended_at",
        "environment",
        "exported",
        "failed_step",
        "failure",
        "flow",
        "flow_hash",
        "flow_name",
        "flow_version",
        "generation",
        "grown",
        "id",
        "input",
        "items",
        "large",
        "large_bytes",
        "ledger",
        "limits",
        "live",
        "log",
        "looked_into",
        "lookups",
        "moment",
        "open_steps",
        "options",
        "outcome",
        "output",
        "parsed",
        "partial",
        "policy",
        "ranked",
        "ranking",
        "ready",
        "reason",
        "sets",
        "signals",
        "started_at",
        "state",
        "steer",
        "steps",
        "stopping",
        "timers",
        "top_ended",
        "unconfirmed",
        "undecided",
        "undo",
        "undone",
        "unloaded",
        "views",
        "waits",
    )

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.flow: Flow | None = None
        self.state = ""
        """Empty before the first event."""
        self.reason = ""
        self.outcome = ""
        self.context = Context()
        self.generation = 1
        self.flow_hash = ""
        self.flow_name = ""
        self.flow_version = ""
        self.allocation = NO_ALLOCATION
        self.ledger = Ledger()
        """What of the allocation is held and spent."""
        self.options = Options()
        self.input: Payload | None = None
        self.output: Payload | None = None
        self.failure: Failure | None = None
        self.created_at: Micros = 0
        self.started_at: Micros | None = None
        self.ended_at: Micros | None = None
        self.deadline: Micros | None = None
        """The earliest of all that bound it in time. It stays where it is while the run is paused."""
        self.steps: dict[str, Step] = {}
        """In the order in which they became known."""
        self.live: dict[str, None] = {}
        """Steps with an attempt in flight, in the order in which they were scheduled."""
        self.open_steps = 0
        """Steps that have not ended; the items of a map count as one with it."""
        self.top_ended = 0
        self.failed_step = ""
        """The first step whose failure was not tolerated."""
        self.partial = False
        self.degraded = False
        self.cancel_asked = False
        self.stopping = ""
        """Why it is being stopped: CANCELLED, STEP_FAILED or DEADLINE_EXCEEDED."""
        self.asked: dict[str, None] = {}
        """Lost steps that wait for an operator."""
        self.unconfirmed: dict[str, None] = {}
        """Attempts that were stopped without a receipt."""
        self.commands: dict[str, tuple[bool, str]] = {}
        """By command id: whether it applied, and the state that it led to."""
        self.large: dict[str, list[BlobRef]] = {}
        """By id of the definition: outputs that are stored apart."""
        self.signals: dict[str, list[str]] = {}
        """By name: payloads (JSON texts) that no step has taken yet, oldest first."""
        self.log: list[str] = []
        """Where steps say how they are compensated: those that completed and the blocks around them, in the order in which they ended."""
        self.undo: list[str] = []
        """Of a run that is COMPENSATING: steps still to be compensated, the next one last."""
        self.grown: dict[str, str] = {}
        """By step: what has grown below it, a JSON text."""
        self.undone: list[str] = []
        """Steps whose compensation failed."""
        self.exported: Payload | None = None
        """`$context` of a document."""
        self.steer: Steer | None = None
        """What is kept only where somebody steers it."""
        self.sets = 0
        """Steps that have set variables."""
        # Derived.
        self.views: dict[str, dict[str, tuple[str, ...]]] = {}
        """By step: for each variable the steps whose values it sees, see `variables`."""
        self.around: set[str] = set()
        """The steps to which those in `log` belong."""
        self.large_bytes: dict[str, int] = {}
        """By id of the definition: the size of those outputs together."""
        self.counts_by_state: dict[str, int] = dict.fromkeys(STEP.table, 0)
        self.ready: dict[str, deque[str]] = {}
        """By handler: steps that may start, oldest first. Entries that are no longer so are dropped when they are met."""
        self.ranked: dict[str, list[tuple[int, int, str]]] = {}
        """By handler, where steps have priorities: a heap of (minus the priority, order, step) of those that may start."""
        self.ranking = 0
        self.due: set[str] = set()
        """Steps in BACKOFF whose delay is over; they are in `ready` as well."""
        self.backoff: list[tuple[Micros, str, int]] = []
        """A heap of (due, step, epoch); entries of epochs past are dropped when they are met."""
        self.waits: dict[str, None] = {}
        """Steps that wait for something other than an executor."""
        self.timers: list[tuple[Micros, str]] = []
        """A heap of (latest moment, step) of those, and of blocks with a deadline or a delay; entries that are over are dropped when they are met."""
        self.decided: dict[str, None] = {}
        """Steps whose approval is decided and not resolved yet."""
        self.limits: list[tuple[Micros, str]] = []
        """A heap of (moment, step): when steps fail unless they have begun or ended by then; see `limits`."""
        self.moment: Micros = 0
        """Of the event that was applied last."""
        self.lookups: dict[str, None] = {}
        """READY steps for which it is not known yet whether a stored result stands for an attempt."""
        self.undecided: deque[str] = deque()
        """Steps to look at within the decision under way: READY ones with a condition or items, maps whose items have all ended."""
        self.contents: dict[str, str] = {}
        """By SHA-256: JSON texts that the shell has provided."""
        self.unloaded: dict[str, None] | None = None
        """Contents that expressions may look into and that are not there yet; None where not computed."""
        self.looked_into: frozenset[str] | None = None
        self.parsed: dict[str, Any] = {}
        self.items: dict[str, list[Any]] = {}
        """By id of the map: its items, plain."""
        self.policy: Policy | None = None
        """The norms of the service; given by the shell. None: it has none."""
        self.environment: Mapping[str, str] = {}
        """Values of the environment variables that the flow may read; given by the shell."""

    @classmethod
    def fresh(cls, run_id: str) -> Run:
        """A run before its first event."""
        return cls(run_id)

    # What it is.

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in RUN.final

    @property
    def buried(self) -> bool:
        """Whether it was cancelled before its request came: a tombstone, without a flow (rule R29)."""
        return not self.flow_hash and self.state != ""

    @property
    def in_flight(self) -> int:
        """Attempts scheduled or running, those included that are being stopped."""
        return len(self.live)

    def definition(self) -> Flow:
        """Its flow; the shell gives it before anything else."""
        if self.flow is None:
            raise ValueError(f"run {self.id} was used without its flow")
        return self.flow

    def spec(self, step: Step) -> StepSpec:
        """The definition of a step; for an item, of its map."""
        flow = self.flow  # not by `definition`: it is asked for several times a step
        if flow is None:
            raise ValueError(f"run {self.id} was used without its flow")
        return flow.by_id[step.of]

    def content_steps(self) -> frozenset[str]:
        """Steps whose outputs it may have to look into: for expressions, or to put its own output together."""
        if self.looked_into is None:
            flow = self.definition()
            found = set(flow.content_steps)
            found.update(flow.leaves if flow.output is None else flow.output.steps)
            for spec in flow.steps:
                for template in spec.decided_by:
                    found.update(template.steps)
            self.looked_into = frozenset(found)
        return self.looked_into

    def note_large(self, definition_id: str, ref: BlobRef) -> None:
        """An output of a step, or of an item of a map, is stored apart."""
        self.large.setdefault(definition_id, []).append(ref)
        self.large_bytes[definition_id] = self.large_bytes.get(definition_id, 0) + ref.size

    def looks_into(self, definition_id: str) -> bool:
        """Whether stored outputs of this step must be at hand. Not where they are too many to make a value of: that fails without them."""
        return definition_id in self.content_steps() and self.large_bytes.get(definition_id, 0) <= LARGEST_BYTES

    @property
    def failure_policy(self) -> str:
        """FAIL_FAST, CONTINUE or PAUSE: what this run was asked to do, else what the flow says."""
        return self.options.failure_policy or self.definition().failure_policy or "FAIL_FAST"

    # What may start.

    @property
    def has_room(self) -> bool:
        """Whether the limits allow one more step at once."""
        allowed, wanted = self.allocation.concurrent_steps, self.definition().concurrency
        if self.steer is not None and self.steer.concurrency is not None:
            wanted = self.steer.concurrency or None
        if allowed is None and wanted is None:
            return True
        under_way = len(self.live)
        return (allowed is None or under_way < allowed) and (wanted is None or under_way < wanted)

    def may_start(self, step: Step) -> bool:
        """Whether a slot may be assigned to the step, the run's own state and limits aside."""
        if not step.handler or step.held or (self.lookups and step.id in self.lookups):
            return False
        return step.state == "READY" or (step.state == "BACKOFF" and step.id in self.due)

    def next_ready(self, handler: str) -> str | None:
        """Id of the oldest step that waits for a slot of the handler, None where there is none or nothing may start now."""
        queue = self.ready.get(handler)
        if self.state not in STARTING or not (queue or self.ranked) or not self.has_room:
            return None
        found = self._next_ranked(handler, queue) if self.definition().prioritised else self._first_in(queue)
        if found is not None and self.ledger.finite and budget.waits(self, self.steps[found]):
            return None
        return found

    def _first_in(self, queue: deque[str] | None) -> str | None:
        while queue:
            if self.may_start(self.steps[queue[0]]):
                return queue[0]
            queue.popleft()
        return None

    def _next_ranked(self, handler: str, queue: deque[str] | None) -> str | None:
        """As `next_ready`, in a flow of which steps have priorities."""
        heap = self.ranked.setdefault(handler, [])
        while queue:
            step_id = queue.popleft()
            self.ranking += 1
            heappush(heap, (-self.spec(self.steps[step_id]).priority, self.ranking, step_id))
        while heap:
            if self.may_start(self.steps[heap[0][2]]):
                return heap[0][2]
            heappop(heap)
        return None

    def ready_handlers(self) -> Iterator[str]:
        """Handlers for which some step may start now."""
        for handler in tuple(self.ready):
            if self.next_ready(handler) is not None:
                yield handler

    def next_wake(self) -> Micros | None:
        """When it next wants a `WakeUp` by itself: the end of a delay, its start time, its deadline. None: never."""
        if self.state == "CANCELLING" or self.ended:
            return None
        if self.state == "COMPENSATING":
            return self._next_due()
        moment = self.deadline
        other: Micros | None = None
        if self.answered() is not None or (self.decided and self.state in ("RUNNING", "SUSPENDED")):
            return self.created_at
        if self.state == "RUNNING":
            other = earliest(self._next_due(), self._next_moment())
        elif self.state == "SUSPENDED":
            other = self._next_moment()
        elif self.state == "QUEUED":
            other = self.options.not_before
        return earliest(moment, other)

    def answered(self) -> str | None:
        """A step that waits for a signal that is there and may be taken now."""
        if not self.signals or self.state not in ("RUNNING", "SUSPENDED"):
            return None
        for step_id in sorted(self.waits):
            if self.spec(self.steps[step_id]).settings.get("signal") in self.signals:
                return step_id
        return None

    def take_signal(self, name: str, step: Step) -> None:
        """A step has taken the oldest signal of this name."""
        kept = self.signals.get(name)
        if kept:
            del kept[0]
            if not kept:
                del self.signals[name]
            ids = self.steer.signal_ids if self.steer is not None else {}
            if name in ids:
                step.signal_id = ids[name].pop(0)
                if not ids[name]:
                    del ids[name]

    @property
    def only_waits(self) -> bool:
        """Whether there is nothing to do but to wait: no attempt is in flight, none may start or is going to by itself."""
        return bool(self.waits) and not (self.live or self.startable)

    @property
    def startable(self) -> bool:
        """Whether a step is going to start by itself, once there is a slot or its delay is over."""
        held = len(self.steer.held) if self.steer is not None else 0
        return self.counts_by_state["READY"] > held or self.counts_by_state["BACKOFF"] > 0

    @property
    def gated(self) -> bool:
        """Whether steps are looked at before they start: there are breakpoints, or it goes step by step."""
        return self.steer is not None and self.steer.gated

    def steered(self) -> Steer:
        """What is kept where somebody steers it; only `evolve` asks."""
        if self.steer is None:
            self.steer = Steer()
        return self.steer

    def why_waiting(self) -> str:
        """What it waits for first, in a word, and at which step; approvals before all else: people are told by it."""
        steps = (self.steps[step_id] for step_id in self.waits)
        first = min(steps, key=lambda s: (s.state != "AWAITING_APPROVAL", s.wakes_at is None, s.wakes_at or 0, s.id))
        return f"{first.reason}: {first.id}"

    # How far it is.

    def counts(self) -> dict[str, int]:
        """Steps by state, and `total`; items of maps included."""
        return {"total": len(self.steps), **self.counts_by_state}

    def percent(self) -> float:
        """Share of the flow's steps that have ended, 0 to 100, a map counted by its items. Never falls; 100 only when COMPLETED."""
        return progress.percent(self)
