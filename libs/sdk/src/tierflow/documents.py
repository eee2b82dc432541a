"""Parts of a flow's document, made from what Python code gives: durations, conditions, inputs, schemas; and steps for others to refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from tierflow.expressions import Expression

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


def ids_of(steps: str | Iterable[str]) -> list[str]:
    """Ids as a list."""
    return [steps] if isinstance(steps, str) else list(steps)


def common_keys(
    *,
    needs: Iterable[Step | str] = (),
    if_: Expression | str | bool | None = None,
    name: str | None = None,
    on_error: str | Mapping[str, Any] | None = None,
    join: str | int | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keys of steps of all kinds. `join` is `all`, `any`, `majority`, a number, or `{"at_least": 2, "of": [...]}`."""
    return {
        "name": name,
        "needs": _named(needs) or None,
        "join": _join(join),
        "if": condition_of(if_),
        "on_error": on_error,
    }


def _join(join: str | int | Mapping[str, Any] | None) -> Any:
    if isinstance(join, int):
        return {"at_least": join}
    if isinstance(join, Mapping):
        return {key: ids_of(_named(value)) if key == "of" else value for key, value in join.items()}
    return join


def _named(steps: Iterable[Step | str]) -> list[str]:
    return [step.id if isinstance(step, Step) else step for step in steps]


def given(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value."""
    return {name: value for name, value in keys.items() if value is not None}


def plain(value: Any) -> Any:
    """A value with its expressions written out."""
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, Step):
        return str(value.output)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def inputs_of(with_: Mapping[str, Any] | Expression | None, inputs: Mapping[str, Any]) -> Any:
    """The inputs of a handler. Raises `TypeError`."""
    if isinstance(with_, Expression):
        if inputs:
            raise TypeError("with_ is an expression that gives all inputs; there cannot be further ones")
        return str(with_)
    return plain({**(with_ or {}), **inputs}) or None


def condition_of(condition: Expression | str | bool | None) -> str | bool | None:
    """A condition as text, or a truth."""
    return str(condition) if isinstance(condition, Expression) else condition


def duration_of(name: str, value: Duration | None) -> str | None:
    """A duration as text. Raises `TypeError`."""
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    if value is None or isinstance(value, str):
        return value
    raise TypeError(
        f"{name} is a timedelta or text such as '30s'; an input of the handler's own of that name goes into with_"
    )


def retry_of(retry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A retry policy, its delays as text."""
    if retry is None:
        return None
    return {key: duration_of(key, value) if key.endswith("_delay") else value for key, value in retry.items()}


def schema_of(schema: Mapping[str, Any] | type | None) -> dict[str, Any] | None:
    """A JSON Schema, of a pydantic model as well."""
    if schema is None or isinstance(schema, Mapping):
        return None if schema is None else dict(schema)
    described: dict[str, Any] = schema.model_json_schema()  # type: ignore[attr-defined]
    return described
