"""Random lives of runs that somebody steers: every command at any time, over generations and restarts. After every step all invariants hold."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from tierflow_orchestrator.core import dump, load, open_effects
from tierflow_orchestrator.core.commands import (
    Pause,
    Retry,
    SetBreakpoints,
    Skip,
    StepOnce,
    StopAttempt,
    Update,
)
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import COMMANDS
from tierflow_runtime.values import RetryPolicy
from tierflow_testing.history import check_history, shape_of

from .fakes import SECOND, fold
from .invariants import check_invariants
from .test_properties import Lives

STEPS = st.sampled_from(("s0", "s1", "s2", "s3", "s0[0]", "s1[1]", "nope"))


class SteeredLives(Lives):
    """A run that is told everything that can be told."""

    def steer(self, command: Any, name: str) -> None:
        """V16: a command is journaled once, refused with a reason where it cannot be, and answered alike when it comes again."""
        known = command.command_id in self.run.commands
        before, state = dump(self.run), self.run.state
        decision = self.tell(command)
        reply = decision.reply
        if known:
            assert not decision.events, "V16"
        elif reply.failure is not None:
            assert not decision.events, "V16"
            assert dump(self.run) == before, "V16"
            assert not reply.applied
        else:
            assert reply.applied
            assert state in COMMANDS[name], "C2"
            assert not self.tell(command).events, "V16"
        assert reply.state == self.run.state
        self.settle()

    @rule(number=st.integers(0, 99))
    def interrupt(self, number: int) -> None:
        known = f"i{number}" in self.run.commands
        live = set(self.run.live)
        decision = self.tell(Pause(command_id=f"i{number}", interrupt=True))
        if decision.reply.applied and not known:
            stopping = [self.run.steps[s] for s in live if not self.run.steps[s].child]
            assert all(step.stop_to or step.is_item for step in stopping), "G6"
        self.settle()

    @rule(step_id=STEPS, number=st.integers(0, 99), output=st.sampled_from((None, "1")))
    def skip(self, step_id: str, number: int, output: str | None) -> None:
        self.steer(Skip(command_id=f"s{number}", step_id=step_id, output=output), "skip")

    @rule(number=st.integers(0, 99), ids=st.lists(st.sampled_from(("*", "s0", "s1", "s2", "nope")), max_size=2))
    def breakpoints(self, number: int, ids: list[str]) -> None:
        self.steer(SetBreakpoints(command_id=f"b{number}", breakpoints=tuple(ids)), "breakpoints")

    @precondition(lambda self: self.run.state == "PAUSED")
    @rule(number=st.integers(0, 99), step_id=st.sampled_from(("", "", "s0", "s1", "s2")))
    def step_once(self, number: int, step_id: str) -> None:
        self.steer(StepOnce(command_id=f"o{number}", step_id=step_id), "step")

    @precondition(lambda self: self.run.ended)
    @rule(number=st.integers(0, 99), wanted=st.sampled_from((0, 0, 1, 2, 5)))
    def retry(self, number: int, wanted: int) -> None:
        """C9, R31, V1: one end for each generation."""
        state, generation = self.run.state, self.run.generation
        known = f"r{number}" in self.run.commands
        decision = self.tell(Retry(command_id=f"r{number}", generation=wanted, deadline=self.now + 500 * SECOND))
        opened = not known and state == "FAILED" and (not wanted or wanted > generation)
        assert bool(decision.events) == opened, "R31"
        assert (self.run.generation > generation) == opened, "R31"
        if opened:
            self.percent = 0.0
        self.settle()

    @rule(
        number=st.integers(0, 99),
        concurrency=st.sampled_from((None, 0, 1, 3)),
        steps=st.sampled_from((None, None, 0, 9)),
        policy=st.sampled_from(("", "CONTINUE", "FAIL_FAST", "PAUSE")),
        tries=st.sampled_from((None, None, 1, 3)),
        version=st.sampled_from((None, None, 0, 1)),
    )
    def update(
        self,
        number: int,
        concurrency: int | None,
        steps: int | None,
        policy: str,
        tries: int | None,
        version: int | None,
    ) -> None:
        retry = None if tries is None else RetryPolicy(max_attempts=tries, initial_delay=SECOND)
        before = self.run.steer.version if self.run.steer is not None else 0
        command = Update(
            command_id=f"u{number}",
            concurrency=concurrency,
            steps=steps,
            failure_policy=policy,
            retry=retry,
            expected_version=version,
        )
        self.steer(command, "update")
        after = self.run.steer.version if self.run.steer is not None else 0
        assert after - before in (0, 1), "C12"

    @invariant()
    def all_hold(self) -> None:
        if not hasattr(self, "run"):
            return
        check_invariants(self.run)
        assert dump(fold(self.flow, self.journal)) == dump(self.run), "V12"
        percent = self.run.percent()
        assert percent >= self.percent, "V21"
        self.percent = percent
        stopping = {e.attempt_id for e in open_effects(self.run) if isinstance(e, StopAttempt)}
        assert stopping <= self.told, "V17: whoever is to be stopped was told so"

    def teardown(self) -> None:
        """V18, K7: left to executors that work and an operator who resumes, every run comes to an end, from each place of its journal."""
        if not hasattr(self, "run"):
            return
        for number in range(400):
            if self.run.ended:
                break
            self.advance(number)
        assert self.run.ended, "V18"
        self.all_hold()
        breaches = check_history(self.journal, **shape_of(self.flow), complete=True)
        assert not breaches, "; ".join(map(str, breaches))
        times = [time for _, time in self.journal]
        ends = [i for i in range(1, len(times) + 1) if i == len(times) or times[i] != times[i - 1]]
        for place in ends[::5]:  # What was decided at once is committed at once.
            run = fold(self.flow, self.journal[:place])
            stored = dump(run)
            again: Run = load(stored)
            again.flow = self.flow
            assert dump(again) == stored, "V12"
            assert list(open_effects(again)) == list(open_effects(run)), "V17"
            assert again.next_wake() == run.next_wake(), "V22"


SteeredLives.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSteeredLives = SteeredLives.TestCase
"""C2, C6, C9, C12, G6, K7, S6, R31: see docs/invariants.md."""
