"""What the expressions of a document see: `.` and the variables, looked up when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import loads
from tierflow_flow.serverless.program import Program, Schema, Task
from tierflow_flow.serverless.values import Surroundings, Value
from tierflow_runtime.values import BlobRef, Micros, Payload

from tierflow_orchestrator.core.payloads import payload_of, violations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import parse, text_of, write
from tierflow_orchestrator.core.serverless.errors import standard
from tierflow_orchestrator.core.step import Frame, Step
from tierflow_orchestrator.core.turn import Turn

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
RUNTIME: Final = {"name": "tierflow", "version": "1", "metadata": {}}


def program_of(run: Run) -> Program:
    """The document that a run walks."""
    program = run.definition().program
    if program is None:
        raise ValueError(f"run {run.id} walks no document")
    return program


def task_of(run: Run, step: Step) -> Task:
    """The task of a step."""
    return program_of(run).tasks[step.of]


def frame_of(step: Step) -> Frame:
    """Where a step stands in its document."""
    if step.frame is None:
        raise ValueError(f"{step.id} is no task of a document")
    return step.frame


def value_of(run: Run, payload: Payload | None) -> Any:
    """The plain value of a payload; null where there is none. Raises `ExpressionError`."""
    return None if payload is None else parse(text_of(run, payload))


def store(turn: Turn, value: Any) -> Payload:
    """A plain value as a payload. Raises `ExpressionError`."""
    text = write(value)
    payload = payload_of(text, turn.blobs)
    if isinstance(payload, BlobRef):
        turn.run.contents[payload.sha256] = text
    return payload


class Variables(Mapping[str, Any]):
    """The variables at one place: those that the tasks around it have bound, and `$context` and the like."""

    def __init__(self, run: Run, step: Step | None, task: Task, own: Mapping[str, Any]) -> None:
        self._run = run
        self._step = step
        self._task = task
        self._own = own

    def __getitem__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        step = self._step
        while step is not None:
            frame = frame_of(step)
            if name in frame.variables:
                return loads(frame.variables[name])
            step = self._run.steps.get(frame.parent)
        read = _STANDARD.get(name)
        if read is None:
            raise KeyError(name)
        return read(self._run, self._task, self._own)

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter((*self._own, *_STANDARD))

    def __len__(self) -> int:
        return len(self._own) + len(_STANDARD)


def _context(run: Run, task: Task, own: Mapping[str, Any]) -> Any:
    return value_of(run, run.exported)


def _whole(run: Run, task: Task, own: Mapping[str, Any]) -> Any:
    return {
        "id": run.id,
        "definition": program_of(run).document,
        "input": value_of(run, run.input),
        "startedAt": moment(run.created_at),
    }


def _described(run: Run, task: Task, own: Mapping[str, Any]) -> Any:
    described = {"name": task.name, "reference": task.pointer, "definition": task.definition}
    return described | {name: own[name] for name in ("input", "output") if name in own}


def _secrets(run: Run, task: Task, own: Mapping[str, Any]) -> Any:
    return {name: secret(run, name) for name in program_of(run).secrets if name in run.environment}


def secret(run: Run, name: str) -> Any:
    """A secret: a value of the environment, as JSON where it is an object. Raises `ExpressionError`."""
    if name not in run.environment:
        raise ExpressionError(f"the secret {name} is not there")
    text = run.environment[name]
    if text.lstrip().startswith("{"):
        try:
            return loads(text)
        except ValueError:
            return text
    return text


def moment(at: Micros) -> dict[str, Any]:
    """A moment as the DSL describes it."""
    return {"iso8601": iso(at), "epoch": {"seconds": at // 1_000_000, "milliseconds": at // 1_000}}


def iso(at: Micros) -> str:
    """A moment as ISO 8601."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_STANDARD: Final[Mapping[str, Callable[[Run, Task, Mapping[str, Any]], Any]]] = {
    "context": _context,
    "workflow": _whole,
    "task": _described,
    "runtime": lambda run, task, own: RUNTIME,
    "secrets": _secrets,
    "input": lambda run, task, own: None,
    "output": lambda run, task, own: None,
}


def around(turn: Turn, step: Step | None, task: Task, data: Any, own: Mapping[str, Any]) -> Surroundings:
    """What an expression of a task sees.

    Args:
        turn: The decision.
        step: The step whose bindings are visible: the task's own, or the one around it before it has begun.
        task: The task.
        data: What `.` is.
        own: Variables that only this expression sees, such as `input`.
    """
    return Surroundings(data, Variables(turn.run, step, task, own), turn.now / 1_000_000)


def inside(turn: Turn, step: Step, data: Any, own: Mapping[str, Any] | None = None) -> Surroundings:
    """What an expression sees that is evaluated while its task runs."""
    given = value_of(turn.run, frame_of(step).input)
    return around(turn, step, task_of(turn.run, step), data, {"input": given, **(own or {})})


def truth(value: Value | None, surroundings: Surroundings, *, default: bool) -> bool:
    """Whether a condition holds: everything but null and false does, as in jq. Raises `ExpressionError`."""
    if value is None:
        return default
    found = value.resolve(surroundings)
    return found is not None and found is not False


def check(schema: Schema | None, value: Any, what: str) -> None:
    """Raises `Raised` where a value does not match a schema."""
    if schema is None:
        return
    found = violations(schema.schema, value, what)
    if found:
        listed = "; ".join(f"{each.field}: {each.description}" for each in found[:10])
        raise standard("validation", 400, "Validation Error", listed)
