"""Random flows through random lives: results, failures, losses, commands, forgeries, repetitions, restarts. After every step all invariants hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tierflow_flow.definition import Flow
from tierflow_orchestrator.core import Decision, Run, decide, dump, load, open_effects, react
from tierflow_orchestrator.core.caching import key_hash
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    Cancel,
    DecideApproval,
    DispatchAttempt,
    Pause,
    Recall,
    ReportEnd,
    ReportLost,
    ReportResult,
    ReportStarted,
    ReportTold,
    ReportUnconfirmed,
    Resume,
    RunCommand,
    Signal,
    StopAttempt,
    WakeUp,
)
from tierflow_orchestrator.core.events import LateResult, RunEvent, SignalReceived
from tierflow_orchestrator.core.navigator import settle
from tierflow_orchestrator.core.stopping import stop_step
from tierflow_orchestrator.core.turn import Turn
from tierflow_runtime.values import Allocation, Context, LogLine, Options, Usage
from tierflow_testing.history import check_history, shape_of

from .drawn import RESULTS, USAGES, flows
from .fakes import (
    RUN_ID,
    SECOND,
    START,
    create,
    fold,
)
from .invariants import check_invariants


class Lives(RuleBasedStateMachine):
    """One run, and a shell around it that does everything that can be done to it."""

    @initialize(
        flow=flows(),
        allocation=st.builds(
            Allocation,
            concurrent_steps=st.sampled_from((None, None, 2)),
            steps=st.sampled_from((None, None, None, None, 4)),
            credits=st.sampled_from((None, None, None, 40)),
        ),
        options=st.builds(
            Options,
            failure_policy=st.sampled_from(("", "", "CONTINUE")),
            not_before=st.sampled_from([None] * 9 + [START + 99]),
        ),
        deadline=st.sampled_from((None, None, None, START + 90 * SECOND)),
        eager=st.sampled_from((True, True, True, False)),
    )
    def begin(self, flow: Flow, allocation: Allocation, options: Options, deadline: int | None, eager: bool) -> None:
        self.eager = eager
        self.flow = flow
        self.run = Run.fresh(RUN_ID)
        self.run.flow = flow
        self.now = START
        self.journal: list[tuple[Any, int]] = []
        self.attempts: list[str] = []
        self.command_ids: dict[str, tuple[bool, str]] = {}
        self.percent = 0.0
        self.signals: set[str] = set()
        self.ends = 0
        self.owed: set[str] = set()
        """Attempts that were given up without a result."""
        self.told: set[str] = set()
        """Attempts that a StopAttempt was sent for."""
        context = Context(tenant="t", user_id="u", swarm_id="s", run_id=RUN_ID, deadline=deadline)
        self.tell(create(flow, allocation=allocation, options=options, context=context))
        self.settle()

    def tell(self, command: RunCommand) -> Decision:
        self.now += 1
        decision = decide(self.run, command, self.now)
        self.note(decision.events)
        return decision

    def note(self, events: Iterable[RunEvent]) -> None:
        for event in events:
            self.journal.append((event, self.now))
            for effect in react(self.run, event):
                if isinstance(effect, DispatchAttempt):
                    self.attempts.append(effect.attempt_id)
                elif isinstance(effect, StopAttempt):
                    self.told.add(effect.attempt_id)
                elif isinstance(effect, ReportEnd):
                    self.ends += 1

    def slot(self, step_id: str) -> AssignSlot:
        step = self.run.steps.get(step_id)
        child = f"child-{self.now}" if step is not None and step.handler.startswith("flow:") else ""
        tool = step is not None and step.handler == "h2"
        return AssignSlot(step_id=step_id, executor_id="e", child_run_id=child, tool=tool)

    def settle(self) -> None:
        """As the real shell does after each decision: slots for whatever may start."""
        for step_id in list(self.run.lookups) if self.eager else ():
            self.recall(step_id)
        while self.eager and (handler := next(iter(self.run.ready_handlers()), None)) is not None:
            step_id = self.run.next_ready(handler)
            assert step_id is not None, "V18"
            before = dump(self.run)
            self.tell(self.slot(step_id))
            assert dump(self.run) != before, "V18"

    def recall(self, step_id: str) -> None:
        """As the real shell does: what the cache says of a step."""
        step = self.run.steps[step_id]
        if step_id in self.run.lookups and self.run.state == "RUNNING" and not step.held:
            found = {"found": True, "output": "7", "run_id": "r", "made_by": "s"} if self.now % 3 == 0 else {}
            decision = self.tell(Recall(step_id=step_id, key_hash=key_hash(self.run, step), **found))
            assert decision.reply.applied
            assert step_id not in self.run.lookups
            assert (step.state == "COMPLETED") == bool(found)

    @rule(data=st.data())
    def recall_anything(self, data: st.DataObject) -> None:
        """Q15: an answer to nothing does nothing."""
        step_id = data.draw(st.sampled_from([*self.run.steps, "nothing"]))
        if step_id in self.run.lookups:
            self.recall(step_id)
        else:
            assert not self.tell(Recall(step_id=step_id, key_hash="k", found=True, output="1")).events

    def current(self, attempt_id: str) -> bool:
        return attempt_id in {self.run.steps[step_id].attempt_id for step_id in self.run.live}

    def stale(self, attempt_id: str, decision: Decision, *, result: bool = False) -> None:
        """V10, V15: nothing but the late result where one is owed, and no answer that sounds like more."""
        assert all(isinstance(event, LateResult) for event in decision.events), "V15"
        assert len(decision.events) == int(result and attempt_id in self.owed), "V10"
        if result:
            self.owed.discard(attempt_id)
        assert not decision.reply.applied, "V15"
        assert decision.reply.failure is not None, "V15"
        assert decision.reply.failure.code == "STALE", "V15"

    @rule(data=st.data(), most=st.integers(1, 4))
    def assign(self, data: st.DataObject, most: int) -> None:
        for _ in range(most):
            handlers = sorted(self.run.ready_handlers())
            if not handlers:
                return
            step_id = self.run.next_ready(data.draw(st.sampled_from(handlers)))
            assert step_id is not None
            self.tell(self.slot(step_id))

    @rule(data=st.data())
    def assign_anything(self, data: st.DataObject) -> None:
        """A shell that is mistaken about what is ready does no harm."""
        step_id = data.draw(st.sampled_from([*self.run.steps, "nothing"]))
        free = step_id in self.run.steps and self.run.may_start(self.run.steps[step_id])
        decision = self.tell(self.slot(step_id))
        if not free:
            assert not decision.events, "V5"

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        attempt_id = data.draw(st.sampled_from(self.attempts))
        current = self.current(attempt_id)
        decision = self.tell(ReportStarted(attempt_id=attempt_id, started_at=self.now))
        if not current:
            self.stale(attempt_id, decision)

    @precondition(lambda self: self.attempts)
    @rule(
        data=st.data(),
        result=RESULTS,
        usage=USAGES,
        begun=st.booleans(),
        logs=st.sampled_from(((), (LogLine(time=1, stream="stdout", text="hi"),))),
    )
    def finish(
        self, data: st.DataObject, result: dict[str, Any], usage: Usage, begun: bool, logs: tuple[LogLine, ...]
    ) -> None:
        live = [self.run.steps[step_id].attempt_id for step_id in self.run.live]
        attempt_id = data.draw(st.sampled_from(live * 3 + self.attempts))
        current = self.current(attempt_id)
        command = ReportResult(
            attempt_id=attempt_id, usage=usage, started_at=self.now if begun else None, logs=logs, **result
        )
        decision = self.tell(command)
        if current:
            assert decision.reply.applied
            assert not self.current(attempt_id), "V11"
        else:
            self.stale(attempt_id, decision, result=True)
        self.stale(attempt_id, self.tell(command), result=True)
        self.settle()

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), lost=st.booleans())
    def lose(self, data: st.DataObject, lost: bool) -> None:
        attempt_id = data.draw(st.sampled_from(self.attempts))
        current, stopping = self.current(attempt_id), attempt_id in self.told
        command = ReportLost(attempt_id=attempt_id, reason="gone") if lost else ReportUnconfirmed(attempt_id=attempt_id)
        decision = self.tell(command)
        if not current or not (lost or stopping):
            self.stale(attempt_id, decision)
        else:
            assert not self.current(attempt_id), "V11"
            self.owed.add(attempt_id)

    @rule(
        step_id=st.sampled_from(("s0", "s1", "s0[0]", "nope", "")),
        epoch=st.sampled_from(("0", "9", "-1", "x", "", "٣")),
    )
    def forge(self, step_id: str, epoch: str) -> None:
        """Lesson 45: a completion of an attempt that never existed."""
        for run_id in (RUN_ID, "another"):
            attempt_id = f"{run_id}/{step_id}/{epoch}"
            if attempt_id in self.attempts:
                continue
            for command in (
                ReportResult(attempt_id=attempt_id, state="COMPLETED", output="1", usage=Usage(credits=1)),
                ReportStarted(attempt_id=attempt_id, started_at=1),
                ReportLost(attempt_id=attempt_id, reason="x"),
                ReportUnconfirmed(attempt_id=attempt_id),
            ):
                self.stale(attempt_id, self.tell(command), result=True)

    @rule(kind=st.sampled_from((Resume, Pause, Resume, Pause, Resume, Resume, Cancel)), number=st.integers(0, 9))
    def command(self, kind: Any, number: int) -> None:
        command_id = f"{kind.__name__}{number}"
        before = self.run.ended
        decision = self.tell(kind(command_id=command_id, actor="a", reason="r"))
        answer = (decision.reply.applied, decision.reply.state)
        if command_id in self.command_ids:
            assert not decision.events, "V16"
            assert answer == (self.command_ids[command_id][0], self.run.state), "V16"
        elif before:
            assert not decision.events, "V1"
            assert answer == (False, self.run.state)
        else:
            self.command_ids[command_id] = answer
            assert answer[1] == self.run.state, "the answer is what happened"
        self.settle()

    @precondition(lambda self: self.run.state in ("RUNNING", "PAUSING"))
    @rule(data=st.data())
    def stop_one(self, data: st.DataObject) -> None:
        """E7: a step is stopped alone, as by a join that does not need it any more."""
        self.now += 1
        turn = Turn(self.run, self.now)
        step = self.run.steps[data.draw(st.sampled_from([s.id for s in self.run.steps.values() if not s.is_item]))]
        stop_step(turn, step, "not needed")
        settle(turn)
        assert step.ended or step.stop_to
        self.note(turn.events)
        self.settle()

    @rule(name=st.sampled_from(("one", "two", "nobody")), number=st.integers(0, 9), payload=st.sampled_from(("1", "{")))
    def send(self, name: str, number: int, payload: str) -> None:
        """Q5, V16: a signal is journaled once; what nobody can take leaves nothing behind."""
        signal_id = f"signal-{name}{number}{payload}"
        known = signal_id in self.signals
        decision = self.tell(Signal(command_id=signal_id, name=name, payload=payload))
        received = [event for event in decision.events if isinstance(event, SignalReceived)]
        assert len(received) == int(decision.reply.applied and not known), "V16"
        if known:
            assert not decision.events, "V16"
        elif received:
            assert name != "nobody"
            assert payload == "1"
            self.signals.add(signal_id)
        self.settle()

    @rule(
        data=st.data(),
        actor=st.sampled_from(("ada", "bob", "eve", "mallory", "")),
        verdict=st.sampled_from(("APPROVED", "APPROVED", "REJECTED", "DELEGATED")),
        number=st.integers(0, 9),
    )
    def decide(self, data: st.DataObject, actor: str, verdict: str, number: int) -> None:
        """Q17, L14, V16, V44: people and strangers decide about anything."""
        waiting = sorted(s for s in self.run.waits if self.run.steps[s].state == "AWAITING_APPROVAL")
        step_id = data.draw(st.sampled_from([*waiting * 5, *self.run.steps, "nothing"]))
        roles = data.draw(st.sampled_from(((), ("boss",), ("clerk",))))
        known = f"d{number}" in self.run.commands
        decision = self.tell(
            DecideApproval(
                command_id=f"d{number}", step_id=step_id, verdict=verdict, actor=actor, roles=roles, delegate_to="eve"
            )
        )
        assert not known or not decision.events, "V16"
        assert decision.reply.applied or not decision.events, "V16"
        if actor in ("mallory", "") and roles != ("boss",) and not known:
            assert not decision.reply.applied, "V44"
        self.settle()

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), paused=st.booleans())
    def hear(self, data: st.DataObject, paused: bool) -> None:
        """Q7: a run of another flow has heard that it is to pause, or to go on; what is no such run has not."""
        attempt_id = data.draw(st.sampled_from(self.attempts))
        before = dump(self.run)
        decision = self.tell(ReportTold(attempt_id=attempt_id, paused=paused))
        assert bool(decision.events) == (dump(self.run) != before), "V12"
        if decision.events:
            assert self.current(attempt_id), "V15"

    @rule(seconds=st.sampled_from((0, 1, 5, 40)))
    def wake(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.tell(WakeUp())
        moment = self.run.next_wake()
        assert moment is None or moment > self.now, "V22"
        self.settle()

    @rule(stored=st.booleans())
    def restart(self, stored: bool) -> None:
        """K7, Lesson 26: another instance takes over from the snapshot or from the journal alone."""
        before = dump(self.run)
        self.run = load(before) if stored else fold(self.flow, self.journal)
        self.run.flow = self.flow
        assert dump(self.run) == before, "V12"
        self.told |= {effect.attempt_id for effect in open_effects(self.run) if isinstance(effect, StopAttempt)}
        self.tell(WakeUp())
        self.settle()

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
        assert self.ends == int(self.run.ended), "V1"

    def teardown(self) -> None:
        """V18: left to executors that work and an operator who resumes, every run comes to an end."""
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

    def advance(self, number: int) -> None:
        for step_id in list(self.run.lookups):
            self.recall(step_id)
        if self.run.state in ("PAUSED", "SUSPENDED"):
            self.tell(Resume(command_id=f"last{number}"))
        for step_id in list(self.run.live):
            attempt_id = self.run.steps[step_id].attempt_id
            if self.current(attempt_id):
                self.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", output="1"))
        for handler in list(self.run.ready_handlers()):
            step_id = self.run.next_ready(handler)
            if step_id is not None:
                self.tell(self.slot(step_id))
        for step_id in sorted(self.run.waits):
            if self.run.steps[step_id].state == "AWAITING_APPROVAL":
                for actor in ("ada", "bob", "eve"):
                    self.tell(
                        DecideApproval(command_id=f"{actor}{number}", step_id=step_id, verdict="APPROVED", actor=actor)
                    )
                continue
            name = self.flow.by_id[self.run.steps[step_id].of].settings.get("signal")
            if name is not None and self.run.state == "SUSPENDED":
                self.tell(Signal(command_id=f"last{number}-{step_id}", name=name))
        moment = self.run.next_wake()
        if moment is not None and not self.run.live:
            self.now = max(self.now, moment)
            self.tell(WakeUp())


Lives.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase
"""C2, C6, E6, F10, G5, G10, G11, K7, O14, Lesson 2, Lesson 14, Lesson 21, Lesson 26, Lesson 45: see docs/invariants.md."""
