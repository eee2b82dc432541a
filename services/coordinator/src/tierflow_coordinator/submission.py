"""Taking swarms, whichever call brings them: one, many, or a stream. Nothing here waits on behalf of a caller; answers come by callback after the commit.

Work under way goes first: a swarm that arrives while much of it waits, waits as well, and is refused at once where that would take long (`tierflow_durable.intake`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.durable import Durable
from tierflow_durable.entity import Created
from tierflow_durable.intake import LATEST, ROOM, TOO_OLD, Intake
from tierflow_runtime.classify import failure_of_exception
from tierflow_runtime.errors import failure, public
from tierflow_runtime.filling import fill_time
from tierflow_runtime.logs import get_log
from tierflow_runtime.security import Caller
from tierflow_runtime.values import Failure, FailureError, Micros, Violation
from tierflow_runtime.wire import SWARM_STATES, failure_to_proto, micros

from tierflow_coordinator.admission import NO_LABELS, Admission, Admitted
from tierflow_coordinator.core import states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.engine import Engine

log = get_log(__name__)

REUSE: Final = failure(
    "INVALID_REQUEST",
    "Results of another run are taken over by ForkSwarm and RerunSwarm, not by a submission.",
    operation="submit",
    violations=(Violation(field="input.flow.reuse", description="must not be set"),),
)

Answered: TypeAlias = Callable[[api.SubmitSwarmResponse | Failure], None]
Waiting: TypeAlias = tuple[swarm_pb2.SwarmExecutionRequest, Caller, Answered]

BEHIND: Final = 256
"""Swarms whose run is not sent yet, because the orchestrators are busy taking others, from which no new ones are taken."""


class Submission:
    """The way of a request into the journal."""

    def __init__(self, admission: Admission, engine: Engine, durable: Durable) -> None:
        self._admission = admission
        self._engine = engine
        self._durable = durable
        self._draining = False
        self.intake: Intake[Waiting] = Intake(take=self._waited, room=self._room)
        durable.host.writer.gathered = self.intake.nudge
        engine.runs.caught_up = self.intake.nudge

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining

    def drain(self) -> None:
        """Takes nothing new; those who wait are sent elsewhere."""
        self._draining = True
        self.intake.flush()

    def _room(self) -> bool:
        return self._durable.host.writer.backlog < ROOM and self._engine.runs.behind < BEHIND

    def submit(
        self,
        request: swarm_pb2.SwarmExecutionRequest,
        caller: Caller,
        answered: Answered,
        *,
        may_reuse: bool = False,
        labels: Mapping[str, str] = NO_LABELS,
    ) -> None:
        """Takes a swarm; `answered` hears once: that it is stored, or why it is not.

        Args:
            request: The request.
            caller: As whom it is taken.
            answered: Hears.
            may_reuse: The caller may see the run that it names.
            labels: Labels that are the engine's own to give.
        """
        if request.input.flow.HasField("reuse") and not may_reuse:
            answered(REUSE)
            return
        if self._draining or not self._durable.instance.alive:
            answered(_elsewhere())
        elif labels or self.intake.open:  # what the engine starts by itself has waited for its time
            self._submit_now(request, caller, answered, labels)
        elif seconds := self.intake.wait((request, caller, answered), request.ByteSize()):
            answered(_come_back(seconds))

    def _waited(self, waiting: Waiting, seconds: float) -> None:
        """It is the turn of one that had to wait."""
        request, caller, answered = waiting
        if self._draining:
            answered(_elsewhere())
        elif seconds > TOO_OLD:
            answered(_come_back(LATEST))
        else:
            _shorten(request, int(seconds * 1_000_000))
            self._submit_now(request, caller, answered, NO_LABELS)

    def _submit_now(
        self,
        request: swarm_pb2.SwarmExecutionRequest,
        caller: Caller,
        answered: Answered,
        labels: Mapping[str, str],
    ) -> None:
        try:
            only_check = request.options.validate_only
            admitted = None if only_check else self._admission.admit_now(request, caller, labels)
        except FailureError as error:
            answered(error.failure)
            return
        if admitted is None:
            self._durable.host.spawn(self._submit_slowly(request, caller, answered, labels))
        else:
            self._store(admitted, answered)

    async def _submit_slowly(
        self,
        request: swarm_pb2.SwarmExecutionRequest,
        caller: Caller,
        answered: Answered,
        labels: Mapping[str, str],
    ) -> None:
        try:
            admitted = await self._admission.admit(request, caller, labels)
        except Exception as error:  # noqa: BLE001 - whatever it was, somebody waits for an answer
            answered(self._answer_of(error))
            return
        if request.options.validate_only:
            answered(api.SubmitSwarmResponse())
        else:
            self._store(admitted, answered)

    def _store(self, admitted: Admitted, answered: Answered) -> None:
        context = admitted.command.context

        def done(created: Created | FailureError) -> None:
            if isinstance(created, FailureError):
                answered(created.failure)
            elif created.created:
                answered(
                    api.SubmitSwarmResponse(
                        swarm_id=context.swarm_id,
                        state=SWARM_STATES.number(states.STARTING),
                        created=True,
                        trace_id=context.trace_id,
                        run_id=admitted.command.run_id,
                    )
                )
            else:
                self._durable.host.spawn(self._known(created.entity_id, answered))

        self._engine.create(admitted, done)

    def _answer_of(self, error: Exception) -> Failure:
        seen = failure_of_exception(error, "coordinator", "submit")
        if not isinstance(error, FailureError):
            log.error("a swarm could not be admitted", error=error, code=seen.code)
        return seen

    async def _known(self, swarm_id: str, answered: Answered) -> None:
        """The request came before: the answer tells of the swarm that it made."""
        try:
            known = await self._durable.reader.view(swarm_id, _as_known)
        except Exception as error:  # noqa: BLE001 - as above
            answered(self._answer_of(error))
        else:
            answered(known)


def _elsewhere() -> Failure:
    return failure("UNAVAILABLE", "This instance takes no swarms now; try another.", operation="submit")


def _come_back(seconds: float) -> Failure:
    """The refusal of one that would have to wait long."""
    text = "More swarms are submitted than can be started; come back after the time that is given."
    return failure("QUEUE_FULL", text, component="admission", operation="submit", retry_after=int(seconds * 1_000_000))


def _shorten(request: swarm_pb2.SwarmExecutionRequest, waited: Micros) -> None:
    """What remains of a request's time counts from its receipt (rule R17). Where nothing remains, the check says so."""
    if request.context.HasField("time_remaining"):
        remaining = request.context.time_remaining
        fill_time(remaining, max(0, micros(remaining) - waited))


def answer_message(answer: api.SubmitSwarmResponse | Failure, request_id: str) -> api.SubmitSwarmAnswer:
    """One answer among many."""
    if isinstance(answer, Failure):
        return api.SubmitSwarmAnswer(refused=failure_to_proto(public(answer)), request_id=request_id)
    return api.SubmitSwarmAnswer(accepted=answer, request_id=request_id)


def _as_known(swarm: Swarm) -> api.SubmitSwarmResponse:
    return api.SubmitSwarmResponse(
        swarm_id=swarm.swarm_id,
        state=SWARM_STATES.number(swarm.state),
        created=False,
        trace_id=swarm.context.trace_id,
        run_id=swarm.run.run_id if swarm.run is not None else "",
    )
