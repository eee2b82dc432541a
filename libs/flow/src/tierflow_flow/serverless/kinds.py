"""The tasks of the DSL, each with what only it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tierflow_expressions.values import kind_of

from tierflow_flow.serverless.calls import call, run
from tierflow_flow.serverless.compiling import COMMON, Compiler
from tierflow_flow.serverless.events import emit, listen
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.reader import Part

_ERROR: Final = ("type", "status", "instance", "title", "detail")


def do(compiler: Compiler, part: Part, task: Task) -> Task:
    """`do`: tasks one after another."""
    part.only((*COMMON, "do"))
    inner = compiler.list(part.source["do"], (*part.place, "do"), f"{task.pointer}/do", part.names)
    return replace(task, lists={"do": inner})


def set_(compiler: Compiler, part: Part, task: Task) -> Task:
    """`set`: the output, said outright."""
    part.only((*COMMON, "set"))
    if not isinstance(part.source["set"], str | dict):
        part.wrong("set", f"expected an object or an expression, found {kind_of(part.source['set'])}")
    return replace(task, settings={"set": part.value("set", loose=isinstance(part.source["set"], str))})


def wait(compiler: Compiler, part: Part, task: Task) -> Task:
    """`wait`: a duration."""
    part.only((*COMMON, "wait"))
    if part.source["wait"] is None:
        part.wrong("wait", "expected a duration")
    return replace(task, settings={"wait": part.duration("wait")})


def raise_(compiler: Compiler, part: Part, task: Task) -> Task:
    """`raise`: an error, inline or by name."""
    part.only((*COMMON, "raise"))
    raising = part.part("raise")
    raising.only(("error",), required=("error",))
    if isinstance(raising.source.get("error"), str):
        error = compiler.named("errors", raising, "error")
    else:
        error = raising.part("error")
    if error is None:
        return task
    error.only(_ERROR, required=("type", "status"))
    error.number("status")
    return replace(task, settings={"error": {key: error.value(key) for key in _ERROR if key in error}})


def switch(compiler: Compiler, part: Part, task: Task) -> Task:
    """`switch`: the first case that holds says how it goes on."""
    part.only((*COMMON, "switch"))
    cases: list[tuple[str, Any, str]] = []
    for index, item in enumerate(part.items("switch")):
        if not isinstance(item, dict) or len(item) != 1:
            compiler.problems.add((*part.place, "switch", index), "expected an object with one key, the case's name")
            continue
        [(name, source)] = item.items()
        case = Part(source, (*part.place, "switch", index, name), compiler.problems, part.names)
        case.only(("when", "then"), required=("then",))
        cases.append((str(name), case.condition("when"), case.text("then", "continue")))
    if not cases:
        part.wrong("switch", "expected at least one case")
    return replace(task, settings={"cases": tuple(cases)})


def for_(compiler: Compiler, part: Part, task: Task) -> Task:
    """`for`: tasks for each item of a collection, one item after another."""
    part.only((*COMMON, "for", "while", "do"), required=("do",))
    loop = part.part("for")
    loop.only(("each", "in", "at"), required=("in",))
    each, at = loop.text("each", "item"), loop.text("at", "index")
    names = part.names | {each, at}
    condition = Part(part.source, part.place, compiler.problems, names).condition("while")
    inner = compiler.list(part.source.get("do", []), (*part.place, "do"), f"{task.pointer}/do", names)
    settings = {"each": each, "at": at, "in": loop.condition("in"), "while": condition}
    return replace(task, settings=settings, lists={"do": inner})


def fork(compiler: Compiler, part: Part, task: Task) -> Task:
    """`fork`: tasks side by side."""
    part.only((*COMMON, "fork"))
    forked = part.part("fork")
    forked.only(("branches", "compete"), required=("branches",))
    source = forked.source.get("branches", [])
    inner = compiler.list(source, (*forked.place, "branches"), f"{task.pointer}/fork/branches", part.names)
    if not inner and isinstance(source, list) and not source:
        forked.wrong("branches", "expected at least one branch")
    return replace(task, settings={"compete": forked.flag("compete", default=False)}, lists={"branches": inner})


def try_(compiler: Compiler, part: Part, task: Task) -> Task:
    """`try`: tasks whose errors are caught."""
    part.only((*COMMON, "try", "catch"), required=("catch",))
    inner = compiler.list(part.source["try"], (*part.place, "try"), f"{task.pointer}/try", part.names)
    catch = part.part("catch")
    catch.only(("errors", "as", "when", "exceptWhen", "retry", "do"))
    name = catch.text("as", "error")
    names = part.names | {name}
    catching = Part(catch.source, catch.place, compiler.problems, names)
    settings = {
        "as": name,
        "errors": _filter(catching),
        "when": catching.condition("when"),
        "exceptWhen": catching.condition("exceptWhen"),
        "retry": _retry(compiler, catching),
        "handles": "do" in catch,
    }
    handler: tuple[str, ...] = ()
    if "do" in catch:
        handler = compiler.list(catch.source["do"], (*catch.place, "do"), f"{task.pointer}/catch/do", names)
    return replace(task, settings=settings, lists={"try": inner, "catch": handler})


def _filter(catch: Part) -> Mapping[str, Any]:
    if "errors" not in catch:
        return {}
    errors = catch.part("errors")
    errors.only(("with",))
    wanted = errors.part("with")
    wanted.only((*_ERROR, "details"))
    return {"detail" if key == "details" else key: wanted.value(key) for key in wanted.source}


def _retry(compiler: Compiler, catch: Part) -> Mapping[str, Any] | None:
    if "retry" not in catch:
        return None
    named = isinstance(catch.source["retry"], str)
    policy = compiler.named("retries", catch, "retry") if named else catch.part("retry")
    if policy is None:
        return None
    policy.only(("when", "exceptWhen", "delay", "backoff", "limit", "jitter"))
    backoff, limit, jitter = policy.part("backoff"), policy.part("limit"), policy.part("jitter")
    backoff.only(("constant", "exponential", "linear"))
    if len(backoff.source) > 1:
        policy.wrong("backoff", "expected one of constant, exponential, linear")
    limit.only(("attempt", "duration"))
    jitter.only(("from", "to"), required=("from", "to") if "jitter" in policy else ())
    attempt = limit.part("attempt")
    attempt.only(("count", "duration"))
    if "duration" in attempt:
        attempt.unsupported("duration", "the length of one try is bounded by timeout of the tasks in it")
    return {
        "when": policy.condition("when"),
        "exceptWhen": policy.condition("exceptWhen"),
        "delay": policy.duration("delay"),
        "backoff": next(iter(backoff.source), "constant"),
        "count": attempt.number("count"),
        "duration": limit.duration("duration"),
        "jitter": (jitter.duration("from"), jitter.duration("to")) if "jitter" in policy else None,
    }


KINDS: Final[Mapping[str, Callable[[Compiler, Part, Task], Task]]] = {
    "call": call,
    "do": do,
    "emit": emit,
    "for": for_,
    "fork": fork,
    "listen": listen,
    "raise": raise_,
    "run": run,
    "set": set_,
    "switch": switch,
    "try": try_,
    "wait": wait,
}
"""By the key that tells them."""
