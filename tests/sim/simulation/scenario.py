"""What happens in a world, drawn from its seed before it begins: who is there, what is asked, what goes wrong and when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from simulation.flows import FLOWS
from simulation.paid_flows import PAID
from simulation.plans import PLANS
from simulation.steered_flows import STEERED, TEXTS, steps_of

FAULTS_UNTIL = 9.0
"""Seconds after which nothing new goes wrong."""


@dataclass(frozen=True)
class Order:
    """A command to a swarm: so many seconds after it was accepted, through any replica."""

    after: float
    command: str
    number: int
    step: str = ""


@dataclass(frozen=True)
class Swarm:
    """One swarm that a client asks for."""

    number: int
    flow: int
    at: float
    twice: bool
    """Asked for twice at once, through different replicas."""
    streamed: bool
    """Over ExecuteSwarms."""
    orders: tuple[Order, ...]
    timeout: float | None
    steered: bool = False
    """Somebody steers it all the time, and people are asked by it."""
    retries: int = 0
    """How often it is retried where it fails."""
    plan: int = -1
    """Of `plans.PLANS`; -1: it has one flow."""
    credits: int | None = None
    """What it may spend; attempts of `sim.work` take 7."""


@dataclass(frozen=True)
class Fault:
    """Something goes wrong at a moment, for a while."""

    at: float
    kind: str
    who: str = ""
    whom: str = ""
    seconds: float = 0.0
    amount: float = 0.0
    fuse: int = 0
    """Callbacks of the process after the moment: the exact place between two awaits."""
    silent: bool = False

    def __str__(self) -> str:
        parts = [f"{self.at:.3f} {self.kind}", self.who, self.whom]
        if self.seconds:
            parts.append(f"for {self.seconds:.3f} s")
        if self.amount:
            parts.append(f"x {self.amount:.3g}")
        if self.fuse:
            parts.append(f"+{self.fuse} callbacks")
        if self.silent:
            parts.append("silent")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Scenario:
    """Everything that is drawn beforehand. What is left to chance later comes from the world's own generator, seeded alike."""

    seed: int
    coordinators: int
    orchestrators: int
    executors: int
    slots: int
    nats: bool
    park: float
    swarms: tuple[Swarm, ...]
    faults: tuple[Fault, ...]
    temper: dict[str, float] = field(default_factory=dict)
    chance: int = 0
    """Another number is another course of the same scenario."""

    @property
    def gentle(self) -> bool:
        """Nothing happens to executors or to the network between them and Tier 2."""
        return not any(
            fault.kind in _ROUGH or fault.who.startswith("e") or fault.whom.startswith("e") for fault in self.faults
        )

    def without(self, names: frozenset[str]) -> Scenario:
        """The same with less: `f2` leaves out the third fault, `s0` the first swarm."""
        faults = tuple(each for place, each in enumerate(self.faults) if f"f{place}" not in names)
        swarms = tuple(each for each in self.swarms if f"s{each.number}" not in names)
        return replace(self, faults=faults, swarms=swarms)

    @property
    def parts(self) -> list[str]:
        """What can be left out, as `without` names it."""
        return [f"f{place}" for place in range(len(self.faults))] + [f"s{each.number}" for each in self.swarms]


_ROUGH = ("break", "slow-network")


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    if seed >= OVERTAKING:
        return _overtaking(seed)
    chance = random.Random(f"scenario {seed}")
    coordinators = chance.choice((1, 1, 1, 2, 2, 3))
    orchestrators = chance.choice((1, 1, 2, 2, 3))
    executors = chance.choice((1, 2, 2, 3))
    names = [f"c{n}" for n in range(coordinators)] + [f"o{n}" for n in range(orchestrators)]
    rough = chance.random() < 0.6
    everyone = names + [f"e{n}" for n in range(executors)] if rough else names
    nats = chance.random() < 0.6
    count = chance.choice((1, 2, 2, 3, 4))
    swarms = tuple(_swarm(chance, number) for number in range(count))
    faults = [
        _fault(chance, everyone, _moment(chance, swarms), nats=nats, rough=rough)
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4)))
    ]
    swarms, more = _hasty(seed, swarms, orchestrators)
    swarms = _nested(seed, swarms)
    swarms = _planned(seed, swarms)
    swarms = _steered(seed, swarms)
    swarms = _paid(seed, swarms)
    return Scenario(
        seed=seed,
        coordinators=coordinators,
        orchestrators=orchestrators,
        executors=executors,
        slots=chance.choice((1, 2, 3, 8)),
        nats=nats,
        park=chance.choice((0.5, 2.0, 60.0)),
        swarms=swarms,
        faults=tuple(sorted(faults + more, key=lambda fault: fault.at)),
        temper={
            "fails": chance.choice((0.0, 0.05, 0.3)), "fatal": chance.choice((0.0, 0.0, 0.05)), "hangs": chance.choice((0.0, 0.0, 0.03)),
            "stubborn": chance.choice((0.0, 0.2)), "large": chance.choice((0.0, 0.0, 0.1)), "long": chance.choice((0.5, 2.0, 5.0)),
        },
    )  # fmt: skip


