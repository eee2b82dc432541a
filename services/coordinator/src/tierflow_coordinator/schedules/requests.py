"""From a firing to the request for its swarm: the same firing gives the same bytes, so that asking again finds the swarm that was made (rule R8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_runtime import requests as builder
from tierflow_runtime.payloads import payload_from_proto
from tierflow_runtime.security import Caller
from tierflow_runtime.values import Violation

from tierflow_coordinator.core.schedules.firing import Firing, request_id
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.times import local, text_of

LABEL: Final = "tierflow.schedule"
"""The label by which a schedule's swarms are found: its name."""
NAMES: Final = ("time", "local_time", "date", "previous", "id", "kind", "name")
_HOLE: Final = re.compile(r"\$\{\{\s*schedule\.(\w+)\s*\}\}")


def caller_of(schedule: Schedule) -> Caller:
    """As whom its swarms are made."""
    return Caller(schedule.tenant, schedule.user_id, schedule.roles)


def labels_of(schedule: Schedule) -> dict[str, str]:
    """The labels that the engine gives its swarms."""
    return {LABEL: schedule.name}


def swarm_request(schedule: Schedule, firing: Firing) -> swarm_pb2.SwarmExecutionRequest:
    """The request for a firing's swarm."""
    spec = schedule.specs.get(firing.version, schedule.spec)
    request = template_request(pb.SwarmTemplate.FromString(spec.swarm), values_of(schedule, firing))
    request.context.request_id = request_id(schedule.schedule_id, firing.firing_id)
    return request


def template_request(template: pb.SwarmTemplate, values: Mapping[str, str | None]) -> swarm_pb2.SwarmExecutionRequest:
    """The request that a template gives for one firing."""
    plan = swarm_pb2.FlowPlan(flow=template.flow)
    if template.HasField("input"):
        plan.input.CopyFrom(template.input)
        given = payload_from_proto(template.input)
        if isinstance(given, str) and "${{" in given:
            plan.input.Clear()
            plan.input.json = orjson.dumps(_filled(orjson.loads(given), values)).decode()
    else:
        plan.input.json = "{}"
    request = builder.swarm_request(
        swarm_pb2.SwarmInput(flow=plan),
        allocation=template.allocation if template.HasField("allocation") else None,
        options=template.options if template.HasField("options") else None,
    )
    request.context.correlation_id = template.correlation_id
    request.context.labels.update(template.labels)
    return request


def values_of(schedule: Schedule, firing: Firing) -> dict[str, str | None]:
    """What `${{ schedule.NAME }}` stands for."""
    here = local(firing.time, schedule.specs.get(firing.version, schedule.spec).time_zone)
    return {
        "time": text_of(firing.time),
        "local_time": here.isoformat(),
        "date": here.date().isoformat(),
        "previous": None if firing.previous is None else text_of(firing.previous),
        "id": firing.firing_id,
        "kind": firing.kind.lower(),
        "name": schedule.name,
    }


def check_holes(template: pb.SwarmTemplate, path: str, found: list[Violation]) -> None:
    """Finds names that stand for nothing."""
    given = payload_from_proto(template.input) if template.HasField("input") else None
    if not isinstance(given, str) or "${{" not in given:
        return
    try:
        value = orjson.loads(given)
    except orjson.JSONDecodeError:
        return  # Said elsewhere.
    unknown = {name for text in _texts(value) for name in _HOLE.findall(text)} - set(NAMES)
    found.extend(
        Violation(field=path, description=f"schedule.{name} stands for nothing; there are {', '.join(NAMES)}")
        for name in sorted(unknown)
    )


def _filled(value: Any, values: Mapping[str, str | None]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if not isinstance(value, str):
        return value
    whole = _HOLE.fullmatch(value)
    if whole is not None:
        return values.get(whole[1])
    return _HOLE.sub(lambda hole: values.get(hole[1]) or "", value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
