"""Random flows with blocks in blocks, handlers and compensation, through random lives, by seed: a failing seed is its own recipe."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tierflow_flow import from_canonical, parse
from tierflow_flow.definition import Flow
from tierflow_orchestrator.core import decide, dump, load, open_effects, react
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    Cancel,
    DispatchAttempt,
    Pause,
    ReportLost,
    ReportResult,
    ReportUnconfirmed,
    Resume,
    Retry,
    RunCommand,
    StopAttempt,
    WakeUp,
)
from tierflow_orchestrator.core.run import Run
from tierflow_runtime.values import Failure, Usage
from tierflow_testing.history import check_history, shape_of

from .fakes import RUN_ID, SECOND, START, create, fold
from .invariants import check_invariants

SEEDS = 120


class Author:
    """Writes a flow."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.count = 0

    def document(self) -> dict[str, Any]:
        chance = self.chance
        return {
            "name": "drawn",
            "on_failure": chance.choice(("fail_fast", "fail_fast", "continue", "pause")),
            "compensate_on": chance.choice((["failure", "cancel"], ["failure"])),
            "defaults": {"retry": {"max_attempts": chance.choice((1, 2)), "initial_delay": "1s"}},
            "navigator": chance.choice(("graph", "graph", "sequence")),
            "steps": self.block(0),
            **({"concurrency": chance.choice((1, 3))} if chance.random() < 0.3 else {}),
        }

    def block(self, depth: int) -> dict[str, Any]:
        steps: dict[str, Any] = {}
        for _ in range(self.chance.choice((1, 2, 2, 3, 4))):
            self.count += 1
            name = f"s{self.count}"
            steps[name] = self.step(depth)
            before = [other for other in steps if other != name]
            if before and self.chance.random() < 0.5:
                steps[name]["needs"] = self.chance.sample(before, 1)
            if self.chance.random() < 0.15:
                steps[name]["if"] = self.chance.choice((True, False, "always()", "failure()"))
        if self.chance.random() < 0.6:
            self.rescue(steps, depth)
        return steps

    def rescue(self, steps: dict[str, Any], depth: int) -> None:
        """Some of the steps get a handler."""
        self.count += 1
        name = f"r{self.count}"
        for step in self.chance.sample(list(steps.values()), 1):
            words = ("continue", "stop") if "map" in step or "loop" in step else ("continue", "retry", "retry", "stop")
            step["on_error"] = {"goto": name, "then": self.chance.choice(words), "calls": self.chance.choice((1, 2))}
        handler = {"steps": self.block(depth + 1)} if depth < 2 and self.chance.random() < 0.3 else {"call": "h"}
        steps[name] = {**handler, **({"if": "last_error.code != 'STRANGE'"} if self.chance.random() < 0.3 else {})}

    def step(self, depth: int) -> dict[str, Any]:
        chance = self.chance
        kinds = (
            ["call"] * 6 + ["wait", "emit", "fail", "map"] + ["group", "loop", "map_block"] * (2 if depth < 2 else 0)
        )
        step: dict[str, Any] = getattr(self, chance.choice(kinds))(depth)
        if chance.random() < 0.3:
            step["on_error"] = "continue"
        return step

    def call(self, depth: int) -> dict[str, Any]:
        step: dict[str, Any] = {"call": self.chance.choice(("h", "k"))}
        if self.chance.random() < 0.4:
            step["compensate"] = {"call": "u", "with": {"was": "${{ output }}"}}
        return step

    def wait(self, depth: int) -> dict[str, Any]:
        return {"wait": self.chance.choice(("0s", "5s", "1m"))}

    def emit(self, depth: int) -> dict[str, Any]:
        return {"emit": "it.was"}

    def fail(self, depth: int) -> dict[str, Any]:
        return {"fail": {"code": "NO"}}

    def map(self, depth: int) -> dict[str, Any]:
        return {**self.over(), **self.call(depth)}

    def over(self) -> dict[str, Any]:
        chance = self.chance
        items: dict[str, Any] = {"map": list(range(chance.choice((0, 1, 2, 3)))), "tolerate": chance.choice((0, 1))}
        return {**items, **({"concurrency": 1} if chance.random() < 0.3 else {})}

    def bounds(self) -> dict[str, Any]:
        chance, bounds = self.chance, {}
        if chance.random() < 0.4:
            bounds["retry"] = {"max_attempts": 2, "initial_delay": chance.choice(("0s", "3s"))}
        if chance.random() < 0.25:
            bounds["timeout"] = "20s"
        if chance.random() < 0.15:
            bounds["compensate"] = {"call": "u"}
        return bounds

    def group(self, depth: int) -> dict[str, Any]:
        return {"steps": self.block(depth + 1), **self.bounds()}

    def map_block(self, depth: int) -> dict[str, Any]:
        return {**self.over(), **self.group(depth)}

    def loop(self, depth: int) -> dict[str, Any]:
        when = self.chance.choice(({"for": 2}, {"until": "loop.index == 1"}, {"while": "loop.index < 2"}, {"for": [7]}))
        delay = {"delay": "5s"} if self.chance.random() < 0.4 else {}
        timeout = {"timeout": "30s"} if self.chance.random() < 0.2 else {}
        return {"loop": {**when, **delay, "max": 2}, "steps": self.block(depth + 1), **timeout}