def _swarm(chance: random.Random, number: int) -> Swarm:
    orders: list[Order] = []
    if chance.random() < 0.4:
        for place in range(chance.choice((1, 1, 2, 3))):
            command = chance.choice(("pause", "resume", "cancel", "stop", "terminate", "pause"))
            orders.append(Order(chance.random() * 4.0, command, place))
    return Swarm(
        number=number,
        flow=chance.randrange(len(FLOWS) - 1),
        at=0.4 + chance.random() ** 2 * 6.0,
        twice=chance.random() < 0.25,
        streamed=chance.random() < 0.4,
        orders=tuple(sorted(orders, key=lambda order: order.after)),
        timeout=chance.choice((None, None, None, None, 2.0)),
    )


def _nested(seed: int, swarms: tuple[Swarm, ...]) -> tuple[Swarm, ...]:
    """Now and then one more swarm, of the flow with steps within steps, handlers of errors and compensation (K4, E13)."""
    chance = random.Random(f"nested {seed}")
    return (*swarms, replace(_swarm(chance, len(swarms)), flow=len(FLOWS) - 1)) if chance.random() < 0.15 else swarms


def _planned(seed: int, swarms: tuple[Swarm, ...]) -> tuple[Swarm, ...]:
    """Now and then one more swarm, with a plan of several runs of which some depend on others' results (B17)."""
    chance = random.Random(f"plans {seed}")
    if chance.random() >= 0.2:
        return swarms
    one = replace(_swarm(chance, len(swarms)), plan=chance.randrange(len(PLANS)), timeout=None)
    return (*swarms, replace(one, retries=chance.choice((0, 0, 1))))


def _hasty(seed: int, swarms: tuple[Swarm, ...], orchestrators: int) -> tuple[tuple[Swarm, ...], list[Fault]]:
    """Now and then one more swarm, of a flow that is known, comes while no orchestrator is there, and is stopped: request and cancel wait together (rule R29)."""
    chance = random.Random(f"hasty {seed}")
    if chance.random() < 0.8:
        return swarms, []
    at = swarms[0].at + 1.0 + chance.random()
    order = Order(0.1 + chance.random() * 0.3, chance.choice(("cancel", "terminate", "stop")), 0)
    one = replace(swarms[0], number=len(swarms), at=at, twice=False, orders=(order,), timeout=None)
    crash = Fault(at=at - chance.random() * 0.2, kind="crash", seconds=0.5 + chance.random())
    return (*swarms, one), [replace(crash, who=f"o{number}") for number in range(orchestrators)]


_COMBINED = (
    ("pause", "resume"),
    ("interrupt", "resume"),
    ("interrupt", "migrate", "resume"),
    ("pause", "step", "step", "migrate", "resume"),
    ("break", "step", "step", "unbreak", "resume"),
    ("pause", "skip", "resume"),
    ("skip",),
    ("update",),
    ("pause", "update", "resume"),
    ("rerun",),
    ("fork",),
    ("replay",),
    ("cancel",),
    ("terminate",),
)
"""What somebody does one after the other."""


def _steered(seed: int, swarms: tuple[Swarm, ...]) -> tuple[Swarm, ...]:
    """Now and then one or two more swarms that somebody steers all the time: every command, at any moment, in the middle of whatever goes wrong."""
    chance = random.Random(f"steered {seed}")
    made = []
    for number in range(len(swarms), len(swarms) + chance.choice((0, 0, 1, 1, 1, 2))):
        flow = len(TEXTS) - 1 - chance.randrange(len(STEERED))
        orders: list[Order] = []
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            moment = chance.random() ** 2 * 5.0
            for command in chance.choice(_COMBINED):
                step = chance.choice(steps_of(TEXTS[flow])) if command != "break" or chance.random() < 0.5 else "*"
                orders.append(Order(moment, command, len(orders), step))
                moment += chance.random() * chance.choice((0.1, 1.0))
        orders.sort(key=lambda order: order.after)
        one = _swarm(chance, number)
        at = chance.choice(swarms).at if swarms else one.at
        made.append(
            replace(
                one,
                flow=flow,
                at=at,
                orders=tuple(orders),
                timeout=None,
                steered=True,
                retries=chance.choice((0, 1, 2)),
            )
        )
    return (*swarms, *made)


