"""What a client may ask of lists, checked, in the durable library's terms."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_durable.reading import ListFilter
from tierflow_runtime.contract import refuse_if
from tierflow_runtime.contract_basics import (
    LONGEST_TEXT,
    check_not_negative,
    check_text,
    sound_duration,
    sound_timestamp,
)
from tierflow_runtime.values import Violation
from tierflow_runtime.wire import SWARM_STATES, micros

_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_REASON: Final = 2000


def limit_of(field: str, asked: int, *, default: int, most: int) -> int:
    """How many rows to bring.

    Raises:
        FailureError: INVALID_REQUEST.
    """
    if not 0 <= asked <= most:
        refuse_if([Violation(field=field, description=f"is {asked}; 1 to {most} are allowed, 0 is {default}")])
    return asked or default


def filter_of(request: api.ListSwarmsRequest, tenant: str, user: str | None) -> ListFilter:
    """The filter of a list of swarms.

    Raises:
        FailureError: INVALID_REQUEST, with everything that is wrong.
    """
    refuse_if(_wrong_with(request), "listing", "ListSwarms")
    return ListFilter(
        tenant=tenant,
        user_id=user,
        states=tuple(SWARM_STATES.name(state) for state in request.states),
        name=request.flow_name or None,
        labels=dict(request.labels),
        created_after=micros(request.created_after) if request.HasField("created_after") else None,
        created_before=micros(request.created_before) if request.HasField("created_before") else None,
        trace_id=request.trace_id or None,
        before_id=request.page_token or None,
        limit=request.page_size or 100,
    )


def _wrong_with(request: api.ListSwarmsRequest) -> list[Violation]:
    found: list[Violation] = []
    if not 0 <= request.page_size <= 1000:
        found.append(Violation(field="page_size", description=f"is {request.page_size}; 1 to 1000 are allowed"))
    if request.page_token and not _ID.fullmatch(request.page_token):
        found.append(Violation(field="page_token", description="was not given by a page before"))
    if request.trace_id and not _TRACE.fullmatch(request.trace_id):
        found.append(Violation(field="trace_id", description="is not 32 hex digits"))
    _check_states(request, found)
    check_text("flow_name", request.flow_name, found)
    for key, value in request.labels.items():
        check_text(f"labels[{key[:LONGEST_TEXT]}]", key, found)
        check_text(f"labels[{key[:LONGEST_TEXT]}]", value, found)
    for field in ("created_after", "created_before"):
        sound_timestamp(field, getattr(request, field), found)
    return found


def _check_states(request: api.ListSwarmsRequest, found: list[Violation]) -> None:
    unknown = [index for index, state in enumerate(request.states) if not SWARM_STATES.knows(state)]
    found.extend(Violation(field=f"states[{index}]", description="is not a state") for index in unknown)


def longest_wait(timeout: Duration) -> float:
    """The seconds for which a caller wants to wait.

    Raises:
        FailureError: INVALID_REQUEST.
    """
    found: list[Violation] = []
    if sound_duration("timeout", timeout, found):
        check_not_negative("timeout", micros(timeout), found)
    refuse_if(found, "service", "WaitSwarm")
    return micros(timeout) / 1_000_000


def check_texts(**texts: str) -> None:
    """Refuses texts that could not be stored.

    Raises:
        FailureError: INVALID_REQUEST.
    """
    found: list[Violation] = []
    for field, text in texts.items():
        check_text(field, text, found, longest=_LONGEST_REASON if field == "reason" else LONGEST_TEXT)
    refuse_if(found, "service", "check")
