"""Flows written in Python: `flow(...)` makes the same document as the YAML form, nothing more.

    from tierflow import flow

    f = flow("code-report", input={"directory": {"type": "string", "default": "."}})
    walk = f.call("walk", "report.walk", directory=f.input.directory)
    sizes = f.map("sizes", "report.size", over=walk.output.files, concurrency=16, path=f.item)
    f.output = {"sizes": sizes.output, "title": f"Report on {f.input.directory}"}
    f.to_json()

References such as `walk.output.files` are not values: they stand for `${{ steps.walk.output.files }}`, wherever they are put, in f-strings as well.
Python's operators make expressions of them (`&`, `|` and `~` for and, or and not); `fn` has the language's functions, `expr` takes text.
The flow is checked where it is submitted or registered, with every problem at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from tierflow.expressions import Expression, Functions, escape, expr, fn

__all__ = ["Duration", "Expression", "FlowBuilder", "Functions", "Step", "escape", "expr", "flow", "fn"]

Duration: TypeAlias = str | timedelta
"""As text (`500ms`, `1h30m`) or as a timedelta."""


class Step:
    """A step of a flow, for others to refer to."""

    __slots__ = ("failure", "id", "outcome", "output", "state")

    def __init__(self, id_: str) -> None:
        self.id = id_
        reference = Expression(f"steps.{id_}", simple=True)
        self.output = reference.output
        """What it returned; of a map, the list of what its items returned, null for those that failed."""
        self.state = reference.state
        """COMPLETED, FAILED, SKIPPED or CANCELLED."""
        self.outcome = reference.outcome
        self.failure = reference.failure
        """Null, or what went wrong: code, message and more."""

    def __repr__(self) -> str:
        return f"Step({self.id!r})"


class FlowBuilder:
    """A flow in the making; `flow` begins one."""

    input = Expression("input", simple=True)
    """The run's input: `f.input.name`."""
    item = Expression("item", simple=True)
    """Under the inputs of a map: the item."""
    index = Expression("index", simple=True)
    """Under the inputs of a map: the item's index, from 0."""
    run = Expression("run", simple=True)
    """The run itself: `f.run.id`."""
    vars = Expression("vars", simple=True)
    """The flow's constants: `f.vars.name`."""
    env = Expression("env", simple=True)
    """Environment variables that the flow asked for: `f.env.HOME`."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self._keys = keys
        self._steps: dict[str, dict[str, Any]] = {}
        self.output: Any = None
        """The flow's output; None: an object of the outputs of the steps that no other step needs."""

    def call(
        self,
        id: str,  # noqa: A002 - the word of the language
        handler: str,
        *,
        with_: Mapping[str, Any] | Expression | None = None,
        needs: Iterable[Step | str] = (),
        if_: Expression | str | bool | None = None,
        name: str | None = None,
        retry: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        on_error: str | None = None,
        on_lost: str | None = None,
        side_effecting: bool | None = None,
        output_schema: Mapping[str, Any] | type | None = None,
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> Step:
        """Add a step that calls a handler. The further keyword arguments are the handler's inputs.

        Args:
            id: The step's id.
            handler: Name of the handler.
            with_: Inputs whose names are taken here (`timeout`, `name` ...), or an expression that gives all inputs.
            needs: Steps to wait for besides those that the inputs refer to.
            if_: Whether the step runs.
            name: What people see.
            retry: How failed attempts are retried: max_attempts, initial_delay, factor, max_delay, jitter, retry_on, never_retry_on.
            timeout: Of an attempt.
            heartbeat_timeout: Longest silence of an attempt.
            on_error: `stop` or `continue`.
            on_lost: `retry`, `fail` or `ask`.
            side_effecting: Whether repeating it does harm.
            output_schema: What the output must look like: a JSON Schema or a pydantic model.
            labels: Labels that the executor must have.
            **inputs: The handler's inputs.

        Returns:
            The step, for others to refer to.

        Raises:
            ValueError: The id is taken.
            TypeError: A duration is a bare number, or `with_` is an expression and there are further inputs.
        """
        return self._add(
            id,
            {
                **_common(needs=needs, if_=if_, name=name, on_error=on_error),
                "call": handler,
                "with": _inputs(with_, inputs),
                "retry": _retry(retry),
                "timeout": _duration("timeout", timeout),
                "heartbeat_timeout": _duration("heartbeat_timeout", heartbeat_timeout),
                "on_lost": on_lost,
                "side_effecting": side_effecting,
                "output_schema": _schema(output_schema),
                "labels": dict(labels) if labels else None,
            },
        )

    def map(
        self,
        id: str,  # noqa: A002 - the word of the language
        handler: str,
        *,
        over: Expression | list[Any] | str,
        concurrency: int | None = None,
        tolerate: int | None = None,
        **more: Any,
    ) -> Step:
        """Add a step that calls a handler for each item of an array, with `f.item` and `f.index` among its inputs.

        Args:
            id: The step's id.
            handler: Name of the handler.
            over: The array.
            concurrency: Most items at once.
            tolerate: Failed items that do not make the step fail.
            **more: What `call` takes.

        Raises:
            ValueError: The id is taken.
            TypeError: As in `call`.
        """
        step = self.call(id, handler, **more)
        self._steps[id] |= _given({"map": _plain(over), "concurrency": concurrency, "tolerate": tolerate})
        return step

    def wait(
        self,
        id: str,  # noqa: A002 - the word of the language
        for_: Duration | Expression | None = None,
        *,
        until: str | Expression | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that waits, for a duration or until a moment (RFC 3339, with a time zone).

        Args:
            id: The step's id.
            for_: How long.
            until: Until when.
            **common: `needs`, `if_`, `name`, `on_error`, as in `call`.

        Raises:
            ValueError: The id is taken.
            TypeError: A duration is a bare number, or not exactly one of `for_` and `until` is given.
        """
        if (for_ is None) == (until is None):
            raise TypeError("wait takes a duration or until=, one of them")
        length = str(for_) if isinstance(for_, Expression) else _duration("wait", for_)
        return self._add(id, {"wait": length if until is None else {"until": _plain(until)}, **_common(**common)})

    def switch(
        self,
        id: str,  # noqa: A002 - the word of the language
        *cases: tuple[Expression | str | bool, str | Iterable[str]],
        default: str | Iterable[str] | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that chooses: the steps of the first case that is true run, the others that it names are skipped.

        Args:
            id: The step's id.
            *cases: Conditions, each with the id or ids of the steps that run then; these may be added later.
            default: The id or ids of the steps that run where no case is true.
            **common: `needs`, `if_`, `name`, `on_error`, as in `call`.

        Raises:
            ValueError: The id is taken.
        """
        made = [{"if": _condition(condition), "then": _ids(then)} for condition, then in cases]
        return self._add(
            id, {"switch": made, "default": None if default is None else _ids(default), **_common(**common)}
        )

    def signal(
        self,
        id: str,  # noqa: A002 - the word of the language
        signal: str,
        *,
        schema: Mapping[str, Any] | type | None = None,
        timeout: Duration | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that waits for a message of this name; its payload is the step's output.

        Args:
            id: The step's id.
            signal: The message's name.
            schema: What it must look like: a JSON Schema or a pydantic model.
            timeout: Longest wait; then the step fails.
            **common: `needs`, `if_`, `name`, `on_error`, as in `call`.
        """
        keys = {"signal": signal, "schema": _schema(schema), "timeout": _duration("timeout", timeout)}
        return self._add(id, {**keys, **_common(**common)})

    def emit(
        self,
        id: str,  # noqa: A002 - the word of the language
        event: str,
        with_: Mapping[str, Any] | Expression | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that publishes an event of the flow's own, with `with_` as payload; `common` as in `wait`."""
        return self._add(id, {"emit": event, "with": _inputs(with_, {}), **_common(**common)})

    def fail(
        self,
        id: str,  # noqa: A002 - the word of the language
        code: str,
        message: str | None = None,
        *,
        retryable: bool | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that ends by a failure with this code and message; `common` as in `wait`."""
        failure = _given({"code": code, "message": message, "retryable": retryable})
        return self._add(id, {"fail": failure, **_common(**common)})

    def to_dict(self) -> dict[str, Any]:
        """The document as plain values, with the keys of the YAML form."""
        document = {**self._keys, "steps": {id_: dict(keys) for id_, keys in self._steps.items()}}
        return document if self.output is None else {**document, "output": _plain(self.output)}

    def to_json(self) -> str:
        """The document as JSON text. Raises `TypeError` or `ValueError` where a value is not JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def _add(self, id_: str, keys: Mapping[str, Any]) -> Step:
        if id_ in self._steps:
            raise ValueError(f"there is a step {id_!r} already")
        self._steps[id_] = _given(keys)
        return Step(id_)


def _ids(steps: str | Iterable[str]) -> list[str]:
    return [steps] if isinstance(steps, str) else list(steps)


def _common(
    *,
    needs: Iterable[Step | str] = (),
    if_: Expression | str | bool | None = None,
    name: str | None = None,
    on_error: str | None = None,
) -> dict[str, Any]:
    """The keys of steps of all kinds."""
    return {
        "name": name,
        "needs": [step.id if isinstance(step, Step) else step for step in needs] or None,
        "if": _condition(if_),
        "on_error": on_error,
    }


def flow(
    name: str,
    *,
    version: str | None = None,
    description: str | None = None,
    input: Mapping[str, Any] | type | None = None,  # noqa: A002 - the word of the language
    retry: Mapping[str, Any] | None = None,
    step_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    on_failure: str | None = None,
    timeout: Duration | None = None,
    concurrency: int | None = None,
    vars: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the language
    env: Iterable[str] = (),
    navigator: str | None = None,
    output_schema: Mapping[str, Any] | type | None = None,
) -> FlowBuilder:
    """Begin a flow.

    Args:
        name: The flow's name.
        version: The flow's version.
        description: What it is for.
        input: A JSON Schema, properties for short, or a pydantic model.
        retry: How failed attempts are retried where a step does not say.
        step_timeout: Timeout of an attempt where a step does not say.
        heartbeat_timeout: Longest silence of an attempt where a step does not say.
        on_failure: `fail_fast`, `continue` or `pause`.
        timeout: Longest time that a run may take.
        concurrency: Most steps of a run at once.
        vars: Constants.
        env: Environment variables that expressions may read.
        navigator: `graph` or `sequence`.
        output_schema: What the output must look like: a JSON Schema or a pydantic model.

    Raises:
        TypeError: A duration is a bare number.
    """
    defaults = {
        "retry": _retry(retry),
        "timeout": _duration("step_timeout", step_timeout),
        "heartbeat_timeout": _duration("heartbeat_timeout", heartbeat_timeout),
    }
    keys = {
        "name": name,
        "version": version,
        "description": description,
        "input": _schema(input),
        "defaults": _given(defaults) or None,
        "on_failure": on_failure,
        "timeout": _duration("timeout", timeout),
        "concurrency": concurrency,
        "vars": None if vars is None else dict(vars),
        "env": list(env) or None,
        "navigator": navigator,
        "output_schema": _schema(output_schema),
    }
    return FlowBuilder(_given(keys))


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if value is not None}


def _plain(value: Any) -> Any:
    """A value with its expressions written out."""
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, Step):
        return str(value.output)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _inputs(with_: Mapping[str, Any] | Expression | None, inputs: Mapping[str, Any]) -> Any:
    if isinstance(with_, Expression):
        if inputs:
            raise TypeError("with_ is an expression that gives all inputs; there cannot be further ones")
        return str(with_)
    return _plain({**(with_ or {}), **inputs}) or None


def _condition(condition: Expression | str | bool | None) -> str | bool | None:
    return str(condition) if isinstance(condition, Expression) else condition


def _duration(name: str, value: Duration | None) -> str | None:
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    if value is None or isinstance(value, str):
        return value
    raise TypeError(
        f"{name} is a timedelta or text such as '30s'; an input of the handler's own of that name goes into with_"
    )


def _retry(retry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if retry is None:
        return None
    return {key: _duration(key, value) if key.endswith("_delay") else value for key, value in retry.items()}


def _schema(schema: Mapping[str, Any] | type | None) -> dict[str, Any] | None:
    if schema is None or isinstance(schema, Mapping):
        return None if schema is None else dict(schema)
    described: dict[str, Any] = schema.model_json_schema()  # type: ignore[attr-defined]
    return described
