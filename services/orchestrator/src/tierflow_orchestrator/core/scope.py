"""What the expressions of a run can see, read lazily from the run itself.

JSON texts are parsed when first looked into and kept; the scope of a map's item is a thin layer over the run's (E8), so that branches copy nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import STATUS, show_path, walk
from tierflow_expressions.values import dumps, loads
from tierflow_flow.limits import MAX_ITERATIONS
from tierflow_flow.schemas import fill_defaults
from tierflow_flow.scope import STEP_FIELDS
from tierflow_runtime.secrets import handle
from tierflow_runtime.values import BlobRef, Payload

from tierflow_orchestrator.core import joins, variables
from tierflow_orchestrator.core.blocks import above, find
from tierflow_orchestrator.core.payloads import LARGEST_BYTES, TooLarge
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step, item_id

Path = tuple[str | int, ...]

_MARK: Final = "\\u0000blob:"


class MissingContent(ExpressionError):
    """An expression looks into a stored value whose content the shell has not provided."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the content of the stored value {sha256} is not at hand")
        self.sha256 = sha256


def mark(ref: BlobRef) -> str:
    """The JSON text that stands for a stored value that is handed on whole."""
    return f'"{_MARK}{ref.sha256}"'


def has_mark(text: str) -> bool:
    """Whether a JSON text contains such a mark. NUL does not pass the edge, so that no value of a user looks like one."""
    return _MARK in text


class RunScope:
    """The scope of the expressions of a step, or of the run. Within blocks, names are looked for outwards.

    `inside` is for what is evaluated when the steps of the step's own block have ended.
    """

    __slots__ = ("_inside", "_run", "_step")

    def __init__(self, run: Run, step: Step | None = None, *, inside: bool = False) -> None:
        self._run = run
        self._step = step
        self._inside = inside

    def lookup(self, name: str, path: Path) -> Any:
        """The plain JSON value at `path` below `name`. Raises `ExpressionError` where there is none."""
        if name == "steps":
            return self._of_step(path)
        if name == "input":
            return walk(self._input(), path, name)
        if name == "vars":
            return variables.lookup(self._run, self._step, path)
        if self._step is not None and name in _AROUND:
            return walk(_AROUND[name](self._run, self._step), path, name)
        return self._of_run(name, path)

    def _of_run(self, name: str, path: Path) -> Any:
        """What is the same for every step of the run, and seldom asked for."""
        if name == "run":
            return walk(_facts(self._run), path, name)
        if name == "env":
            return self._environment(path)
        if name == STATUS:
            return self._status(path)
        if name == "secrets" and path:
            return handle(str(path[0]))
        raise ExpressionError(f"{name} is not known here")

    def raw(self, name: str, path: Path) -> str | None:
        """The JSON text of a value that is handed on whole, where there is one at hand; None: look it up instead."""
        if name == "input" and not path and self._run.definition().input_schema is None:
            return text_of(self._run, self._run.input)
        if name == "steps" and len(path) == 2 and path[1] == "output":
            return output_text(self._run, self._step_at(path), marks=True)
        if name == "output" and not path and self._step is not None:
            return output_text(self._run, _helped(self._run, self._step, "compensation"), marks=True)
        return None

    def _input(self) -> Any:
        run = self._run
        if "" not in run.parsed:
            run.parsed[""] = fill_defaults(run.definition().input_schema, parse(text_of(run, run.input)))
        return run.parsed[""]

    def _step_at(self, path: Path) -> Step:
        step = self._named(str(path[0])) if path else None
        if step is None:
            raise ExpressionError(f"{show_path('steps', path[:1])} is not a step of this flow")
        if not step.ended and not self._joins(step):
            raise ExpressionError(f"step {step.id} has not ended: it is {step.state}")
        return step

    def _joins(self, other: Step) -> bool:
        """Whether the step whose expression it is has a join that did not wait for the other: that one is seen as it is, without output."""
        join = None if self._step is None else self._run.definition().joins.get(self._step.of)
        return join is not None and other.of in join.of

    def _named(self, name: str) -> Step | None:
        step = self._step
        if step is None or not (step.parent or self._inside or step.calls):
            return self._run.steps.get(name)
        return find(self._run, step, name, inside=self._inside)

    def _of_step(self, path: Path) -> Any:
        step = self._step_at(path)
        if len(path) < 2:
            return {field: self._field(step, field) for field in STEP_FIELDS}
        return walk(self._field(step, path[1]), path, "steps", start=2)

    def _field(self, step: Step, field: str | int) -> Any:
        if field == "output":
            return output_value(self._run, step) if step.ended else None
        if field == "state":
            return step.stop_to or step.state
        if field == "outcome":
            return step.outcome
        if field == "failure":
            return None if step.failure is None or step.state == "COMPLETED" else msgspec.to_builtins(step.failure)
        raise ExpressionError(f"steps.{step.id}.{field} is not there; a step has: {', '.join(STEP_FIELDS)}")

    def _environment(self, path: Path) -> Any:
        allowed = self._run.definition().env
        if not path:
            return {name: self._run.environment[name] for name in allowed if name in self._run.environment}
        name = str(path[0])
        if name not in allowed:
            raise ExpressionError(f"env.{name} is not in the flow's list of environment variables")
        if name not in self._run.environment:
            raise ExpressionError(f"env.{name} is not set")
        return walk(self._run.environment[name], path, "env", start=1)

    def _status(self, path: Path) -> bool:
        step = self._step
        if path == ("success",):
            return step is None or not (step.blocked_by or self._passed_over(step))
        if path == ("failure",):
            return step is not None and joins.sees_failure(self._run, step)
        return path == ("cancelled",) and self._run.state == "CANCELLING"

    def _passed_over(self, step: Step) -> bool:
        return step.passed and joins.unchosen(self._run, step, self._run.spec(step)) is not None


