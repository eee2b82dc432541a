"""Random lives of documents that are steered: held, stepped, skipped, paused, retried; by seed. After each decision `Doc` takes the run over and checks its history."""

from __future__ import annotations

import random

import pytest
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    Cancel,
    Pause,
    ReportLost,
    ReportResult,
    Resume,
    Retry,
    SetBreakpoints,
    Skip,
    StepOnce,
    WakeUp,
)
from tierflow_runtime.values import Failure

from .documents import Doc

TEXT = """
use:
  extensions:
    - noted: {extend: call, when: 'type == "object" and .n > 1', before: [{tell: {call: h}}], after: [{told: {set: {x: 1}}}]}
do:
  - start: {set: {n: 2}}
  - both:
      fork:
        compete: COMPETE
        branches:
          - a: {call: h, with: {n: 1}, export: {as: '{a: .}'}}
          - b: {do: [{c: {call: h}}, {d: {wait: PT5S}}]}
          - e: {listen: {to: {one: {with: {type: go}}}}}
  - each:
      for: {each: i, in: '[1, 2, 3]'}
      do:
        - say: {call: h, with: {i: '${ $i }'}}
        - odd: {switch: [{one: {when: $i == 2, then: exit}}, {rest: {then: continue}}]}
        - more: {run: {shell: {command: ls}, return: all}}
  - safe:
      try: [{risky: {call: h}}, {worse: {call: h}}]
      catch: {retry: {delay: PT1S, limit: {attempt: {count: 2}}}, do: [{mend: {call: h}}]}
  - end: {set: {n: '${ $context.a }'}}
"""
SHELL = '{"exit_code": 0, "stdout": "", "stderr": ""}'


class Life:
    """A run of the document, and somebody who steers it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.it = Doc(TEXT.replace("COMPETE", self.chance.choice(("true", "false"))), {"n": 1})
        self.number = 0

    def tell(self, kind: type, **fields: object) -> None:
        """A command with an id of its own."""
        self.number += 1
        self.it.tell(kind(command_id=f"by-{self.number}", **fields))

    def attempt(self) -> None:
        """Something becomes of an attempt in flight."""
        run = self.it.run
        if not run.live:
            return
        step = run.steps[self.chance.choice(list(run.live))]
        roll = self.chance.random()
        if roll < 0.7:
            output = SHELL if step.handler == "shell.run" else str(self.number)
            self.it.tell(
                ReportResult(attempt_id=step.attempt_id, state="COMPLETED", output=output, started_at=self.it.now)
            )
        elif roll < 0.8:
            self.it.tell(ReportLost(attempt_id=step.attempt_id, reason="gone"))
        elif roll < 0.9:
            self.it.tell(ReportResult(attempt_id=step.attempt_id, state="CANCELLED"))
        else:
            failure = Failure(code="HANDLER_REJECTED", message="no")
            self.it.tell(
                ReportResult(attempt_id=step.attempt_id, state="FAILED", failure=failure, started_at=self.it.now)
            )

    def steer(self) -> None:
        """Somebody does something."""
        run, chance = self.it.run, self.chance
        roll = chance.random()
        if roll < 0.15:
            self.tell(Pause, interrupt=chance.random() < 0.5)
        elif roll < 0.4:
            self.tell(Resume)
        elif roll < 0.55:
            self.tell(SetBreakpoints, breakpoints=chance.choice(((), ("say",), ("*",), ("/do/3/safe", "end"))))
        elif roll < 0.7:
            self.tell(StepOnce)
        elif roll < 0.8:
            self.tell(Skip, step_id=chance.choice(list(run.steps or ["/do"])), output=chance.choice((None, '{"n": 3}')))
        elif roll < 0.9:
            self.it.send("go", {"n": 4})
        elif roll < 0.92:
            self.tell(Cancel)
        else:
            self.tell(Retry)

    def time(self) -> None:
        """What it waits for comes."""
        moment = self.it.run.next_wake()
        if moment is not None:
            self.it.now = max(self.it.now, moment)
            self.it.tell(WakeUp())

    def slots(self) -> None:
        """There is room for everything."""
        for handler in list(self.it.run.ready_handlers()):
            while (step_id := self.it.run.next_ready(handler)) is not None:
                before = len(self.it.journal)
                self.it.tell(AssignSlot(step_id=step_id, executor_id="e"))
                assert len(self.it.journal) > before, "V18: what is said to be ready can be given a slot"

    def calm(self) -> None:
        """Nobody steers, executors work, and whoever failed is retried."""
        run = self.it.run
        if run.state == "FAILED":
            self.tell(Retry)
        if run.state in ("PAUSED", "SUSPENDED"):
            self.tell(SetBreakpoints, breakpoints=())
            self.tell(Resume)
        if any(run.steps[step_id].reason == "EVENTS" for step_id in run.waits):
            self.it.send("go", {"n": 5})
        self.slots()
        for step_id in list(self.it.run.live):
            step = self.it.run.steps[step_id]
            if step_id in self.it.run.live:
                output = SHELL if step.handler == "shell.run" else "1"
                self.it.tell(
                    ReportResult(attempt_id=step.attempt_id, state="COMPLETED", output=output, started_at=self.it.now)
                )
        self.time()


@pytest.mark.parametrize("block", range(4))
def test_lives(block: int) -> None:
    """C9, C12, N8, G6, K7, V12, R31: see docs/invariants.md; whatever was done to it, in calm weather a document completes, once it is retried."""
    ends: set[str] = set()
    for seed in range(block * 10, block * 10 + 10):
        life = Life(seed)
        for _ in range(40):
            life.slots()
            life.chance.choice((life.attempt, life.attempt, life.attempt, life.steer, life.steer, life.time))()
        for _ in range(80):
            if life.it.run.state in ("COMPLETED", "CANCELLED"):
                break
            life.calm()
        assert life.it.run.state in ("COMPLETED", "CANCELLED"), f"seed {seed}: {life.it.run.failure}"
        ends.add(life.it.run.state)
    assert "COMPLETED" in ends
