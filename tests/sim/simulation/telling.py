"""What processes tell each other and their clients, against what is committed (docs/invariants.md: V26, V30, V33, V34)."""

from __future__ import annotations

from typing import Any

from tierflow_runtime.wire import RUN_STATES, SWARM_STATES

from simulation.committed import Committed, lease_is_good, short

_STEPS = "/tierflow.executor.v1.ExecutorService/ExecuteSteps"
_RUNS = "/tierflow.orchestrator.v1.OrchestratorService/ExecuteRuns"
_COORDINATOR = "/tierflow.coordinator.v1.CoordinatorService/"


class Telling:
    """Part of the checks of one world: what is told."""

    journal: Committed

    def expect(self, holds: bool, invariant: str, text: str) -> None:
        """Ends the simulation where it does not hold."""
        raise NotImplementedError

    # --- messages ---

    def sent(self, connection: Any, up: bool, method: str, message: Any) -> None:
        """A message leaves its sender."""
        if method == _STEPS:
            if up:
                self._to_executor(connection.client, message)
        elif method == _RUNS:
            if up:
                self._to_orchestrator(message)
            else:
                self._to_coordinator(message)
        elif method.startswith(_COORDINATOR) and not up:
            self._to_client(method.removeprefix(_COORDINATOR), message)

    def _to_executor(self, loop: Any, frame: Any) -> None:
        journal = self.journal
        process = loop.process
        for request in frame.execute:
            attempt_id = request.context.attempt_id
            self.expect(attempt_id in journal.scheduled, "V30", f"{attempt_id} is dispatched before it is committed")
            self.expect(lease_is_good(process), "V34", f"{process.name} dispatches {attempt_id} past its lease")
        for attempt_id in frame.acknowledge:
            known = attempt_id in journal.closed or attempt_id not in journal.scheduled
            self.expect(known, "V33", f"the result of {attempt_id} is acknowledged before it is committed")

    def _to_orchestrator(self, frame: Any) -> None:
        journal = self.journal
        for request in frame.execute:
            run_id = request.context.run_id
            self.expect(
                run_id in journal.requested, "V30", f"run {short(run_id)} is asked for before that is committed"
            )
        for one in frame.acknowledge:
            swarm = journal.requested.get(one.run_id)
            ended = swarm is not None and any(key[0] == swarm for key in journal.swarm_ends)
            known = (one.run_id, one.generation or 1) in journal.finished or ended
            self.expect(known, "V33", f"the result of run {short(one.run_id)} is acknowledged before it is committed")

    def _to_coordinator(self, frame: Any) -> None:
        journal = self.journal
        for answer in frame.accepted:
            self.expect(
                answer.run_id in journal.runs, "V26", f"run {short(answer.run_id)} is accepted before it is committed"
            )
        for result in frame.results:
            key = (result.context.run_id, result.context.generation or 1)
            self.expect(
                journal.run_ends.get(key) == result.state,
                "V26",
                f"run {short(key[0])} is said to be {RUN_STATES.name(result.state)}, which is not committed",
            )
        for answer in frame.commands:
            if answer.applied:
                known = (answer.run_id, answer.command_id) in journal.commands
                self.expect(
                    known,
                    "V26",
                    f"command {answer.command_id} to run {short(answer.run_id)} is said to be applied and is not committed",
                )

    def _to_client(self, method: str, message: Any) -> None:
        if method == "SubmitSwarm":
            self._accepted(message)
        elif method == "ExecuteSwarms":
            for answer in message.answers:
                if answer.HasField("accepted"):
                    self._accepted(answer.accepted)
            for result in message.results:
                self.ended(result.context.swarm_id, result.state, result.context.generation)
        elif method == "WaitSwarm" and message.ended:
            self.ended(message.swarm.context.swarm_id, message.swarm.state, message.swarm.context.generation)

    def _accepted(self, answer: Any) -> None:
        self.expect(
            answer.swarm_id in self.journal.swarms,
            "V26",
            f"swarm {short(answer.swarm_id)} is accepted before it is committed",
        )

    def ended(self, swarm_id: str, state: int, generation: int) -> None:
        """Somebody is told that a swarm has ended."""
        known = self.journal.swarm_ends.get((swarm_id, generation or 1))
        self.expect(
            known == state,
            "V26",
            f"swarm {short(swarm_id)} is said to be {SWARM_STATES.name(state)}, which is not committed",
        )

    def applied(self, entity_id: str, command_id: str) -> None:
        """Somebody was told that a command applied."""
        # What a swarm hands on to its run at once is in the run's journal.
        runs = [run_id for run_id, swarm_id in self.journal.requested.items() if swarm_id == entity_id]
        known = any((each, command_id) in self.journal.commands for each in (entity_id, *runs))
        self.expect(
            known, "V26", f"command {command_id} to {short(entity_id)} was said to be applied and is not committed"
        )
