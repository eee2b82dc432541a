"""The state machines, drawn from the tables in the cores."""

from collections.abc import Iterable, Mapping

from tierflow_coordinator.core import states as swarm
from tierflow_coordinator.core.schedules import states as schedule
from tierflow_executor.core import states as attempt
from tierflow_orchestrator.core.states import ANSWERED, COMMANDS, RUN, STEP, Machine

Move = tuple[str, str, str]
"""From, to, why; an empty name is the state before the first."""

_AGAIN = " (generation n + 1)"


def page() -> str:
    """The page."""
    parts = [
        "# States\n\nWhat may follow what, in every tier. The tables in the code are the only place that decides; any other move is refused,",
        "\nnaming both states. Reported states are stored states.\n",
        _section("Swarm (Tier 1)", _swarm(), reserved=()),
        _section("Schedule (Tier 1)", _plain(schedule.TRANSITIONS), reserved=()),
        _section("Firing of a schedule (Tier 1)", _plain(schedule.FIRING_TRANSITIONS), reserved=()),
        _section("Run (Tier 2)", _machine(RUN), RUN.reserved),
        _commands(),
        _section("Step (Tier 2)", _machine(STEP), STEP.reserved),
        _section("Attempt, in its executor (Tier 3)", _attempt(), reserved=()),
    ]
    return "".join(parts)


def _section(title: str, moves: list[Move], reserved: Iterable[str]) -> str:
    ends = {to for _, to, _ in moves} - {from_ for from_, _, why in moves if not why.endswith(_AGAIN)}
    lines = [f"\n## {title}\n\n```mermaid\nstateDiagram-v2"]
    lines += [f"    {from_ or '[*]'} --> {to}" for from_, to, _ in moves]
    lines += [f"    {state} --> [*]" for state in sorted(ends)]
    lines += ["```\n", "| from | to | when |", "|---|---|---|"]
    lines += [f"| {from_ or '(nothing)'} | {to} | {why} |" for from_, to, why in moves]
    names = ", ".join(reserved)
    return "\n".join(lines) + "\n" + (f"\nNamed by the contracts, not in use yet: {names}.\n" if names else "")


def _swarm() -> list[Move]:
    order = ["", *swarm.STATES]
    commands = {
        (from_, to): command for command, moves in swarm.COMMANDS.items() for from_, to in moves.items() if from_ != to
    }
    return [
        (from_, to, commands.get((from_, to), ""))
        for from_ in order
        for to in sorted(swarm.TRANSITIONS[from_], key=order.index)
    ]


def _plain(table: Mapping[str, frozenset[str]]) -> list[Move]:
    order = list(table)
    return [(from_, to, "") for from_ in order for to in sorted(table[from_], key=order.index) if to != from_]


def _machine(machine: Machine) -> list[Move]:
    again = {from_: {to: f"{why}{_AGAIN}" for to, why in moves.items()} for from_, moves in machine.reopens.items()}
    moves = [*machine.table.items(), *again.items()]
    return [("", machine.initial, "")] + [(from_, to, why) for from_, found in moves for to, why in found.items()]


def _commands() -> str:
    """What may be told to a run, by state."""
    lines = [
        "\n### What may be told to a run, and when\n",
        "`-` is answered with the state and changes nothing; `refused` is FAILED_PRECONDITION (STATE_CONFLICT). `interrupt` is a pause that stops attempts;",
        "`skip` also needs a step that has not ended, `step` one that is ready, `migrate` a version in which everything that has happened is possible.\n",
        f"| told | {' | '.join(RUN.states)} |",
        f"|---|{'---|' * len(RUN.states)}",
    ]
    for name, states in COMMANDS.items():
        other = "-" if name in ANSWERED else "refused"
        lines.append(f"| `{name}` | " + " | ".join("applies" if s in states else other for s in RUN.states) + " |")
    return "\n".join(lines) + "\n"


def _attempt() -> list[Move]:
    moves = [
        (from_.name, to.name, move.name.lower().replace("_", " ")) for (from_, move), to in attempt.TRANSITIONS.items()
    ]
    return [("", attempt.State.QUEUED.name, "accepted"), *moves]
