"""A step of a run: its state and what is known of its attempts."""

from __future__ import annotations

from typing import Final

import msgspec
from tierflow_runtime.values import NO_USAGE, Allocation, Failure, Micros, Payload, Usage

from tierflow_orchestrator.core.states import STEP


class Branches(msgspec.Struct, gc=False, omit_defaults=True):
    """The items of a map step: how many there are, how many ended how."""

    count: int
    released: int = 0
    """Items that were made READY; item `released` is next."""
    ended: int = 0
    failed: int = 0
    cancelled: int = 0
    degraded: int = 0
    partial: bool = False
    """Whether an item of several steps ended PARTIAL."""
    sealed_by: str = ""
    """The item whose failure exceeded what is tolerated; empty as long as the map can complete."""
    kept: int = 0
    """Items from `released` on that ended in an earlier generation."""


class CacheHit(msgspec.Struct, frozen=True, gc=False):
    """Where a result that was not made anew comes from."""

    key_hash: str
    run_id: str
    step_id: str
    stored_at: Micros


class Variable(msgspec.Struct, frozen=True, gc=False):
    """A variable and its value as of a step, a JSON text. `merged_from`: the steps whose values met there, in the order in which they were set."""

    name: str
    value: str
    merged_from: tuple[str, ...] = ()
    policy: str = ""


class Vote(msgspec.Struct, frozen=True, gc=False):
    """What one person said about an approval."""

    user: str
    verdict: str
    """APPROVED or REJECTED."""
    reason: str
    time: Micros


class Approval(msgspec.Struct, gc=False, omit_defaults=True):
    """What people are asked, who they are, what they have said so far."""

    message: str
    users: tuple[str, ...]
    roles: tuple[str, ...]
    needed: int
    requested_at: Micros
    norm: str = ""
    input: Payload | None = None
    escalate_users: tuple[str, ...] = ()
    escalate_roles: tuple[str, ...] = ()
    escalate_timeout: Micros | None = None
    escalated: bool = False
    votes: tuple[Vote, ...] = ()
    delegations: dict[str, str] = {}
    """Who handed on their say, and to whom."""
    verdict: str = ""
    """APPROVED, REJECTED or EXPIRED, once it is resolved."""

    @property
    def approved(self) -> int:
        """How many have approved."""
        return sum(vote.verdict == "APPROVED" for vote in self.votes)

    @property
    def outcome(self) -> str:
        """What the votes so far amount to: APPROVED, REJECTED or empty."""
        if any(vote.verdict == "REJECTED" for vote in self.votes):
            return "REJECTED"
        return "APPROVED" if self.approved >= self.needed else ""

    def has_decided(self, user: str) -> bool:
        """Whether somebody has approved or rejected already."""
        return any(vote.user == user for vote in self.votes)

    def may_decide(self, user: str, roles: tuple[str, ...]) -> bool:
        """Whether somebody is among those who may decide. Who handed on the say may not, those to whom it was handed may."""
        if not user or user in self.delegations:
            return False
        listed = user in self.users or user in self.delegations.values()
        return listed or any(role in self.roles for role in roles)


class BlockState(msgspec.Struct, gc=False, omit_defaults=True):
    """What a step has begun below it: the steps of its block, one iteration after the other, or a step that helps it."""

    open: int = 0
    """Steps of it that have not ended."""
    what: str = ""
    """Empty for the steps of its block; `loop`, `handler` or `compensation`."""
    failed_by: str = ""
    """The first step of it whose failure was not tolerated."""
    partial: bool = False
    degraded: bool = False
    iterations: int = 0
    """Of a loop: iterations begun."""
    delayed: bool = False
    """Of a loop: whether it waits before the next iteration."""


MOST_BEYOND: Final = 512
"""Numbers of tool calls that are remembered beyond one that has not come."""


class OpenCall(msgspec.Struct, frozen=True, gc=False):
    """A tool call that has begun and not ended."""

    id: str
    tool: str
    began_at: Micros