def _paid(seed: int, swarms: tuple[Swarm, ...]) -> tuple[Swarm, ...]:
    """Now and then one more swarm with a budget of which its branches hold parts, too little for all of them now and then; some others get one too."""
    chance = random.Random(f"paid {seed}")
    limits = (None, None, None, None, 0, 21, 35, 200)
    swarms = tuple(replace(one, credits=chance.choice(limits)) for one in swarms)
    if chance.random() < 0.6:
        return swarms
    number = len(swarms)
    flow = len(TEXTS) - len(STEERED) - len(PAID) + chance.randrange(len(PAID))
    one = replace(_swarm(chance, number), flow=flow, timeout=None, steered=True, retries=chance.choice((0, 1)))
    orders = [*one.orders]
    if chance.random() < 0.4:
        orders.append(Order(chance.random() * 4.0, "fund", 40, chance.choice(("10", "70", "300"))))
    orders.sort(key=lambda order: order.after)
    return (*swarms, replace(one, credits=chance.choice((20, 25, 40, 60, 500)), orders=tuple(orders)))


_OF_PROCESSES = (
    "crash",
    "crash",
    "crash",
    "freeze",
    "freeze",
    "blink",
    "stop",
    "cut-database",
    "cut",
    "break",
    "replace",
    "skew",
)
_OF_ALL = (
    "database-restart",
    "database-away",
    "database-slow",
    "database-stall",
    "database-hang",
    "database-faults",
    "database-faults",
    "slow-network",
)
_OF_NATS = ("nats-away", "nats-loss", "nats-lost")


def _moment(chance: random.Random, swarms: tuple[Swarm, ...]) -> float:
    """Mostly while something is going on."""
    if chance.random() < 0.7:
        return chance.choice(swarms).at + chance.random() * chance.choice((0.1, 1.0, 2.0))
    return 0.2 + chance.random() * (FAULTS_UNTIL - 0.5)


def _fault(chance: random.Random, everyone: list[str], at: float, *, nats: bool, rough: bool) -> Fault:
    kinds = [*_OF_PROCESSES, *_OF_PROCESSES, *_OF_ALL, *(_OF_NATS if nats else ())]
    kind = chance.choice(kinds)
    if not rough and kind in ("break", "slow-network"):
        kind = "crash"
    if rough and chance.random() < 0.06:
        kind = "repeat"
    who = chance.choice([name for name in everyone if kind != "repeat" or name.startswith("e")])
    whom = chance.choice([name for name in everyone if name != who] or [who])
    seconds = {"freeze": 0.3 + chance.random() * 8.0, "blink": chance.random() * 0.5}.get(
        kind, 0.1 + chance.random() ** 2 * 6.0
    )
    return Fault(
        at=at,
        kind=kind,
        who=who if kind in _OF_PROCESSES or kind == "repeat" else "",
        whom=whom if kind == "cut" else "",
        seconds=0.0 if kind in ("stop", "break") else seconds,
        amount={"database-slow": 2.0 + chance.random() * 60, "slow-network": 5 + chance.random() * 100, "database-faults": chance.choice((0.02, 0.1, 0.3)),
                "nats-loss": 0.2, "skew": chance.choice((-3600.0, -2.0, 0.5, 30.0))}.get(kind, 0.0),
        fuse=chance.choice((0, 0, 1, 3, 10, 40, 100)) if kind in ("crash", "freeze", "blink") else 0,
        silent=chance.random() < 0.25,
    )  # fmt: skip


OVERTAKING = 1_000_000
"""The first of the seeds whose scenario is about commands that are overtaken on their way; no others are like it."""


def _overtaking(seed: int) -> Scenario:
    """Pauses and resumes in quick succession, over a slow network whose connections break: some go straight to the run's owner, others by a peer that passes them on."""
    chance = random.Random(f"overtaking {seed}")
    begin, owners = 0.5, ("o0", "o1")
    moments = [0.3 + 0.8 * place + 0.3 * chance.random() for place in range(7)]
    swarms = []
    for number in range(3):
        orders: list[Order] = []
        for moment in moments:
            after = moment + 0.2 * chance.random()
            orders += [
                Order(after, "pause", len(orders)),
                Order(after + 0.02 + 0.1 * chance.random(), "resume", len(orders) + 1),
            ]
        swarms.append(
            Swarm(number=number, flow=len(TEXTS) - 1, at=begin, twice=False, streamed=False, orders=tuple(orders), timeout=None, steered=True)
        )  # fmt: skip
    faults = [Fault(at=begin + moment, kind="break", who=chance.choice(owners)) for moment in moments]
    faults.append(Fault(at=begin, kind="slow-network", seconds=FAULTS_UNTIL - begin, amount=50 + 100 * chance.random()))
    return Scenario(
        seed=seed,
        coordinators=1,
        orchestrators=2,
        executors=1,
        slots=3,
        nats=False,
        park=60.0,
        swarms=tuple(swarms),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        temper={"fails": 0.0, "fatal": 0.0, "hangs": 0.0, "stubborn": 0.0, "large": 0.0, "long": 5.0},
    )
