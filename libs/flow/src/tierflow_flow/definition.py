"""A flow as data: what parsing and checking yield, and what Tier 2 walks.

A definition is immutable and compiled once per flow version; runs share it. Times are integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tierflow_expressions.scope import Scope
from tierflow_runtime.values import RetryPolicy

if TYPE_CHECKING:
    from tierflow_flow.serverless.program import Program


class Template(Protocol):
    """A JSON value with `${{ }}` holes, compiled."""

    @property
    def constant(self) -> bool:
        """Whether there are no holes."""
        ...

    @property
    def steps(self) -> frozenset[str]:
        """Ids of the steps it reads."""
        ...

    @property
    def whole_steps(self) -> frozenset[str]:
        """Of these: the ones of which it only hands on `steps.<id>.output` whole, never looks inside."""
        ...

    def resolve(self, scope: Scope) -> Any:
        """The value with its holes filled. Raises `ExpressionError`."""
        ...

    def resolve_json(self, scope: Scope) -> str:
        """The same as JSON text; computed once where it is constant."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that a step's output must keep."""

    condition: Template
    """Sees the output as `output`."""
    message: str
    on_fail: str = "retry"
    """`retry`: the attempt fails, another may follow. `fail`: none follows. `warn`: it is noted."""


@dataclass(frozen=True, slots=True)
class Cache:
    """When a stored result may stand for an attempt."""

    key: Template
    ttl: int
    """Microseconds."""
    scope: str
    """`tenant`, `flow` or `run`."""
    version: str


@dataclass(frozen=True, slots=True)
class Join:
    """How many of certain needed steps must complete for a step to start."""

    at_least: int
    of: tuple[str, ...]
    """Of the steps that it needs: those that count. All others must end well, as without a join."""


@dataclass(frozen=True, slots=True)
class Block:
    """Steps within a step: a graph of its own. Their ids are paths, `group/child`; they need each other only."""

    steps: tuple[StepSpec, ...]
    """Those that are begun with it; steps that handle errors are not among them."""
    leaves: tuple[str, ...]
    """Ids of the steps that nothing needs."""
    output: Template | None = None
    """None: an object of the leaves' outputs by their own ids."""
    until: Template | None = None
    """Of a loop: whether it is over after this iteration."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """What `on_error: {goto: …}` says."""

    step: str
    """Id of the step that handles the error."""
    then: Template
    """`continue`, `retry` or `stop`, once that step has completed."""
    calls: int
    """Most calls for one step; after them its failure stands."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One node of a flow."""

    id: str
    """Within a block a path: `group/child`."""
    kind: str
    """The name of an entry of `tierflow_flow.kinds.KINDS`."""
    handler: str
    """Empty where nothing is called."""
    needs: tuple[str, ...]
    """Ids of the steps it waits for: those listed under `needs` and those that its expressions read."""
    with_: Template
    """Input of the handler; for a map, of the handler for each item (with `item` and `index` in scope)."""
    condition: Template | None = None
    """`if`; None means: run when everything it needs completed."""
    always: bool = False
    """The condition asks for always() or failure(): it is looked at even where a needed step failed or was skipped."""
    items: Template | None = None
    """For a map: an array."""
    concurrency: int | None = None
    """For a map: most items at once."""
    tolerate: int = 0
    """For a map: failed items that do not make the map fail."""
    retry: RetryPolicy | None = None
    """None: the flow's."""
    timeout: int | None = None
    """Of an attempt, microseconds. None: the flow's or 30 s."""
    heartbeat_timeout: int | None = None
    start_timeout: int | None = None
    """Longest wait for a slot, microseconds, of each attempt; None: any."""
    total_timeout: int | None = None
    """Longest time from READY to the end, microseconds, of a map for each item; None: any."""
    on_error: str = "stop"
    """`stop`: the run's failure policy decides. `continue`: the failure is tolerated, dependants run. `retry`: whatever it was, as often as `retry` allows.

    `goto`: see `rescue`."""
    on_lost: str = ""
    """RETRY, FAIL or ASK; empty: RETRY, or ASK where side_effecting."""
    side_effecting: bool = False
    output_schema: Mapping[str, Any] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the executor must have."""
    priority: int = 0
    """The highest gets slots first."""
    cost_estimate: int | None = None
    """Of an attempt, micro-credits."""
    allocation: Mapping[str, int] = field(default_factory=dict)
    """Most that an attempt may spend: `credits`, `tokens`, `tool_calls`, each where the flow says it."""
    name: str = ""
    line: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of kinds that call nothing: the values of the kind's own keys."""
    templates: Mapping[str, Template] = field(default_factory=dict)
    """Of kinds that call nothing: their compiled templates, by the kind's names for them."""
    chosen_by: str = ""
    """The switch that decides whether it runs; empty where none does."""
    secrets: tuple[str, ...] = ()
    """Secrets of which its input holds handles, each as often as it does."""
    cache: Cache | None = None
    """None: every result is made anew."""
    sets: Template | None = None
    """An object of the variables that it sets once it has completed; sees its output as `output`."""
    rules: tuple[Rule, ...] = ()
    """For the output of an attempt."""
    join: Join | None = None
    """None: everything that it needs must end well."""
    block: Block | None = None
    """The steps within it."""
    grows: tuple[str, ...] | None = None
    """What it returns may be further steps; the handlers that they may call, none for those of the flow. None: it may not."""
    rescue: Rescue | None = None
    """Who handles its failure."""
    undo: StepSpec | None = None
    """The call that compensates it; its id is `<id>!compensate`."""

    @property
    def local(self) -> str:
        """Its id within its block."""
        return self.id.rpartition("/")[2]

    @property
    def limited(self) -> bool:
        """Whether there are limits in time that span attempts."""
        return self.start_timeout is not None or self.total_timeout is not None

    @property
    def dispatched(self) -> bool:
        """Whether it is carried out by attempts: at an executor, or as a run of another flow."""
        return self.kind in ("call", "flow")

    @property
    def decided_by(self) -> tuple[Template, ...]:
        """Templates that are evaluated while deciding: stored values that they read must be at hand."""
        own = tuple(rule.condition for rule in self.rules) if self.handler else (self.with_, *self.templates.values())
        return tuple(
            t
            for t in (self.condition, self.items, self.sets, self.cache.key if self.cache is not None else None, *own)
            if t is not None
        )


