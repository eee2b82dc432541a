"""Runs of documents of the Serverless Workflow DSL. After each decision the run is taken over: from its journal as it is on the wire, and from a snapshot."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

from tierflow_contracts.events.v1 import event_pb2
from tierflow_flow import parse
from tierflow_flow.norms import Policy
from tierflow_orchestrator import wire
from tierflow_orchestrator.core import Decision, dump, evolve, load
from tierflow_orchestrator.core.commands import RunCommand, Signal, WakeUp
from tierflow_orchestrator.core.events import StepEntered
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.serverless.errors import error_of
from tierflow_testing.history import check_history

from .fakes import RUN_ID, SECOND, START, Shell

HEAD = "document: {dsl: 1.0.3, namespace: test, name: doc, version: 1.0.0}\n"


class Doc(Shell):
    """A run of a document. `told` is a decision after which somebody else takes over."""

    def __init__(
        self, text: str, given: Any = None, environment: dict[str, str] | None = None, policy: Policy | None = None
    ) -> None:
        self.environment, self.policy = environment or {}, policy
        super().__init__(parse(HEAD + dedent(text)), input=json.dumps(given or {}))

    def decide(self, command: RunCommand) -> Decision:
        self.run.environment, self.run.policy = self.environment, self.policy
        decision = super().decide(command)
        self._take_over()
        assert check_history(self.journal, complete=self.run.ended) == []
        return decision

    def _take_over(self) -> None:
        batch = event_pb2.EventBatch()
        for seq, (event, time) in enumerate(self.journal, 1):
            batch.events.append(event_pb2.Event.FromString(wire.encode_event(event, seq, time)))
        told = Run.fresh(RUN_ID)
        told.flow = self.flow
        for _, time, event in wire.decode_events(batch.SerializeToString()):
            evolve(told, event, time)
        kept = load(dump(self.run))
        assert dump(kept) == dump(self.run)
        assert self.blobs or dump(told) == dump(self.run)  # a reference does not say its media type on the wire
        kept.flow = self.flow
        kept.contents = {sha: content.decode() for sha, content in self.blobs.items()}
        kept.make_due(self.now)
        self.run = kept

    def wake(self, after: float = 0) -> None:
        """The time that it waits for comes; `after` seconds at least."""
        moment = self.run.next_wake()
        assert moment is not None
        assert after == 0 or moment - START > after * SECOND - SECOND / 2, (moment - START) / SECOND
        self.now = max(self.now, moment)
        self.tell(WakeUp())

    def send(self, kind: str, data: Any = None, **more: Any) -> Any:
        number = sum(1 for event, _ in self.journal if type(event).__name__ == "SignalReceived")
        event = {"specversion": "1.0", "type": kind, "data": data, **more}
        return self.tell(Signal(command_id=f"c{number}", name=kind, payload=json.dumps(event))).reply

    def answer(self, step_id: str, body: Any = None, status: int = 200) -> None:
        self.complete(step_id, json.dumps({"status": status, "headers": {}, "body": body}))

    @property
    def output(self) -> Any:
        assert self.run.state == "COMPLETED", (self.run.state, self.run.failure)
        return json.loads(str(self.run.output))

    @property
    def error(self) -> dict[str, Any]:
        assert self.run.state == "FAILED", self.run.state
        failure = self.run.failure
        while failure is not None and failure.cause is not None:
            failure = failure.cause
        assert failure is not None
        return error_of(failure, "")

    def order(self) -> list[str]:
        return [event.step_id for event in self.events(StepEntered)]
