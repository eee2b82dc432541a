"""Tasks that publish events, and tasks that wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tierflow_expressions.values import kind_of

from tierflow_flow.problems import Place
from tierflow_flow.serverless.compiling import COMMON, Compiler
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.reader import Part


def emit(compiler: Compiler, part: Part, task: Task) -> Task:
    """`emit`: a CloudEvent."""
    part.only((*COMMON, "emit"))
    emitting = part.part("emit")
    emitting.only(("event",), required=("event",))
    event = emitting.part("event")
    event.only(("with",), required=("with",))
    attributes = event.part("with")
    for name in ("source", "type"):
        if name not in attributes:
            attributes.wrong("", f"{name} is missing")
    return replace(task, settings={"event": event.value("with")})


def listen(compiler: Compiler, part: Part, task: Task) -> Task:
    """`listen`: events from outside."""
    part.only((*COMMON, "listen", "foreach"))
    listening = part.part("listen")
    listening.only(("to", "read"), required=("to",))
    settings: dict[str, Any] = {
        "read": listening.one_of("read", ("data", "envelope", "raw"), "data"),
        **strategy(compiler, listening.part("to")),
    }
    lists: dict[str, tuple[str, ...]] = {}
    if "foreach" in part:
        loop = part.part("foreach")
        loop.only(("item", "at", "do", "output", "export"))
        for key in ("output", "export"):
            if key in loop:
                loop.unsupported(key, "write output and export at the tasks of the loop")
        item, at = loop.text("item", "item"), loop.text("at", "index")
        settings["foreach"] = (item, at)
        names = part.names | {item, at}
        lists["do"] = compiler.list(loop.source.get("do", []), (*loop.place, "do"), f"{task.pointer}/foreach/do", names)
    return replace(task, settings=settings, lists=lists)


def strategy(compiler: Compiler, part: Part) -> dict[str, Any]:
    """`one`, `any` or `all` of some events; `until` with `any`."""
    part.only(("one", "any", "all", "until"))
    modes = [mode for mode in ("one", "any", "all") if mode in part]
    if len(modes) != 1:
        part.wrong("", "expected one of one, any, all")
        return {"mode": "any", "filters": (), "until": None, "until_events": None}
    mode = modes[0]
    if mode == "one":
        filters = [event_filter(part.part("one"))]
    else:
        filters = [_listed(compiler, part, item, (*part.place, mode, i)) for i, item in enumerate(part.items(mode))]
    if "until" in part and mode != "any":
        part.wrong("until", "belongs to any")
    return {"mode": mode, "filters": tuple(filters), **_until(compiler, part)}


def _until(compiler: Compiler, part: Part) -> dict[str, Any]:
    """What ends the listening: a condition, events, or nothing at all."""
    source = part.source.get("until")
    condition = part.condition("until") if source is not False and not isinstance(source, dict) else None
    events = strategy(compiler, part.part("until")) if isinstance(source, dict) else None
    return {"until": condition, "until_events": events, "forever": source is False}


def _listed(compiler: Compiler, part: Part, item: Any, place: Place) -> Mapping[str, Any]:
    return event_filter(Part(item, place, compiler.problems, part.names))


def event_filter(part: Part) -> Mapping[str, Any]:
    """What an event must be like."""
    part.only(("with", "correlate"), required=("with",))
    correlate = part.part("correlate")
    keys = {}
    for name in correlate.source:
        key = correlate.part(name)
        key.only(("from", "expect"), required=("from",))
        keys[name] = (key.condition("from"), key.value("expect"))
    wanted = part.part("with")
    if not isinstance(wanted.source.get("type", ""), str):
        wanted.wrong("type", f"expected a string, found {kind_of(wanted.source['type'])}")
    return {"with": {name: wanted.value(name) for name in wanted.source}, "correlate": keys}
