"""What is allowed and looks wrong all the same: each suspicion has a name, by which a comment can silence it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import PlainScope
from tierflow_expressions.templates import CompiledTemplate
from tierflow_flow import Flow, StepSpec

from tierflow_kit import spoken
from tierflow_kit.blocks import around, every_step, holder, rescuers, text_paths
from tierflow_kit.reading_flows import names_read, steps_read


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something suspicious at a place."""

    code: str
    severity: str
    path: str
    message: str
    hint: str = ""


DEFAULT_TIMEOUT = 30_000_000

Check = Callable[[Flow, Mapping[str, Any]], Iterator[Suspicion]]
"""Takes the flow and its text as plain values."""


def suspicions(flow: Flow, document: Mapping[str, Any]) -> list[Suspicion]:
    """Everything suspicious. Of documents that are walked task by task nothing is suspected: what they need is not in their steps."""
    if flow.program is not None:
        return []
    return [found for check in _CHECKS for found in check(flow, document)]


def _unused_output(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    read, paths, called_for = steps_read(flow), text_paths(document), rescuers(flow)
    for spec in every_step(flow):
        used = read.get(spec.id, set()) & {"*", "output"}
        last = not used and not flow.dependants[spec.id] and spec.id not in called_for
        if spec.handler and last and not spec.side_effecting and not _yielded(flow, spec):
            yield Suspicion(
                "unused-output",
                "note",
                paths.get(spec.id, ""),
                f"nothing needs {spec.local}, and nobody reads its output",
                "where it is called for what it does, say side_effecting: true",
            )


def _yielded(flow: Flow, spec: StepSpec) -> bool:
    """Whether its output is part of what its block yields, as its block does not say what that is."""
    block = flow.by_id[holder(spec.id)].block if holder(spec.id) else None
    return (block.output if block is not None else flow.output) is None


def _unguarded_side_effect(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    for spec in every_step(flow):
        if spec.side_effecting and not spec.on_lost and spec.undo is None:
            yield Suspicion(
                "unguarded-side-effect",
                "warning",
                f"{paths.get(spec.id, '')}.side_effecting",
                f"repeating {spec.id} does harm, and nothing says what to do when its executor is lost: the run will wait for an operator",
                "say on_lost: ask, fail, or retry (where the handler heeds its idempotency key)",
            )


def _endless_wait(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    for spec in every_step(flow):
        if spec.kind in ("signal", "approval") and _longest_wait(spec) is None and not _bounded(flow, spec):
            yield Suspicion(
                "endless-wait",
                "warning",
                f"{paths.get(spec.id, '')}.{spec.kind}",
                f"{spec.id} may wait for ever",
                "give it a timeout, or the flow",
            )


def _bounded(flow: Flow, spec: StepSpec) -> bool:
    """Whether what it is part of has a timeout."""
    return flow.run_timeout is not None or any(flow.by_id[step_id].timeout is not None for step_id in around(spec.id))


def _longest_wait(spec: StepSpec) -> Any:
    """How long a step waits at most; None for ever."""
    asked = spec.settings.get("approval")
    return asked.get("timeout") if isinstance(asked, dict) else spec.settings.get("timeout", spec.timeout)


def _default_timeout(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    defaults = document.get("defaults")
    if isinstance(defaults, dict) and "timeout" in defaults:
        return
    paths = text_paths(document)
    for spec in every_step(flow):
        if spec.handler and spec.kind != "flow" and spec.timeout is None:
            yield Suspicion(
                "default-timeout",
                "note",
                f"{paths.get(spec.id, '')}.call",
                f"an attempt at {spec.id} is stopped after what its handler declares, else 30 s",
                "say timeout here, or under defaults",
            )
            return  # one such note says it all


def _never_runs(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    hopeless: dict[str, str] = {}
    for spec in _in_order(flow):
        why = _hopeless(flow, spec, hopeless)
        if why:
            hopeless[spec.id] = why
            key = "if" if "condition" in why else "needs"
            yield Suspicion("never-runs", "warning", f"{paths.get(spec.id, '')}.{key}", f"{spec.id} never runs: {why}")


def _in_order(flow: Flow) -> Iterator[StepSpec]:
    """The steps, each after what it needs."""
    waiting = {spec.id: len(spec.needs) for spec in every_step(flow)}
    ready = [step_id for step_id, count in waiting.items() if not count]
    for step_id in ready:
        yield flow.by_id[step_id]
        for other in flow.dependants[step_id]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)


def _hopeless(flow: Flow, spec: StepSpec, hopeless: Mapping[str, str]) -> str:
    """Why a step can never run; empty where it may."""
    if _always(spec) is False:
        return "its condition is false"
    if spec.always or spec.join is not None:
        return ""
    for need in spec.needs:
        other = flow.by_id[need]
        if need in hopeless:
            return f"it needs {need}, which never runs"
        if other.kind == "fail" and other.on_error != "continue":
            return f"it needs {need}, which always fails"
    return ""


def _always(spec: StepSpec) -> bool | None:
    """What a condition is that looks nothing up; None where it depends on something, or there is none."""
    template = spec.condition
    if not isinstance(template, CompiledTemplate):
        return None
    if any(expression.references or expression.status for expression in template.expressions):
        return None
    try:
        return template.resolve(PlainScope({})) is True
    except ExpressionError:
        return False


def _constant_condition(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    for spec in every_step(flow):
        if _always(spec):
            yield Suspicion(
                "constant-condition",
                "warning",
                f"{paths.get(spec.id, '')}.if",
                f"the condition of {spec.id} is always true",
            )


def _unused_names(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    properties = flow.input_schema.get("properties", {}) if flow.input_schema else {}
    nested = isinstance(document.get("input"), dict) and document["input"].get("properties") is not None
    for name, declared, where in (
        ("input", properties, "input.properties" if nested else "input"),
        ("vars", flow.vars, "vars"),
        ("env", flow.env, "env"),
        ("secrets", _listed(document.get("secrets")), "secrets"),
    ):
        read = names_read(flow, name)
        if read is None:
            continue
        for index, each in enumerate(declared):
            if each not in read:
                path = f"{name}[{index}]" if name in ("env", "secrets") else f"{where}.{each}"
                yield Suspicion(f"unused-{name}", "warning", path, f"no expression reads {name}.{each}")


def _listed(names: Any) -> list[str]:
    """A list of names, of which one may stand alone."""
    return [names] if isinstance(names, str) else list(names or ())


def _unbounded_map(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    if flow.concurrency is not None:
        return
    paths = text_paths(document)
    for spec in every_step(flow):
        if spec.kind in ("map", "map_block") and spec.concurrency is None and "concurrency" not in spec.settings:
            yield Suspicion(
                "unbounded-map",
                "note",
                f"{paths.get(spec.id, '')}.map",
                f"all items of {spec.id} run at once, as far as there are slots",
                "say concurrency where the other side has limits",
            )


def _beyond_run(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths, most = text_paths(document), flow.run_timeout
    for spec in every_step(flow):
        timeout = spec.timeout if spec.timeout is not None else spec.settings.get("timeout")
        if timeout is not None and most is not None and timeout > most:
            message = f"{spec.local} may take {spoken.duration(timeout)}, the whole run only {spoken.duration(most)}"
            yield Suspicion("timeout-beyond-run", "warning", f"{paths.get(spec.id, '')}.timeout", message)


def _idle_heartbeat(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    for spec in every_step(flow):
        longest = spec.timeout or flow.timeout or DEFAULT_TIMEOUT
        if spec.handler and spec.heartbeat_timeout is not None and spec.heartbeat_timeout >= longest:
            message = f"the heartbeat timeout of {spec.local} is no shorter than its timeout: it has no effect"
            yield Suspicion("idle-heartbeat", "warning", f"{paths.get(spec.id, '')}.heartbeat_timeout", message)


def _hasty_loop(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    paths = text_paths(document)
    for spec in every_step(flow):
        loop = spec.settings.get("loop", {})
        if "until" in loop and "delay" not in loop and "for" not in loop:
            message = f"{spec.local} begins its next iteration at once, until it is over"
            hint = "say delay, and factor, where it asks for something that takes time"
            yield Suspicion("hasty-loop", "note", f"{paths.get(spec.id, '')}.loop", message, hint)


_OTHER_BRACES = re.compile(r"(?<!\$)\{\{[^{}]+\}\}|\$\{(?!\{)[^{}]+\}")


def _other_braces(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    for path, _, text in _texts({name: document.get(name) for name in ("steps", "output")}):
        if (found := _OTHER_BRACES.search(text)) is not None and not _is_program(path):
            message = f"{found[0][:60]} is plain text here"
            yield Suspicion("other-braces", "warning", path, message, "an expression is ${{ ... }}")


def _is_program(path: str) -> bool:
    """Whether it is a text in a language of its own, such as a shell's."""
    return path.endswith((".command", ".script", ".code")) or ".command[" in path


def _undeclared_input(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    read = names_read(flow, "input")
    if flow.input_schema is None and read:
        message = f"expressions read input.{', input.'.join(sorted(read))}, and the flow does not say what it takes"
        hint = "say it under input: then every run is checked before its first step"
        yield Suspicion("undeclared-input", "warning", "name", message, hint)


_SECRET_KEYS = re.compile(r"(password|passwd|secret|token|api[_-]?key|private[_-]?key|authorization)$", re.IGNORECASE)
_SECRET_TEXTS = re.compile(
    r"^(Bearer|Basic)\s+\S{12,}|^sk-[\w-]{16,}|^gh[pousr]_\w{20,}|^AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def _literal_secret(flow: Flow, document: Mapping[str, Any]) -> Iterator[Suspicion]:
    for path, key, text in _texts({name: document.get(name) for name in ("vars", "steps", "defaults")}):
        if "${{" not in text and _looks_secret(key, text):
            yield Suspicion(
                "literal-secret",
                "warning",
                path,
                f"{key or 'this'} looks like a secret, written into a flow that everybody can read",
                "name it under secrets, and write ${{ secrets.NAME }}",
            )


def _texts(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every string with its path and its key."""
    waiting: list[tuple[str, str, Any]] = [("", "", document)]
    while waiting:
        path, key, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((f"{path}.{name}" if path else name, name, item) for name, item in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{path}[{index}]", key, item) for index, item in enumerate(value))
        elif isinstance(value, str):
            yield path, key, value


def _looks_secret(key: str, value: str) -> bool:
    return bool(_SECRET_TEXTS.search(value)) or (len(value) >= 6 and bool(_SECRET_KEYS.search(key)))


_CHECKS: tuple[Check, ...] = (
    _never_runs,
    _constant_condition,
    _endless_wait,
    _unguarded_side_effect,
    _beyond_run,
    _idle_heartbeat,
    _literal_secret,
    _other_braces,
    _undeclared_input,
    _unused_names,
    _unused_output,
    _unbounded_map,
    _hasty_loop,
    _default_timeout,
)
