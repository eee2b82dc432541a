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
from typing import Any

from tierflow.blocks import Block, Blocks, goto, undo
from tierflow.documents import (
    Duration,
    Step,
    common_keys,
    condition_of,
    duration_of,
    given,
    ids_of,
    inputs_of,
    plain,
    retry_of,
    schema_of,
)
from tierflow.expressions import Expression, Functions, escape, expr, fn
from tierflow.others import Others

__all__ = [
    "Block",
    "Duration",
    "Expression",
    "FlowBuilder",
    "Functions",
    "Step",
    "escape",
    "expr",
    "flow",
    "fn",
    "goto",
    "undo",
]


class FlowBuilder(Blocks, Others):
    """A flow in the making; `flow` begins one."""

    input = Expression("input", simple=True)
    """The run's input: `f.input.name`."""
    item = Expression("item", simple=True)
    """Under the inputs of a map: the item."""
    index = Expression("index", simple=True)
    """Under the inputs of a map: the item's index, from 0."""
    output_of = Expression("output", simple=True)
    """Under `validate`, `set_` and `compensate` of a step: what it returned."""
    run = Expression("run", simple=True)
    """The run itself: `f.run.id`."""
    vars = Expression("vars", simple=True)
    """The flow's constants: `f.vars.name`."""
    env = Expression("env", simple=True)
    """Environment variables that the flow asked for: `f.env.HOME`."""

    secrets = Expression("secrets", simple=True)
    """Secrets that the flow asked for, as inputs of handlers: `f.secrets.API_KEY`."""

    def __init__(self, keys: dict[str, Any]) -> None:
        super().__init__()
        self._keys = keys
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
        start_timeout: Duration | None = None,
        total_timeout: Duration | None = None,
        on_error: str | Mapping[str, Any] | None = None,
        compensate: Mapping[str, Any] | None = None,
        grows: bool | Iterable[str] | None = None,
        on_lost: str | None = None,
        side_effecting: bool | None = None,
        output_schema: Mapping[str, Any] | type | None = None,
        validate: Iterable[Expression | str | Mapping[str, Any]] = (),
        set_: Mapping[str, Any] | None = None,
        cache: Mapping[str, Any] | None = None,
        priority: int | None = None,
        cost_estimate: int | None = None,
        allocation: Mapping[str, int] | None = None,
        labels: Mapping[str, str] | None = None,
        join: str | int | Mapping[str, Any] | None = None,
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
            start_timeout: Longest wait for a slot, of each attempt.
            total_timeout: Longest time for all attempts, with the delays between them.
            on_error: `stop`, `continue`, `retry`, or `goto(...)`: the step that handles it.
            compensate: What undoes it where the run fails or is cancelled: `undo(...)`.
            grows: Whether it may return further steps: True, or the handlers that they may call.
            on_lost: `retry`, `fail` or `ask`.
            side_effecting: Whether repeating it does harm.
            output_schema: What the output must look like: a JSON Schema or a pydantic model.
            validate: Rules for the output: conditions on `f.output_of`, or mappings with rule, message and on_fail.
            set_: Variables that the step sets, from `f.output_of` and all else.
            cache: When a stored result may stand for an attempt: key, ttl, scope, version.
            priority: Of steps that wait for a slot for the same handler, the highest gets one first.
            cost_estimate: What an attempt is expected to cost, in micro-credits.
            allocation: Most that an attempt may spend: `credits`, `tokens`, `tool_calls`.
            labels: Labels that the executor must have.
            join: How many of `needs` must complete: `all`, `any`, `majority`, a number, or a mapping with `at_least` and `of`.
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
                **common_keys(needs=needs, if_=if_, name=name, on_error=on_error, join=join),
                "call": handler,
                "with": inputs_of(with_, inputs),
                "retry": retry_of(retry),
                "timeout": duration_of("timeout", timeout),
                "heartbeat_timeout": duration_of("heartbeat_timeout", heartbeat_timeout),
                "start_timeout": duration_of("start_timeout", start_timeout),
                "total_timeout": duration_of("total_timeout", total_timeout),
                "compensate": None if compensate is None else dict(compensate),
                "grows": grows if grows is None or isinstance(grows, bool) else list(grows),
                "on_lost": on_lost,
                "side_effecting": side_effecting,
                "output_schema": schema_of(output_schema),
                "validate": plain(list(validate)) or None,
                "priority": priority,
                "cache": None
                if cache is None
                else plain({k: duration_of(k, v) if k == "ttl" else v for k, v in cache.items()}),
                "cost_estimate": cost_estimate,
                "allocation": _mapping(allocation),
                "set": plain(set_) if set_ else None,
                "labels": _mapping(labels),
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
        self._steps[id] |= given({"map": plain(over), "concurrency": concurrency, "tolerate": tolerate})
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
        length = str(for_) if isinstance(for_, Expression) else duration_of("wait", for_)
        return self._add(id, {"wait": length if until is None else {"until": plain(until)}, **common_keys(**common)})

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
        made = [{"if": condition_of(condition), "then": ids_of(then)} for condition, then in cases]
        return self._add(
            id, {"switch": made, "default": None if default is None else ids_of(default), **common_keys(**common)}
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
        keys = {"signal": signal, "schema": schema_of(schema), "timeout": duration_of("timeout", timeout)}
        return self._add(id, {**keys, **common_keys(**common)})

    def emit(
        self,
        id: str,  # noqa: A002 - the word of the language
        event: str,
        with_: Mapping[str, Any] | Expression | None = None,
        **common: Any,
    ) -> Step:
        """Add a step that publishes an event of the flow's own, with `with_` as payload; `common` as in `wait`."""
        return self._add(id, {"emit": event, "with": inputs_of(with_, {}), **common_keys(**common)})

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
        failure = given({"code": code, "message": message, "retryable": retryable})
        return self._add(id, {"fail": failure, **common_keys(**common)})

    def to_dict(self) -> dict[str, Any]:
        """The document as plain values, with the keys of the YAML form."""
        document = {**self._keys, "steps": {id_: dict(keys) for id_, keys in self._levels[0].items()}}
        return document if self.output is None else {**document, "output": plain(self.output)}

    def to_json(self) -> str:
        """The document as JSON text. Raises `TypeError` or `ValueError` where a value is not JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def _mapping(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(value) if value else None


def flow(
    name: str,
    *,
    version: str | None = None,
    description: str | None = None,
    input: Mapping[str, Any] | type | None = None,  # noqa: A002 - the word of the language
    retry: Mapping[str, Any] | None = None,
    step_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    allocation: Mapping[str, int] | None = None,
    on_failure: str | None = None,
    compensate_on: Iterable[str] | None = None,
    dead_letter: bool | None = None,
    timeout: Duration | None = None,
    concurrency: int | None = None,
    vars: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the language
    merge: Mapping[str, str] | None = None,
    env: Iterable[str] = (),
    secrets: Iterable[str] = (),
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
        allocation: Most that an attempt may spend where a step does not say: `credits`, `tokens`, `tool_calls`.
        compensate_on: `failure`, `cancel`: when completed steps that say how are undone; without it, both.
        dead_letter: Whether a run that ends FAILED is kept as a dead letter, for somebody to deal with.
        on_failure: `fail_fast`, `continue` or `pause`.
        timeout: Longest time that a run may take.
        concurrency: Most steps of a run at once.
        vars: Constants, and first values of variables.
        merge: By variable: `first`, `last` or `append`, where branches meet that have both set it.
        env: Environment variables that expressions may read.
        secrets: Secrets of the executors that inputs may hold, as `f.secrets.NAME`.
        navigator: `graph` or `sequence`.
        output_schema: What the output must look like: a JSON Schema or a pydantic model.

    Raises:
        TypeError: A duration is a bare number.
    """
    defaults = {
        "retry": retry_of(retry),
        "timeout": duration_of("step_timeout", step_timeout),
        "heartbeat_timeout": duration_of("heartbeat_timeout", heartbeat_timeout),
        "allocation": _mapping(allocation),
    }
    keys = {
        "name": name,
        "version": version,
        "description": description,
        "input": schema_of(input),
        "defaults": given(defaults) or None,
        "on_failure": on_failure,
        "compensate_on": None if compensate_on is None else list(compensate_on),
        "dead_letter": dead_letter,
        "timeout": duration_of("timeout", timeout),
        "concurrency": concurrency,
        "vars": None if vars is None else dict(vars),
        "merge": dict(merge) if merge else None,
        "env": list(env) or None,
        "secrets": list(secrets) or None,
        "navigator": navigator,
        "output_schema": schema_of(output_schema),
    }
    return FlowBuilder(given(keys))
