"""What failed beyond automatic help, and what is done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from tierflow_contracts.common.v1 import dead_letter_pb2 as pb
from tierflow_contracts.coordinator.v1 import dead_letter_pb2 as api

from tierflow.calls import Calls
from tierflow.errors import invalid


class DeadLetters:
    """Part of `Client`."""

    _calls: Calls

    def dead_letters(
        self, *, states: Iterable[str] = (), swarm_id: str = "", flow: str = "", limit: int | None = 100
    ) -> AsyncIterator[pb.DeadLetter]:
        """Dead letters, newest first; `limit` None gives all. States by name: `OPEN` (the default), `RETRIED`, `DISCARDED`."""
        request = api.ListDeadLettersRequest(
            states=[_state(name) for name in states], swarm_id=swarm_id, flow_name=flow
        )
        return self._calls.pages("ListDeadLetters", request, "letters", limit)

    async def dead_letter(self, letter_id: str) -> pb.DeadLetter:
        """One dead letter. Raises `NotFound`."""
        answer: api.GetDeadLetterResponse = await self._calls.call(
            "GetDeadLetter", api.GetDeadLetterRequest(id=letter_id)
        )
        return answer.letter

    async def retry_dead_letter(self, letter_id: str, reason: str = "") -> str:
        """Submits its run again, as a new swarm, whose id is returned; or publishes its events again (then an empty text). Safe to repeat.

        Raises `NotFound`, and `Conflict` where it was discarded.
        """
        answer: api.RetryDeadLetterResponse = await self._calls.call(
            "RetryDeadLetter", api.RetryDeadLetterRequest(id=letter_id, reason=reason)
        )
        return answer.swarm_id

    async def discard_dead_letter(self, letter_id: str, reason: str) -> pb.DeadLetter:
        """Says that nothing is to be done, and why. Raises `NotFound`, `InvalidRequest` without a reason, and `Conflict` where it was retried."""
        answer: api.DiscardDeadLetterResponse = await self._calls.call(
            "DiscardDeadLetter", api.DiscardDeadLetterRequest(id=letter_id, reason=reason)
        )
        return answer.letter


def _state(name: str) -> pb.DeadLetterState.ValueType:
    prefix = "DEAD_LETTER_STATE_"
    try:
        return pb.DeadLetterState.Value(prefix + name.upper().removeprefix(prefix))
    except ValueError:
        raise invalid("states", f"{name!r} is no state; there are OPEN, RETRIED, DISCARDED") from None
