"""Flows within flows: to a bounded depth, and none within itself (E12). Looked at when a flow is checked or registered, and again when it runs."""

from __future__ import annotations

from typing import Final

from tierflow_contracts.common.v1 import flow_pb2
from tierflow_flow import Flow
from tierflow_flow.flow_keys import reference_parts
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Context, Failure, FailureError

from tierflow_orchestrator.flows import Flows
from tierflow_orchestrator.prerequisites import Unmet

MOST_NESTED: Final = 16
"""Levels of runs within runs."""

MOST_LOOKED_AT: Final = 200
"""Flows that are looked at when one is checked."""


def nested_wrongly(flow: Flow, context: Context) -> Failure | None:
    """Why a run that a step asks for may not begin: it is within a run of its own flow, or nested too deeply."""
    path = " -> ".join((*context.ancestors, flow.name))
    if flow.name in context.ancestors:
        message = f"flow {flow.name} would run within itself: {path}"
    elif len(context.ancestors) >= MOST_NESTED:
        message = f"runs are nested to {MOST_NESTED} levels at most: {path}"
    else:
        return None
    return failure("FLOW_INVALID", message, component="orchestrator", operation="start_run")


async def look_into(flow: Flow, flows: Flows, tenant: str) -> list[Unmet]:
    """What is wrong with the flows that a flow runs, and those that they run: not registered, in a circle, too deep. Raises FailureError DATABASE_UNAVAILABLE."""
    found: list[Unmet] = []
    pending: list[tuple[Flow, tuple[str, ...], str]] = [(flow, (flow.name,), "")]
    seen: set[str] = set()
    while pending and len(seen) < MOST_LOOKED_AT:
        outer, path, field = pending.pop()
        for spec in outer.by_id.values():
            if spec.kind == "flow":
                where = field or f"steps.{spec.id}.flow"
                inner, wrong = await _inner(flows, tenant, spec.settings["flow"], path)
                found += _unmet(inner, wrong, where, direct=outer is flow)
                if inner is not None and not wrong and inner.hash not in seen:
                    seen.add(inner.hash)
                    pending.append((inner, (*path, inner.name), where))
    return list(dict.fromkeys(found))


def _unmet(inner: Flow | None, wrong: str, where: str, *, direct: bool) -> list[Unmet]:
    if not wrong:
        return []
    if inner is not None:
        return [Unmet("FLOW_INVALID", where, wrong, "break the circle")]
    return [Unmet("FLOW_NOT_FOUND", where, wrong, "register it, or correct the reference", direct)]


async def _inner(flows: Flows, tenant: str, reference: str, path: tuple[str, ...]) -> tuple[Flow | None, str]:
    name, version, digest = reference_parts(reference)
    try:
        inner = await flows.find(tenant, flow_pb2.FlowRef(name=name, version=version, hash=digest))
    except FailureError as error:
        if error.failure.code != "FLOW_NOT_FOUND":
            raise
        return None, f"there is no flow {reference}"
    shown = " -> ".join((*path, inner.name))
    if inner.name in path:
        return inner, f"flow {inner.name} would run within itself: {shown}"
    if len(path) >= MOST_NESTED:
        return inner, f"flows are nested to {MOST_NESTED} levels at most: {shown}"
    return inner, ""
