"""What was expected beside what came: every difference, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tierflow_expressions.scope import show_path
from tierflow_runtime.values import Failure

from tierflow_kit import spoken
from tierflow_kit.report import Report, StepReport

MOST = 20


def differences(expect: Mapping[str, Any], report: Report) -> list[str]:
    """Everything that is not as expected; an empty list where all is. `expect` is in the normal form of `case_keys.EXPECT`."""
    found = [text for name, wanted in expect.items() for text in _CHECKS[name](wanted, report)]
    return found if len(found) <= MOST else [*found[:MOST], f"and {len(found) - MOST} more"]


def _said(where: str, wanted: Any, found: Any) -> str:
    return f"{where}: expected {spoken.value(wanted)}, found {spoken.value(found)}"


def _state(wanted: str, report: Report) -> Iterator[str]:
    if wanted != report.state:
        why = _why(report)
        yield f"state: expected {wanted}, found {report.state}{f' ({why})' if why else ''}"


def _why(report: Report) -> str:
    if report.failure is not None:
        return shown(report.failure)
    waiting = [
        f"{step.id} waits: {step.reason}" for step in report.steps.values() if step.state == "RUNNING" and step.reason
    ]
    return "; ".join(waiting) or report.reason


def shown(failure: Failure) -> str:
    """A failure with its causes, on one line."""
    step = f"{failure.step_id}: " if failure.step_id else ""
    cause = f", because {shown(failure.cause)}" if failure.cause is not None else ""
    return f"{step}{failure.code}: {failure.message}{cause}"


def _plain(name: str) -> Callable[[Any, Report], Iterator[str]]:
    def check(wanted: Any, report: Report) -> Iterator[str]:
        found = getattr(report, name)
        if wanted != found:
            yield _said(name, wanted, found)

    return check


def compare(
    wanted: Any, found: Any, name: str, *, all_keys: bool = True, path: tuple[str | int, ...] = ()
) -> Iterator[str]:
    """Where two JSON values differ. With `all_keys=False`, objects may have keys more than those that are wanted."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        yield from _compare_objects(wanted, found, name, all_keys=all_keys, path=path)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from compare(one, other, name, all_keys=all_keys, path=(*path, index))
    elif wanted != found or (type(wanted) is bool) != (type(found) is bool):
        yield _said(show_path(name, path), wanted, found)


def _compare_objects(
    wanted: dict[str, Any], found: dict[str, Any], name: str, *, all_keys: bool, path: tuple[str | int, ...]
) -> Iterator[str]:
    for key, value in wanted.items():
        if key not in found:
            yield f"{show_path(name, (*path, key))}: expected {spoken.value(value)}, not there"
        else:
            yield from compare(value, found[key], name, all_keys=all_keys, path=(*path, key))
    for key, value in found.items():
        if all_keys and key not in wanted:
            yield f"{show_path(name, (*path, key))}: not expected, found {spoken.value(value)}"


def _output(wanted: Any, report: Report) -> Iterator[str]:
    return compare(wanted, report.output, "output")


def _output_has(wanted: Any, report: Report) -> Iterator[str]:
    return compare(wanted, report.output, "output", all_keys=False)


def _failure(wanted: Mapping[str, Any], found: Failure | None, where: str) -> Iterator[str]:
    """A failure and its causes count: what somebody expects may be any of them."""
    if found is None:
        yield f"{where}: expected {wanted.get('code', 'one')}, found none"
        return
    all_of_it = list(_causes(found))
    for name, asked in wanted.items():
        if not any(_HAS[name](each, asked) for each in all_of_it):
            yield f"{where}.{name}: expected {asked}, found {shown(found)}"


_HAS: Mapping[str, Callable[[Failure, str], bool]] = {
    "code": lambda failure, code: failure.code == code,
    "message": lambda failure, words: words in failure.message,
    "step": lambda failure, step: failure.step_id == step,
}


def _causes(failure: Failure) -> Iterator[Failure]:
    yield failure
    if failure.cause is not None:
        yield from _causes(failure.cause)


def _steps(wanted: Mapping[str, Mapping[str, Any]], report: Report) -> Iterator[str]:
    for step_id, expected in wanted.items():
        step = report.steps.get(step_id)
        if step is None:
            yield f"steps.{step_id}: not there; there is: {', '.join(report.steps)[:200]}"
            continue
        for name, value in expected.items():
            yield from _STEP_CHECKS[name](value, step, f"steps.{step_id}")


