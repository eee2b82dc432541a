"""What must hold of a swarm with a plan of several runs, from its events alone (U10)."""

from __future__ import annotations

from collections.abc import Sequence

from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.events.v1 import event_pb2

from tierflow_testing.auditing.report import Report


def check_plan(swarm_id: str, events: Sequence[event_pb2.Event], report: Report) -> None:
    """One run at a time; a run is asked for, or passed over, once in each generation, and after all that it needs."""
    needs = {run.id: frozenset(run.needs) for run in events[0].swarm_created.plan} if events else {}
    if not needs:
        return
    walk = _Walk(swarm_id, needs, report)
    for event in events:
        if event.HasField("swarm_state_changed"):
            if getattr(event.swarm_state_changed, "from") == state_pb2.SWARM_STATE_FAILED:
                walk.decided, walk.running = _still(needs, walk.decided, events, event.seq), ""
        elif event.HasField("run_requested"):
            walk.asked(event.seq, event.run_requested.planned)
        elif event.HasField("plan_decided"):
            walk.told(event.seq, event.plan_decided.decision.id)
        elif event.HasField("run_finished"):
            walk.decided.add(walk.running)
            walk.running = ""


class _Walk:
    """How far a plan has come."""

    def __init__(self, swarm_id: str, needs: dict[str, frozenset[str]], report: Report) -> None:
        self._swarm_id = swarm_id
        self._needs = needs
        self._report = report
        self.decided: set[str] = set()
        self.running = ""

    def asked(self, seq: int, planned: str) -> None:
        where = f"{self._swarm_id} at event {seq}: {planned}"
        self._report.expect(not self.running, "two runs of a plan at a time (U10)", f"{where} and {self.running}")
        self._once(planned, where)
        self.running = planned

    def told(self, seq: int, planned: str) -> None:
        if planned == self.running:  # Tier 2 refused it.
            self.running = ""
        else:
            self._once(planned, f"{self._swarm_id} at event {seq}: {planned}")
        self.decided.add(planned)

    def _once(self, planned: str, where: str) -> None:
        self._report.expect(planned not in self.decided, "decided twice (U10)", where)
        self._report.expect(self._needs.get(planned, {""}) <= self.decided, "decided too early (U10)", where)


def _still(
    needs: dict[str, frozenset[str]], decided: set[str], events: Sequence[event_pb2.Event], seq: int
) -> set[str]:
    """What a new generation leaves decided: all but what failed, and what comes after that."""
    again = _failed_before(events, seq)
    grown = True
    while grown:
        more = {planned for planned in decided - again if needs[planned] & again}
        again |= more
        grown = bool(more)
    return decided - again


def _failed_before(events: Sequence[event_pb2.Event], seq: int) -> set[str]:
    """The runs whose latest word was that they failed."""
    failed: set[str] = set()
    planned_of: dict[str, str] = {}
    for event in events:
        if event.seq >= seq:
            break
        if event.HasField("run_requested"):
            planned_of[event.run_requested.run_id] = event.run_requested.planned
            failed.discard(event.run_requested.planned)
        elif event.HasField("run_finished") and event.run_finished.HasField("failure"):
            failed.add(planned_of.get(event.run_finished.run_id, ""))
        elif event.HasField("plan_decided"):
            decision = event.plan_decided.decision
            if decision.HasField("failure"):
                failed.add(decision.id)
            else:
                failed.discard(decision.id)
    return failed