class Life:
    """A run and what happens to it."""

    def __init__(self, flow: Flow, chance: random.Random) -> None:
        self.flow, self.chance, self.now = flow, chance, START
        self.run = Run.fresh(RUN_ID)
        self.run.flow = flow
        self.journal: list[tuple[Any, int]] = []
        self.told: set[str] = set()
        self.ends = self.number = 0
        self.dispatched: list[str] = []
        self.tell(create(flow))

    def tell(self, command: RunCommand) -> None:
        self.now += 1
        for event in decide(self.run, command, self.now).events:
            self.journal.append((event, self.now))
            for effect in react(self.run, event):
                if isinstance(effect, StopAttempt):
                    self.told.add(effect.attempt_id)
                elif isinstance(effect, DispatchAttempt):
                    self.dispatched.append(effect.attempt_id)
                else:
                    self.ends += 1

    def assign(self) -> None:
        for handler in list(self.run.ready_handlers()):
            while (step_id := self.run.next_ready(handler)) is not None:
                self.tell(AssignSlot(step_id=step_id, executor_id="e"))

    def act(self) -> None:
        """Something happens."""
        chance, run = self.chance, self.run
        self.number += 1
        what = chance.random()
        if what < 0.04:
            self.tell(chance.choice((Pause, Resume, Resume, Cancel))(command_id=f"c{self.number}"))
        elif what < 0.2 or not run.live:
            self.now = max(self.now, run.next_wake() or 0) if chance.random() < 0.7 else self.now + SECOND
            self.tell(WakeUp())
            if run.state in ("PAUSED", "SUSPENDED") and run.next_wake() is None:
                self.tell(Resume(command_id=f"c{self.number}"))
        else:
            step = run.steps[chance.choice(list(run.live))]
            self.tell(self.result(step.attempt_id))
        self.assign()

    def result(self, attempt_id: str) -> RunCommand:
        chance, told = self.chance, attempt_id in self.told
        what = chance.random()
        if told and what < 0.5:
            return ReportResult(attempt_id=attempt_id, state="CANCELLED", usage=Usage(credits=1))
        if what < 0.08:
            return (
                ReportUnconfirmed(attempt_id=attempt_id) if told else ReportLost(attempt_id=attempt_id, reason="gone")
            )
        if what < 0.35:
            code = chance.choice(("HANDLER_FAILED", "STRANGE"))
            failure = Failure(code=code, message="it broke", retryable=chance.random() < 0.5)
            return ReportResult(attempt_id=attempt_id, state="FAILED", failure=failure, usage=Usage(credits=2))
        return ReportResult(attempt_id=attempt_id, state="COMPLETED", output=json.dumps(self.number), started_at=1)

    def retried(self) -> bool:
        """Whether somebody has the run tried again, which has failed."""
        if self.run.state != "FAILED" or self.run.generation > 1 or self.chance.random() < 0.6:
            return False
        self.tell(Retry(command_id="again", generation=2))
        self.assign()
        return not self.run.ended

    def restart(self) -> None:
        """Another instance takes over, from the snapshot or from the journal."""
        before = dump(self.run)
        self.run = load(before) if self.chance.random() < 0.5 else fold(self.flow, self.journal)
        self.run.flow = self.flow
        assert dump(self.run) == before, "V12"
        stops = {effect.attempt_id for effect in open_effects(self.run) if isinstance(effect, StopAttempt)}
        assert stops <= self.told, "V17: whoever is to be stopped was told so"


def lived(seed: int) -> Life:
    """A flow and a run of it, until it ends."""
    chance = random.Random(seed)
    text = json.dumps(Author(chance).document())
    flow = parse(text, "json")
    assert from_canonical(flow.canonical).dependants == flow.dependants
    life = Life(flow, chance)
    life.assign()
    for _ in range(600):
        if life.run.ended and not life.retried():
            break
        life.act()
        check_invariants(life.run)
        if chance.random() < 0.2:
            life.restart()
    return life


@pytest.mark.parametrize("start", range(0, SEEDS, 10))
def test_nested_flows_live_through_anything(start: int) -> None:
    """E4, E8, E11, E13, F10, K4, K7, Lesson 2, Lesson 17: every one ends, nothing ends twice, the invariants hold at every step and over restarts."""
    for seed in range(start, start + 10):
        life = lived(seed)
        assert life.run.ended, f"seed {seed}: V18"
        assert life.ends == life.run.generation, f"seed {seed}: V1"
        assert len(set(life.dispatched)) == len(life.dispatched), f"seed {seed}: V5"
        breaches = check_history(life.journal, **shape_of(life.flow), complete=True)
        assert not breaches, f"seed {seed}: " + "; ".join(map(str, breaches))


@pytest.mark.parametrize("seed", range(1_000, 1_008))
def test_every_prefix_of_a_journal_gives_the_state_that_was(seed: int) -> None:
    """K7, R16: whatever the moment of a crash, the journal up to there and a snapshot of it are the same state."""
    life = lived(seed)
    run = Run.fresh(RUN_ID)
    run.flow = life.flow
    for position in range(0, len(life.journal), max(1, len(life.journal) // 60)):
        folded = fold(life.flow, life.journal[:position])
        again = load(dump(folded))
        again.flow = life.flow
        assert dump(again) == dump(folded)
        assert again.next_wake() == folded.next_wake()
        assert list(open_effects(again)) == list(open_effects(folded))


def test_the_lives_have_everything_in_them() -> None:
    """The generator is not blind: what this file is about happens in its lives."""
    seen: dict[str, int] = {}
    for seed in range(120):
        life = lived(seed)
        for event, _ in life.journal:
            seen[type(event).__name__] = seen.get(type(event).__name__, 0) + 1
    for name in ("BlockBegan", "IterationBegan", "StepStopping", "HandlerCalled", "StepReset", "CompensationBegan"):
        assert seen.get(name, 0) > 3, (name, seen)
    assert seen.get("StepCompensated", 0) > 3
    assert seen.get("CompensationFailed", 0) > 0