class ToolCalls(msgspec.Struct, gc=False, omit_defaults=True):
    """What an attempt has said of its tool calls."""

    open: dict[str, OpenCall] = {}
    """By id, in the order in which they began."""
    floor: int = 0
    """Calls with a number up to this one have all begun."""
    above: list[int] = []
    """Numbers beyond it that have begun: calls that are made at once may be told of in any order."""

    def has_begun(self, number: int) -> bool:
        """Whether the call with this number was told of."""
        return number <= self.floor or number in self.above

    def begin(self, call: OpenCall) -> None:
        """Notes a call that begins."""
        self.open[call.id] = call
        number = call.id.rpartition("#")[2]
        if not number.isdigit():
            return  # the attempt itself
        self.above.append(int(number))
        if len(self.above) > MOST_BEYOND:  # numbers that never came: whoever still comes with one is refused
            self.floor = max(self.floor, min(self.above) - 1)
        while self.floor + 1 in self.above:
            self.floor += 1
            self.above.remove(self.floor)


class Frame(msgspec.Struct, gc=False, omit_defaults=True):
    """Where a step stands in a document that is walked like a program: what is around it, and how far it is itself."""

    parent: str = ""
    """The step around it; empty for the document as a whole."""
    input: Payload | None = None
    """`$input`: what it was given, as it wanted it."""
    data: Payload | None = None
    """What its next inner step is given: its own input, then what the one before gave."""
    variables: dict[str, str] = {}
    """What it has bound for its inner steps: JSON texts by name."""
    walking: str = ""
    """Which of its lists is walked."""
    round: int = 0
    """The iteration, or the try, of its inner steps, from 0."""
    entered: int = 0
    """Inner steps begun in all."""
    open: int = 0
    """Inner steps that have not ended."""
    last: str = ""
    """The inner step that ended last."""
    items: Payload | None = None
    """What a loop goes through."""
    deadline: Micros | None = None
    """Until when those in it must have ended."""
    consumed: list[str] = []
    """Events that it has taken: JSON texts."""
    places: list[int] = []
    """For each of them which filter it was for; below 0: one that ends the listening."""
    keys: dict[str, str] = {}
    """Correlations that are bound: JSON texts by name."""
    directive: str = ""
    """Where it said to go on; empty: as its definition says."""


