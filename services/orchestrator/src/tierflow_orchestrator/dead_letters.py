"""Runs that failed beyond automatic help (K4): their letters are written, listed, and resolved."""

from __future__ import annotations

from typing import Any

from tierflow_contracts.orchestrator.v1 import dead_letter_pb2 as pb
from tierflow_durable.dead_letters import COMPENSATION, DEAD_LETTER, EVENTS, RETRIED, RUN, Letter, LetterFilter
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_durable.letters import letter_message, publish_again, state_name
from tierflow_runtime.errors import failure
from tierflow_runtime.security import caller_of

from tierflow_orchestrator.checks import page_size, sound_texts, valid_id, violated
from tierflow_orchestrator.core.run import Run

_UNKNOWN = failure("INTERNAL", "the run failed; no reason was stored")


def letter_of(run: Run, letter_id: str) -> Letter:
    """The letter about an ended run."""
    context = run.context
    cause = run.failure or _UNKNOWN
    return Letter(
        id=letter_id,
        kind=COMPENSATION if cause.code == "COMPENSATION_FAILED" else RUN,
        tenant=context.tenant,
        user_id=context.user_id,
        entity_id=run.id,
        generation=run.generation,
        swarm_id=context.swarm_id,
        name=run.flow_name,
        version=run.flow_version,
        trace_id=context.trace_id,
        failure=cause,
    )


class Letters:
    """Writes letters about runs of this tier."""

    def __init__(self, durable: Durable) -> None:
        self._durable = durable

    def ended(self, run: Run) -> None:
        """A run's end is committed."""
        if run.reason == DEAD_LETTER and run.state == "FAILED":
            letter = letter_of(run, uuid7(self._durable.clock.now()))
            self._durable.host.spawn(self._durable.dead_letters.note(letter))

    async def note(self, run_id: str) -> None:
        """Writes the letter of an ended run that should have one."""
        run: Run = await self._durable.reader.view(run_id, lambda run: run)
        if run.reason == DEAD_LETTER and run.state == "FAILED":
            await self._durable.dead_letters.note(letter_of(run, uuid7(self._durable.clock.now())))


class DeadLetters:
    """Part of the orchestrator's service. Any replica answers."""

    _durable: Durable

    async def ListRunDeadLetters(  # noqa: N802 - named by the proto
        self, request: pb.ListRunDeadLettersRequest, context: Any
    ) -> pb.ListRunDeadLettersResponse:
        """See the proto."""
        for name in ("id", "swarm_id", "before_id"):
            if getattr(request, name):
                valid_id(name, getattr(request, name))
        sound_texts(user_id=request.user_id, flow_name=request.flow_name)
        given = {name: getattr(request, name) or None for name in ("user_id", "swarm_id", "before_id", "id")}
        wanted = LetterFilter(
            tenant=request.tenant or caller_of(context).tenant,
            name=request.flow_name or None,
            states=tuple(_state(number) for number in request.states),
            limit=page_size(request.page_size, 100),
            **given,
        )
        letters = await self._durable.dead_letters.page(wanted)
        return pb.ListRunDeadLettersResponse(letters=[letter_message(one) for one in letters])

    async def ResolveRunDeadLetter(  # noqa: N802
        self, request: pb.ResolveRunDeadLetterRequest, context: Any
    ) -> pb.ResolveRunDeadLetterResponse:
        """See the proto."""
        valid_id("id", request.id)
        sound_texts(actor=request.actor, reason=request.reason)
        caller = caller_of(context)
        state, letters = _state(request.state), self._durable.dead_letters
        tenant = request.tenant or caller.tenant
        letter = await letters.find(request.id, tenant)
        if letter.kind == EVENTS and state == RETRIED and letter.state != RETRIED:
            await publish_again(await letters.rows_of(letter), "run", self._durable.publisher)
        done = await letters.resolve(
            request.id,
            tenant,
            state,
            actor=request.actor or caller.user_id,
            reason=request.reason,
            retried_as=request.retried_as,
        )
        return pb.ResolveRunDeadLetterResponse(letter=letter_message(done))


def _state(number: int) -> str:
    try:
        return state_name(number)
    except ValueError:
        raise violated("states", f"{number} is no state", "dead_letters") from None