class ItemScope(RunScope):
    """The scope of one item of a map: the run's, with `item` and `index` on top."""

    __slots__ = ("_index", "_item")

    def __init__(self, run: Run, step: Step, item: Any) -> None:
        super().__init__(run, step)
        self._index = step.index
        self._item = item

    def lookup(self, name: str, path: Path) -> Any:
        """As for a run, and `item` and `index`."""
        if name == "item":
            return walk(self._item, path, name)
        if name == "index" and not path:
            return self._index
        return super().lookup(name, path)

    def raw(self, name: str, path: Path) -> str | None:
        """As for a run, and `item` and `index`."""
        if name == "item" and not path:
            return write(self._item)
        if name == "index" and not path:
            return str(self._index)
        return super().raw(name, path)


def items_of(run: Run, step: Step) -> list[Any]:
    """The items of a map or of a loop with `for`, plain; evaluated once and kept. Raises `ExpressionError`."""
    items = run.items.get(step.id)
    if items is None:
        spec = run.spec(step)
        template = spec.items or spec.templates.get("for")
        found = None if template is None else template.resolve(RunScope(run, step))
        if isinstance(found, int) and not isinstance(found, bool) and spec.items is None:
            found = list(range(min(max(found, 0), MAX_ITERATIONS + 1)))
        if not isinstance(found, list):
            raise ExpressionError("the items of a map are an array" if spec.items else "for takes a number or an array")
        items = run.items[step.id] = found
    return items


def _item(run: Run, step: Step) -> Any:
    for other in above(run, step):
        if other.index >= 0 and (run.spec(other).items is not None or "for" in run.spec(other).templates):
            items = items_of(run, run.steps[other.above])
            if other.index >= len(items):
                raise ExpressionError(f"{other.above} now has {len(items)} items, fewer than when it was expanded")
            return items[other.index]
    raise ExpressionError("item is not known here")


def _index(run: Run, step: Step) -> Any:
    if step.index < 0 and run.spec(step).kind == "loop":
        return step.block.iterations if step.block is not None else 0
    for other in above(run, step):
        if other.index >= 0:
            return other.index
    raise ExpressionError("index is not known here")


def _loop(run: Run, step: Step) -> Any:
    """The loop around a step. For a loop itself, as it looks whether there is a next iteration: as that one would see it."""
    if step.index < 0 and run.spec(step).kind == "loop":
        return _iteration(run, step, step.block.iterations if step.block is not None else 0)
    for other in above(run, step):
        if other.index >= 0 and run.spec(other).kind == "loop":
            return _iteration(run, run.steps[other.above], other.index)
    raise ExpressionError("loop is not known here")


