"""Dead letters as messages, and events of theirs published again."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tierflow_contracts.common.v1 import dead_letter_pb2 as pb
from tierflow_runtime.errors import failure, public
from tierflow_runtime.values import FailureError
from tierflow_runtime.wire import failure_to_proto

from tierflow_durable.dead_letters import EVENTS, Letter
from tierflow_durable.departed import Publisher, is_final, send_all
from tierflow_durable.packing import messages_of_row

PATIENCE: Final = 5.0
"""Seconds for which an acknowledgement is waited for."""
_PREFIX: Final = "DEAD_LETTER_STATE_"


def letter_message(letter: Letter) -> pb.DeadLetter:
    """A letter as it is shown, without internals (F29)."""
    message = pb.DeadLetter(
        id=letter.id,
        kind=pb.DeadLetterKind.Value(f"DEAD_LETTER_KIND_{letter.kind}"),
        state=pb.DeadLetterState.Value(_PREFIX + letter.state),
        tenant=letter.tenant,
        user_id=letter.user_id,
        swarm_id=letter.swarm_id,
        run_id=letter.entity_id if letter.entity_id != letter.swarm_id else "",
        generation=letter.generation,
        flow_name=letter.name,
        flow_version=letter.version,
        trace_id=letter.trace_id,
        failure=failure_to_proto(public(letter.failure)),
        payload_ref=_where(letter),
        actor=letter.actor,
        reason=letter.reason,
        retried_as=letter.retried_as,
    )
    message.created_at.FromMicroseconds(letter.created_at)
    if letter.resolved_at is not None:
        message.resolved_at.FromMicroseconds(letter.resolved_at)
    return message


def _where(letter: Letter) -> str:
    if letter.kind == EVENTS:
        return f"journal/{letter.entity_id}/{letter.first_seq}-{letter.last_seq}"
    return f"run/{letter.entity_id}/input"


def state_name(number: int) -> str:
    """The short name of a state. Raises ValueError for one that is none."""
    name = pb.DeadLetterState.Name(number)  # type: ignore[arg-type]
    if number == pb.DEAD_LETTER_STATE_UNSPECIFIED:
        raise ValueError(name)
    return name.removeprefix(_PREFIX)


async def publish_again(rows: list[Any], kind: str, publisher: Publisher | None) -> None:
    """Publishes events from the journal once more.

    Args:
        rows: Journal rows with the columns of their entity.
        kind: `swarm` or `run`.
        publisher: The way to JetStream.

    Raises:
        FailureError: EVENTS_UNAVAILABLE where JetStream does not answer, STATE_CONFLICT where it refuses them again, NOT_FOUND where they are gone.
    """
    if not rows:
        raise _failed("NOT_FOUND", "The events are gone: their execution has been forgotten. Discard the letter.")
    if publisher is None or not publisher.connected:
        raise _failed("EVENTS_UNAVAILABLE", "There is no connection to the event stream; try again.")
    messages = [message for row in rows for message in messages_of_row(kind, row, str(row["instance"]))]
    try:
        answers = await asyncio.wait_for(send_all(publisher, messages), PATIENCE)
    except TimeoutError:
        raise _failed("EVENTS_UNAVAILABLE", "The event stream does not answer; try again.") from None
    for answer in answers:
        if isinstance(answer, FailureError):
            text = f"The event stream refuses the events again: {answer.failure.message}"
            raise _failed("STATE_CONFLICT" if is_final(answer) else "EVENTS_UNAVAILABLE", text) from answer


def _failed(code: str, message: str) -> FailureError:
    return FailureError(failure(code, message, component="durable", operation="publish_again"))