@dataclass(frozen=True, slots=True)
class Norm:
    """A rule on what handlers may be called. A prohibition outweighs every permission; an obligation says what must come first."""

    name: str
    effect: str
    """`permit`, `prohibit` or `oblige`."""
    handlers: tuple[str, ...]
    """Names, in which `*` stands for anything."""
    condition: Template | None = None
    """When it applies; None: always."""
    approval: Template | None = None
    """Of an obligation: whom to ask."""
    after: tuple[str, ...] = ()
    """Of an obligation: handlers of which a step must have completed."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A checked, compiled flow."""

    name: str
    version: str
    hash: str
    description: str
    steps: tuple[StepSpec, ...]
    """Those that are begun with the run: not those within blocks, not those that handle errors."""
    by_id: Mapping[str, StepSpec]
    """All there are, compensating calls included."""
    dependants: Mapping[str, tuple[str, ...]]
    """For each step, those within blocks included, the steps that need it."""
    roots: tuple[str, ...]
    """Steps that need nothing."""
    leaves: tuple[str, ...]
    """Steps that nothing needs."""
    handlers: tuple[str, ...]
    """Names of all handlers it calls, sorted; flows that it runs are not among them."""
    content_steps: frozenset[str]
    """Steps whose outputs some expression looks into: of these, large outputs must be loaded before deciding."""
    input_schema: Mapping[str, Any] | None
    output: Template | None
    """None: an object of the leaves' outputs by step id."""
    output_schema: Mapping[str, Any] | None
    retry: RetryPolicy
    timeout: int | None
    """Default timeout of an attempt, microseconds; None: the handler's own."""
    run_timeout: int | None
    """Of the whole run, microseconds."""
    failure_policy: str
    """FAIL_FAST, CONTINUE or PAUSE."""
    concurrency: int | None
    """Most steps at once in a run."""
    vars: Mapping[str, Any]
    env: tuple[str, ...]
    """Environment variables that expressions may read."""
    canonical: str
    """The canonical definition, JSON text; its SHA-256 is `hash`."""
    cached: frozenset[str] = frozenset()
    """Steps for whose attempts a stored result may stand."""
    prioritised: bool = False
    """Whether some step has a priority."""
    setters: frozenset[str] = frozenset()
    """Steps that set variables."""
    merge: Mapping[str, str] = field(default_factory=dict)
    """By variable: `first`, `last` or `append`; those that are not here: `error`."""
    joins: Mapping[str, Join] = field(default_factory=dict)
    """By step: those that have a join."""
    lanes: Mapping[str, int] = field(default_factory=dict)
    """By step that is on the branch of some switch, or after one: a bit for each of these switches. Empty where the flow has none."""
    lane_of: Mapping[str, int] = field(default_factory=dict)
    """By switch: its bit in `lanes`."""
    compensate_on: frozenset[str] = frozenset()
    """`failure`, `cancel`: when completed steps are compensated. Empty where no step says how."""
    dead_letter: bool = False
    """Whether a run that ends FAILED is kept as a dead letter."""
    navigator: str = "graph"
    """`graph`, `sequence` or `serverless`: who says which steps come next. Of the first two, the steps' needs already say what follows from it."""
    program: Program | None = None
    """The compiled document that `serverless` walks."""
    subflows: bool = False
    """Whether some step runs another flow."""
    norms: tuple[Norm, ...] = ()
    """The flow's own norms: what they prohibit or oblige, no other norm allows."""

    @property
    def called(self) -> tuple[str, ...]:
        """Names of all that it calls, sorted: handlers, and flows as `flow:name`."""
        flows = (step.handler for step in self.by_id.values() if step.kind == "flow")
        return tuple(sorted({*self.handlers, *flows}))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a flow: where, what, and the line in the source (0 where there is none)."""

    path: str
    description: str
    line: int = 0


class FlowError(Exception):
    """A flow is not valid; `problems` lists everything that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.path}: {p.description}" for p in problems))
        self.problems = problems