def _iteration(run: Run, loop: Step, index: int) -> dict[str, Any]:
    last = output_value(run, run.steps[item_id(loop.id, index - 1)]) if index else None
    return {"index": index, "last": last}


def _helped(run: Run, step: Step, role: str) -> Step:
    """The step that the one around this expression handles the error of, or compensates."""
    for other in above(run, step):
        if other.role == role:
            return run.steps[other.parent]
    return step


def _last_error(run: Run, step: Step) -> Any:
    failed = _helped(run, step, "handler")
    failure = failed.failure
    if failure is None:
        raise ExpressionError("last_error is not known here")
    return {
        "code": failure.code,
        "message": failure.message,
        "step": run.spec(failed).local,
        "attempt": failed.attempt,
        "retryable": failure.retryable,
        "failure": msgspec.to_builtins(failure),
    }


def _own_output(run: Run, step: Step) -> Any:
    return output_value(run, _helped(run, step, "compensation"))


_AROUND: Final = {
    "item": _item,
    "index": _index,
    "loop": _loop,
    "last_error": _last_error,
    "output": _own_output,
}
"""Names of which the answer depends on what a step is within."""


def output_value(run: Run, step: Step) -> Any:
    """The plain output of an ended step; None where it has none."""
    if step.id not in run.parsed:
        run.parsed[step.id] = parse(output_text(run, step))
    return run.parsed[step.id]


def output_text(run: Run, step: Step, *, marks: bool = False) -> str:
    """The JSON text of an ended step's output, of a map: the array of its items' outputs, null where one has none.

    Args:
        run: The run.
        step: The step.
        marks: Whether a stored value that is not at hand is stood for by a mark; else `MissingContent` is raised.
    """
    if step.branches is None or step.output is not None or step.state != "COMPLETED":
        return _text_or_mark(run, step.output, marks)
    outputs = [run.steps[item_id(step.id, i)].output for i in range(step.branches.count)]
    if (size := size_of(outputs)) > LARGEST_BYTES:
        raise TooLarge(size)
    texts = [output if type(output) is str else _text_or_mark(run, output, marks) for output in outputs]
    return "[" + ",".join(texts) + "]"


def size_of_items(run: Run, step: Step) -> int:
    """Bytes (of what is stored inline: characters) of the outputs of a map's items together."""
    return size_of(run.steps[item_id(step.id, i)].output for i in range(step.branches.count if step.branches else 0))


def size_of(outputs: Iterable[Payload | None]) -> int:
    """The same of outputs that are at hand."""
    return sum(output.size if isinstance(output, BlobRef) else len(output) for output in outputs if output is not None)


def _text_or_mark(run: Run, payload: Payload | None, marks: bool) -> str:
    if marks and isinstance(payload, BlobRef) and payload.sha256 not in run.contents:
        return mark(payload)
    return text_of(run, payload)


def text_of(run: Run, payload: Payload | None) -> str:
    """The JSON text of a payload. Raises `MissingContent`."""
    if payload is None:
        return "null"
    if isinstance(payload, str):
        return payload
    content = run.contents.get(payload.sha256)
    if content is None:
        raise MissingContent(payload.sha256)
    return content


def _facts(run: Run) -> dict[str, Any]:
    context = run.context
    return {
        "id": run.id,
        "tenant": context.tenant,
        "user_id": context.user_id,
        "swarm_id": context.swarm_id,
        "correlation_id": context.correlation_id,
        "generation": run.generation,
        "labels": context.labels,
        "flow": run.flow_name,
        "version": run.flow_version,
        "created_at": run.created_at,
        "roles": list(context.roles),
    }


def parse(text: str) -> Any:
    """The plain value of a JSON text, integers of any length exact. Raises `ExpressionError`."""
    try:
        return loads(text)
    except ValueError as error:
        raise ExpressionError(f"not JSON: {error}") from None


def write(value: Any) -> str:
    """The JSON text of a plain value. Raises `ExpressionError`."""
    try:
        return dumps(value)
    except ValueError as error:
        raise ExpressionError(f"not JSON: {error}") from None
