"""Plans for tests of the core: made as admission makes them, and walked without services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tierflow_coordinator.core import commands, events
from tierflow_coordinator.core.decide import decide
from tierflow_coordinator.core.plan import Case, FlowChoice, PlannedRun
from tierflow_coordinator.core.plan_checks import Checked
from tierflow_coordinator.core.swarm import Swarm
from tierflow_runtime.values import Allocation, Context, Failure, Options, Usage

FIRST = "019aa000-0000-7000-8000-000000000001"
LOST = Failure(code="HANDLER_NOT_FOUND", message="No executor offers it.", tier=2)
BOOM = Failure(code="STEP_FAILED", message="boom", tier=2)


def planned(planned_id: str, *, flow: str = "", **keys: Any) -> PlannedRun:
    """A run of a flow of the same name."""
    return PlannedRun(id=planned_id, flows=(FlowChoice(name=flow or planned_id, hash="ab" * 32),), **keys)


def choice(planned_id: str, *cases: tuple[str, tuple[str, ...]], **keys: Any) -> PlannedRun:
    """A choice."""
    made = tuple(Case(condition=condition, then=then) for condition, then in cases)
    return PlannedRun(id=planned_id, cases=made, **keys)


def create(*runs: PlannedRun, output: str = "", given: str = "{}", **keys: Any) -> commands.CreateSwarm:
    """The command for a swarm with such a plan, which must be right."""
    checked = Checked(runs, output)
    assert not checked.problems, checked.problems
    return commands.CreateSwarm(
        context=Context(tenant="acme", user_id="ann", swarm_id="s"),
        run_id=FIRST,
        flow_hash="",
        flow_name="",
        flow_version="",
        input=given,
        allocation=keys.pop("allocation", Allocation()),
        options=Options(),
        plan=checked.runs,
        plan_output=output,
        **keys,
    )


class Walk:
    """A swarm whose runs end as it is said here; keeps the journal."""

    def __init__(self, command: commands.CreateSwarm) -> None:
        self.swarm = Swarm(swarm_id="s")
        self.journal: list[tuple[events.SwarmEvent, int]] = []
        self.now = 1_000_000
        self.tell(command)

    def tell(self, command: commands.SwarmCommand) -> commands.Reply:
        """A command."""
        self.now += 1_000
        decision = decide(self.swarm, command, self.now)
        self.journal += [(event, self.now) for event in decision.events]
        return decision.reply

    @property
    def running(self) -> str:
        """The planned run that runs; empty where none does."""
        assert self.swarm.plan is not None
        return next((each for each, standing in self.swarm.plan.standings.items() if standing.state == "RUNNING"), "")

    @property
    def states(self) -> dict[str, str]:
        """Of all planned runs."""
        assert self.swarm.plan is not None
        return {each: standing.state for each, standing in self.swarm.plan.standings.items()}

    def reason(self, planned_id: str) -> str:
        """Why a planned run is what it is."""
        assert self.swarm.plan is not None
        return self.swarm.plan.standings[planned_id].reason

    def steer(self, command: str, command_id: str = "") -> commands.Reply:
        """A person's command."""
        return self.tell(commands.SteerSwarm(command=command, command_id=command_id or f"{command}{self.now}"))

    def end(self, state: str = "COMPLETED", output: str = '{"x": 1}', **keys: Any) -> None:
        """The run that runs ends."""
        run = self.swarm.run
        assert run is not None
        outcome = {"COMPLETED": "SUCCESS", "FAILED": "FAILURE", "CANCELLED": "CANCELLED"}[state]
        self.tell(
            commands.FinishRun(
                run_id=run.run_id,
                generation=run.generation,
                state=state,
                outcome=keys.pop("outcome", outcome),
                output=output if state == "COMPLETED" else None,
                failure=BOOM if state == "FAILED" else None,
                usage=keys.pop("usage", Usage(steps=1)),
            )
        )

    def through(self, ends: Callable[[str], tuple[str, str]]) -> list[str]:
        """Ends every run as told, until nothing runs; returns those that ran."""
        ran: list[str] = []
        while self.running:
            ran.append(self.running)
            state, output = ends(self.running)
            self.end(state, output)
        return ran


def walked(*runs: PlannedRun, ends: dict[str, str] | None = None, **keys: Any) -> Walk:
    """A plan whose runs end as told: COMPLETED where nothing is said; other texts are outputs."""
    walk = Walk(create(*runs, **keys))
    told = ends or {}

    def end(name: str) -> tuple[str, str]:
        how = told.get(name, "COMPLETED")
        return ("FAILED", "") if how == "FAILED" else ("COMPLETED", "{}" if how == "COMPLETED" else how)

    walk.through(end)
    return walk
