"""Checks of small requests, and small conversions that the service needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_durable.ids import moment_of
from tierflow_durable.reading import ListFilter
from tierflow_durable.retention import DAY
from tierflow_runtime import wire
from tierflow_runtime.contract import refusal, refuse_if
from tierflow_runtime.contract_basics import (
    LAST_GENERATION,
    LONGEST_TEXT,
    check_not_negative,
    check_text,
    check_uuid,
    sound_duration,
    sound_timestamp,
)
from tierflow_runtime.contract_parts import check_allocation, check_context, check_flow_ref
from tierflow_runtime.security import Caller
from tierflow_runtime.values import Allocation, Context, FailureError, Micros, Violation

from tierflow_orchestrator.link import Link

LONGEST_REASON = 2000
MOST_AHEAD: Micros = 3_600_000_000
"""Microseconds by which the id of a new run may be ahead of the database's clock."""
_PLACE = re.compile(r"[0-9]{1,9}")


def violated(field: str, description: str, operation: str = "") -> FailureError:
    """The error of one breach of the contract."""
    return FailureError(
        refusal([Violation(field=field, description=description)], component="orchestrator", operation=operation)
    )


def valid_id(field: str, text: str) -> str:
    """The id, if it is one. Raises FailureError INVALID_REQUEST."""
    found: list[Violation] = []
    check_uuid(field, text, found, required=True)
    refuse_if(found, "orchestrator")
    return text


def out_of_time(field: str, run_id: str, now: Micros, keep: Micros) -> list[Violation]:
    """What is wrong with the moment in a new run's id (rule R8).

    Older than what is kept, it would be forgotten with its day; far ahead of the clock, it would hold back a day that is still to come. `keep` in microseconds.
    """
    age = now - moment_of(run_id)
    if age > keep:
        description = f"is {age // DAY} days old; new ids are at most {keep // DAY} days old"
    elif -age > MOST_AHEAD:
        description = (
            f"is {-age // 60_000_000} minutes ahead of the clock here; at most {MOST_AHEAD // 60_000_000} are taken"
        )
    else:
        return []
    return [Violation(field=field, description=description)]


def page_size(given: int, default: int, *, most: int = 1000, field: str = "page_size") -> int:
    """The size of a page. Raises FailureError INVALID_REQUEST."""
    if not 0 <= given <= most:
        raise violated(field, f"must be 0 to {most}")
    return given or default


def place(token: str) -> int:
    """The place that a token of a list of steps names. Raises FailureError INVALID_REQUEST."""
    if token and not _PLACE.fullmatch(token):
        raise violated("page_token", "not a token of this list", "list_steps")
    return int(token or 0)


def longest_wait(timeout: Duration) -> float:
    """The seconds for which a caller wants to wait. Raises FailureError INVALID_REQUEST."""
    found: list[Violation] = []
    if sound_duration("timeout", timeout, found):
        check_not_negative("timeout", wire.micros(timeout), found)
    refuse_if(found, "orchestrator")
    return wire.micros(timeout) / 1_000_000


def sound_texts(**texts: str) -> None:
    """Refuses texts that could not be stored. Raises FailureError INVALID_REQUEST."""
    found: list[Violation] = []
    for field, text in texts.items():
        check_text(field, text, found, longest=LONGEST_REASON if field == "reason" else LONGEST_TEXT)
    refuse_if(found, "orchestrator")


def sound_ref(ref: flow_pb2.FlowRef) -> flow_pb2.FlowRef:
    """The reference, if it names a flow or brings one along. Raises FailureError INVALID_REQUEST."""
    found: list[Violation] = []
    check_flow_ref("flow", ref, found)
    refuse_if(found, "orchestrator", "find_flow")
    return ref


def sound_circumstances(request: pb.CheckFlowRequest, caller: Caller) -> tuple[Context, Allocation]:
    """Who would run a flow, and with which limits: as the request says, else the caller without limits. Raises FailureError INVALID_REQUEST."""
    found: list[Violation] = []
    check_context(request.context, found, None)
    check_allocation(request.allocation, found)
    refuse_if(found, "orchestrator", "check_flow")
    if not request.HasField("context"):
        return Context(tenant=caller.tenant, user_id=caller.user_id, roles=caller.roles), Allocation()
    return wire.context_from_proto(request.context), wire.allocation_from_proto(request.allocation)


def sound_acknowledgement(acknowledgement: pb.RunAcknowledgement) -> bool:
    """Whether there can be such a run and generation."""
    found: list[Violation] = []
    check_uuid("run_id", acknowledgement.run_id, found, required=True)
    return not found and acknowledgement.generation <= LAST_GENERATION


def moment(request: Any, field: str) -> int | None:
    """An optional moment of a request, microseconds since the epoch."""
    return wire.micros(getattr(request, field)) if request.HasField(field) else None


def _wrong_with(request: pb.ListRunsRequest) -> list[Violation]:
    found: list[Violation] = []
    for field in ("tenant", "user_id", "flow_name", "trace_id"):
        check_text(field, getattr(request, field), found)
    for key, value in request.labels.items():
        check_text(f"labels[{key[:LONGEST_TEXT]}]", key, found)
        check_text(f"labels[{key[:LONGEST_TEXT]}]", value, found)
    for field in ("swarm_id", "page_token"):
        check_uuid(field, getattr(request, field), found)
    for field in ("created_after", "created_before"):
        sound_timestamp(field, getattr(request, field), found)
    unknown = [index for index, state in enumerate(request.states) if not wire.RUN_STATES.knows(state)]
    found.extend(Violation(field=f"states[{index}]", description="is not a state") for index in unknown)
    if not 0 <= request.page_size <= 1000:
        found.append(Violation(field="page_size", description="must be 0 to 1000"))
    return found


def list_filter(request: pb.ListRunsRequest, tenant: str) -> ListFilter:
    """The filter of a list of runs. Raises FailureError INVALID_REQUEST with everything that is wrong."""
    refuse_if(_wrong_with(request), "orchestrator", "list_runs")
    return ListFilter(
        tenant=tenant,
        user_id=request.user_id or None,
        parent_id=request.swarm_id or None,
        states=tuple(wire.RUN_STATES.name(state) for state in request.states),
        name=request.flow_name or None,
        labels=dict(request.labels),
        created_after=moment(request, "created_after"),
        created_before=moment(request, "created_before"),
        trace_id=request.trace_id or None,
        before_id=request.page_token or None,
        limit=request.page_size or 100,
    )


def schema_json(schema: Mapping[str, Any] | None) -> str:
    """A JSON Schema as text; empty where there is none."""
    return "" if schema is None else msgspec.json.encode(schema).decode()


def shown_link(link: Link) -> pb.ConnectedExecutor:
    """An executor as it is shown."""
    shown = pb.ConnectedExecutor(hello=link.hello, address=link.address, slots_used=link.used, draining=link.draining)
    if link.lost_since is not None:
        shown.lost_since.GetCurrentTime()
    return shown