def _step_state(wanted: str, step: StepReport, where: str) -> Iterator[str]:
    if wanted != step.state:
        why = step.reason or (shown(step.failure) if step.failure else "")
        yield f"{where}: expected {wanted}, found {step.state}{f' ({why})' if why else ''}"


def _step_plain(name: str) -> Callable[[Any, StepReport, str], Iterator[str]]:
    def check(wanted: Any, step: StepReport, where: str) -> Iterator[str]:
        found = getattr(step, name)
        if wanted != found:
            yield _said(f"{where}.{name}", wanted, found)

    return check


def _step_value(name: str, *, all_keys: bool) -> Callable[[Any, StepReport, str], Iterator[str]]:
    def check(wanted: Any, step: StepReport, where: str) -> Iterator[str]:
        return compare(wanted, getattr(step, name), f"{where}.{name}", all_keys=all_keys)

    return check


def _step_moment(name: str) -> Callable[[Any, StepReport, str], Iterator[str]]:
    def check(wanted: int, step: StepReport, where: str) -> Iterator[str]:
        found = getattr(step, f"{name}_at")
        if wanted != found:
            said = "never" if found is None else f"after {spoken.duration(found)}"
            yield f"{where}.{name}: expected after {spoken.duration(wanted)}, found {said}"

    return check


def _step_reason(wanted: str, step: StepReport, where: str) -> Iterator[str]:
    if wanted not in step.reason:
        yield f"{where}.reason: expected words {wanted!r}, found {step.reason!r}"


def _step_failure(wanted: Mapping[str, Any], step: StepReport, where: str) -> Iterator[str]:
    return _failure(wanted, step.failure, f"{where}.failure")


_STEP_CHECKS: Mapping[str, Callable[[Any, StepReport, str], Iterator[str]]] = {
    "state": _step_state,
    "attempts": _step_plain("attempts"),
    "outcome": _step_plain("outcome"),
    "input": _step_value("input", all_keys=True),
    "input_has": _step_value("input", all_keys=False),
    "output": _step_value("output", all_keys=True),
    "output_has": _step_value("output", all_keys=False),
    "failure": _step_failure,
    "reason": _step_reason,
    "started": _step_moment("started"),
    "ended": _step_moment("ended"),
}


def _calls(wanted: Mapping[str, int], report: Report) -> Iterator[str]:
    for handler, count in wanted.items():
        made = report.calls_of(handler)
        if len(made) != count:
            steps = ", ".join(call.step for call in made[:12])
            yield f"calls of {handler}: expected {count}, found {len(made)}{f' (by {steps})' if steps else ''}"


def _order(wanted: list[str], report: Report) -> Iterator[str]:
    absent = [step for step in wanted if step not in report.order]
    if absent:
        yield f"order: {', '.join(absent)} did not end; {', '.join(report.order)} did"
        return
    found = [step for step in report.order if step in wanted]
    if found != wanted:
        yield f"order: expected {', '.join(wanted)}, found {', '.join(found)}"


def _emitted(wanted: list[Mapping[str, Any]], report: Report) -> Iterator[str]:
    names, found = [event["name"] for event in wanted], [event.name for event in report.emitted]
    if names != found:
        yield f"emitted: expected {', '.join(names) or 'nothing'}, found {', '.join(found) or 'nothing'}"
        return
    for event, emitted in zip(wanted, report.emitted, strict=True):
        if "with" in event:
            yield from compare(event["with"], emitted.payload, f"emitted.{emitted.name}")


def _duration(wanted: Mapping[str, int], report: Report) -> Iterator[str]:
    least, most = wanted.get("least", 0), wanted.get("most")
    if report.duration >= least and (most is None or report.duration <= most):
        return
    said = spoken.duration(least) if least == most else f"from {spoken.duration(least)} to {spoken.duration(most or 0)}"
    if most is None:
        said = f"at least {spoken.duration(least)}"
    yield f"duration: expected {said}, found {spoken.duration(report.duration)}"


_CHECKS: Mapping[str, Callable[[Any, Report], Iterator[str]]] = {
    "state": _state,
    "outcome": _plain("outcome"),
    "output": _output,
    "output_has": _output_has,
    "failure": lambda wanted, report: _failure(wanted, report.failure, "failure"),
    "steps": _steps,
    "calls": _calls,
    "order": _order,
    "emitted": _emitted,
    "duration": _duration,
    "credits": _plain("credits"),
}
