"""Long random lives of larger runs, by seed: what hypothesis reaches seldom is met here often. A failing seed is its own recipe."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tierflow_flow.definition import Flow, StepSpec
from tierflow_orchestrator.core import decide, dump, load, open_effects, react
from tierflow_orchestrator.core.commands import (
    Abort,
    AssignSlot,
    Cancel,
    DispatchAttempt,
    Pause,
    ReportLost,
    ReportResult,
    ReportStarted,
    ReportTool,
    ReportUnconfirmed,
    Resume,
    RunCommand,
    StopAttempt,
    WakeUp,
)
from tierflow_orchestrator.core.run import Run
from tierflow_runtime.values import Allocation, Failure, Options, RetryPolicy, Usage
from tierflow_testing.history import check_history, shape_of

from .fakes import RUN_ID, SECOND, START, Computed, Ref, Value, call, create, flow, fold, map_
from .invariants import check_invariants


def random_flow(chance: random.Random) -> Flow:
    made: list[StepSpec] = []
    for number in range(chance.randint(1, 8)):
        made.append(_random_step(chance, f"s{number}", [spec.id for spec in made]))
    return flow(
        *made,
        failure_policy=chance.choice(("FAIL_FAST", "CONTINUE", "CONTINUE", "PAUSE")),
        concurrency=chance.choice((None, None, 2, 5)),
        retry=RetryPolicy(max_attempts=chance.choice((1, 2, 4)), initial_delay=SECOND, factor=3.0),
        run_timeout=chance.choice((None, None, None, 200 * SECOND)),
    )


def _random_step(chance: random.Random, step_id: str, before: list[str]) -> StepSpec:
    needs = sorted(chance.sample(before, min(len(before), chance.choice((0, 1, 1, 2)))))
    more: dict[str, Any] = {
        "handler": chance.choice(("h1", "h2", "h3")),
        "on_error": chance.choice(("stop", "continue", "continue")),
        "on_lost": chance.choice(("", "RETRY", "FAIL", "ASK")),
        "side_effecting": chance.random() < 0.3,
    }
    if chance.random() < 0.15:
        more["condition"] = chance.choice((Value(True), Value(False)))
    elif chance.random() < 0.15:
        status = chance.choice(("success", "failure"))
        more |= {"condition": Computed(lambda scope: scope.lookup("status", (status,))), "always": True}
    if needs and chance.random() < 0.5:
        more["with_"] = Ref(f"steps.{needs[0]}.output")
    if chance.random() < 0.4:
        more |= {"concurrency": chance.choice((None, 1, 3)), "tolerate": chance.choice((0, 1, 2))}
        return map_(step_id, chance.choice((0, 1, 3, 5, 8)), *needs, **more)
    return call(step_id, *needs, **more)


class Storm:
    """A run and everything that happens to it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.flow = random_flow(self.chance)
        self.run = Run.fresh(RUN_ID)
        self.run.flow = self.flow
        self.now = START
        self.journal: list[tuple[Any, int]] = []
        self.attempts: list[str] = []
        self.told: set[str] = set()
        allocation = Allocation(
            concurrent_steps=self.chance.choice((None, 3)), steps=self.chance.choice((None, None, 9))
        )
        self.tell(create(self.flow, allocation=allocation, options=Options()))

    def tell(self, command: RunCommand) -> None:
        self.now += 1
        for event in decide(self.run, command, self.now).events:
            self.journal.append((event, self.now))
            for effect in react(self.run, event):
                if isinstance(effect, DispatchAttempt):
                    self.attempts.append(effect.attempt_id)
                elif isinstance(effect, StopAttempt):
                    self.told.add(effect.attempt_id)
        check_invariants(self.run)
        due = {effect.attempt_id for effect in open_effects(self.run) if isinstance(effect, StopAttempt)}
        assert due <= self.told, "V17"

    def weather(self) -> None:
        """One thing happens."""
        if self.attempts and self.chance.random() < 0.25:
            outcome = self.chance.choice(("", "", "SUCCESS", "FAILURE", "CANCELLED"))
            number = self.chance.randint(1, 4)
            self.tell(ReportTool(attempt_id=self.pick(), number=number, tool="search", outcome=outcome))
        roll = self.chance.random()
        if roll < 0.55:
            self.result()
        elif roll < 0.65 and self.attempts:
            self.tell(ReportStarted(attempt_id=self.pick(), started_at=self.now))
        elif roll < 0.78 and self.attempts:
            self.tell(ReportLost(attempt_id=self.pick(), reason="gone"))
        elif roll < 0.82 and self.attempts:
            self.tell(ReportUnconfirmed(attempt_id=self.pick()))
        elif roll < 0.90:
            kind = Cancel if roll < 0.83 else self.chance.choice((Pause, Pause, Resume, Resume, Resume))
            self.tell(kind(command_id=str(self.chance.randint(0, 400))))
        elif roll < 0.903 and self.attempts:
            self.tell(Abort(failure=Failure(code="INTERNAL", message="a defect", tier=2, component="x", operation="y")))
        elif roll < 0.96:
            self.now += self.chance.choice((0, 1, 10)) * SECOND
            self.tell(WakeUp())
        else:
            self.restart()
        self.settle()

    def pick(self) -> str:
        live = [self.run.steps[step_id].attempt_id for step_id in self.run.live]
        return self.chance.choice(live if live and self.chance.random() < 0.9 else self.attempts)

    def result(self) -> None:
        if not self.attempts:
            return
        more: dict[str, Any] = {"state": "COMPLETED", "output": "1"}
        roll = self.chance.random()
        if roll < 0.35:
            failure = Failure(code="TIMEOUT", message="slow", retryable=self.chance.random() < 0.6)
            more = {"state": "FAILED", "failure": failure}
        elif roll < 0.40:
            more = {"state": "CANCELLED"}
        elif roll < 0.45:
            more["outcome"] = "DEGRADED"
        usage = Usage(credits=self.chance.randint(0, 5), attempts=self.chance.randint(0, 2))
        self.tell(ReportResult(attempt_id=self.pick(), usage=usage, started_at=self.now, **more))

    def settle(self) -> None:
        for handler in list(self.run.ready_handlers()):
            while (step_id := self.run.next_ready(handler)) is not None:
                count = len(self.journal)
                tool = self.run.steps[step_id].handler == "h2"
                self.tell(AssignSlot(step_id=step_id, executor_id="e", tool=tool))
                assert len(self.journal) > count, "V18: what is said to be ready can be given a slot"

    def restart(self) -> None:
        before = dump(self.run)
        self.run = load(before) if self.chance.random() < 0.5 else fold(self.flow, self.journal)
        self.run.flow = self.flow
        assert dump(self.run) == before, "V12"
        self.tell(WakeUp())

    def calm(self, number: int) -> None:
        """Executors that work, an operator who resumes."""
        if self.run.state in ("PAUSED", "SUSPENDED"):
            self.tell(Resume(command_id=f"calm{number}"))
        self.settle()
        for step_id in list(self.run.live):
            attempt_id = self.run.steps[step_id].attempt_id
            if step_id in self.run.live:
                self.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", output="1"))
        moment = self.run.next_wake()
        if moment is not None and not self.run.live:
            self.now = max(self.now, moment)
            self.tell(WakeUp())


@pytest.mark.parametrize("block", range(8))
def test_storm(block: int) -> None:
    """E6, F6, F10, G5, G11, K7, Lesson 26, Lesson 45: after each of many random things all invariants hold, and in calm weather every run ends."""
    for seed in range(block * 60, block * 60 + 60):
        storm = Storm(seed)
        storm.settle()
        for _ in range(40):
            storm.weather()
            if storm.run.ended and storm.chance.random() < 0.2:
                break
        assert dump(fold(storm.flow, storm.journal)) == dump(storm.run), f"V12, seed {seed}"
        for number in range(300):
            if storm.run.ended:
                break
            storm.calm(number)
        assert storm.run.ended, f"V18, seed {seed}"
        breaches = check_history(storm.journal, **shape_of(storm.flow), complete=True)
        assert not breaches, f"seed {seed}: {'; '.join(map(str, breaches))}"