class Step(msgspec.Struct, gc=False, omit_defaults=True):
    """One node of a run, or one item of a map. Changed only by `evolve`."""

    id: str
    of: str
    """Id of its definition in the flow: its own, or its map's."""
    handler: str
    """Empty for a map itself, whose items call the handler, and for steps that call nothing."""
    state: str = STEP.initial
    reason: str = ""
    waiting: int = 0
    """Needed steps that have not ended."""
    blocked_by: str = ""
    """The first needed step that neither completed nor failed tolerably."""
    failing: bool = False
    """Whether a needed step failed, or was skipped because of one that failed."""
    arrived: int = 0
    """Of the steps that its join counts: those that have completed."""
    missed: int = 0
    """Of the steps that its join counts: those that ended otherwise."""
    unchosen_by: str = ""
    """Of a skipped step: the switch that chose another branch than the one on which it is."""
    passed: bool = False
    """Whether a needed step was skipped because a switch chose another branch."""
    index: int = -1
    """Place among the items of its map; -1 where it is no item."""
    attempt: int = 0
    """Attempts started, counted against the retry policy."""
    epoch: int = 0
    """Rises with each attempt; part of the attempt's id (rule R23)."""
    attempt_id: str = ""
    executor_id: str = ""
    unbooked: tuple[int, ...] = ()
    """Epochs that were given up without a result: a late one is booked, once."""
    asked: bool = False
    """Lost, and waiting for an operator."""
    input: Payload | None = None
    output: Payload | None = None
    outcome: str = ""
    failure: Failure | None = None
    """The last failure; kept when a later attempt completes."""
    tolerated: bool = False
    usage: Usage = NO_USAGE
    scheduled_at: Micros | None = None
    started_at: Micros | None = None
    ended_at: Micros | None = None
    next_attempt_at: Micros | None = None
    cache_key: str = ""
    """SHA-256 of the key under which no result was found: its own is going to be stored."""
    cached: CacheHit | None = None
    """Where its result comes from, where it was not made by an attempt."""
    variables: tuple[Variable, ...] = ()
    """Those that have other values as of this step."""
    set_number: int = 0
    """The order among the steps that have set variables, from 1."""
    late_needs: tuple[str, ...] = ()
    """Needs that ended when its join was decided."""
    warnings: tuple[str, ...] = ()
    """What rules for its output said that only warn."""
    start_by: Micros | None = None
    """When it fails unless an attempt has begun by then."""
    end_by: Micros | None = None
    """When it fails unless it has ended by then."""
    branches: Branches | None = None
    stopping: str = ""
    """Why its attempts are being stopped, apart from its run; empty where they are not."""
    stop_to: str = ""
    """The state in which it ends once they are."""
    wakes_at: Micros | None = None
    """Of a step that waits: until when at the latest."""
    approval: Approval | None = None
    """What people were asked, where they were."""
    child: str = ""
    """The run that the present attempt is, where the step runs another flow."""
    child_paused: bool = False
    """Whether that run has heard that it is to pause."""
    grant: Allocation | None = None
    """What that run may spend."""
    granted: tuple[str, ...] = ()
    """Norms whose approval it has."""
    parent: str = ""
    """Within a block: the step that began it. Empty for the items of maps of the flow's own, whose map is `of`."""
    role: str = ""
    """`handler` or `compensation`, where it helps its parent instead of being part of a block."""
    block: BlockState | None = None
    deadline: Micros | None = None
    """Until when its block must have ended."""
    calls: int = 0
    """Times that its handler step was called."""
    spent: int = 0
    """Attempts before it last began anew; its retry policy counts from there."""
    frame: Frame | None = None
    """Of a task of a document."""
    held: bool = False
    """READY, and waits at a breakpoint."""
    released: bool = False
    """May pass its breakpoint."""
    reused_from: str = ""
    """The run from which its result was taken over."""
    signal_id: str = ""
    """The signal that it has taken."""
    tools: ToolCalls | None = None
    """What its present attempt, or the last one, has said of its tool calls; None where it made none."""

    @property
    def is_map(self) -> bool:
        """Whether it stands for a map as a whole whose items are known."""
        return self.branches is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it has begun to wait for something other than an executor."""
        if self.state != "RUNNING":
            return self.state == "AWAITING_APPROVAL"
        if self.handler or self.branches is not None:
            return False
        return self.block is None or self.block.delayed

    @property
    def is_item(self) -> bool:
        """Whether it is an item of a map."""
        return self.index >= 0

    @property
    def ended(self) -> bool:
        """Whether it is over. What compensates it may come after."""
        return self.state in STEP.over

    @property
    def in_flight(self) -> bool:
        """Whether an attempt of it is scheduled or running."""
        return (self.state == "RUNNING" or self.state == "SCHEDULED") and bool(self.handler) and self.block is None

    @property
    def holds(self) -> bool:
        """Whether it ends when those below it have."""
        return self.branches is not None or (self.block is not None and self.block.open > 0)

    @property
    def above(self) -> str:
        """Id of the step that it belongs to: of an item its map, of a step of a block whoever began it. Empty where there is none."""
        return self.parent or (self.of if self.index >= 0 else "")

    @property
    def block_prefix(self) -> str:
        """What the ids of the steps of its block begin with: each time that it is run, another."""
        return f"{self.id}/" if self.attempt <= 1 else f"{self.id}#{self.attempt}/"

    @property
    def aide_prefix(self) -> str:
        """What the id of the step that it calls for begins with."""
        return f"{self.id}!/" if self.calls <= 1 else f"{self.id}!{self.calls}/"


def item_id(map_id: str, index: int) -> str:
    """Id of an item of a map."""
    return f"{map_id}[{index}]"
