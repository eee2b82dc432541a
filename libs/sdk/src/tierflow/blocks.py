"""Steps that hold other steps, in Python: groups, maps over blocks, loops.

    with f.group("trip", retry={"max_attempts": 2}) as trip:
        hotel = f.call("hotel", "hotels.book", compensate=undo("hotels.cancel", room=f.output_of.room))
        f.call("flight", "flights.book", on_error=goto("other-flight"))
        f.call("other-flight", "flights.other", why=f.last_error.code)
        trip.yields = {"room": hotel.output.room}
    f.call("mail", "mail.send", room=trip.output.room)

What is added within `with` is in the block; references look outwards, as in the YAML form.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tierflow.documents import (
    Duration,
    Step,
    common_keys,
    condition_of,
    duration_of,
    given,
    inputs_of,
    plain,
    retry_of,
)
from tierflow.expressions import Expression


def goto(step: Step | str, *, then: str | Expression | None = None, calls: int | None = None) -> dict[str, Any]:
    """For `on_error`: the step that handles a failure, and what follows.

    Args:
        step: The step, or its id; it stands beside the one that fails, and may be added later.
        then: `continue`, `retry`, `stop`, or an expression that gives one; without it, `continue`.
        calls: Most calls for one step.
    """
    name = step.id if isinstance(step, Step) else step
    return given({"goto": name, "then": None if then is None else str(then), "calls": calls})


def undo(
    handler: str,
    *,
    with_: Mapping[str, Any] | Expression | None = None,
    retry: Mapping[str, Any] | None = None,
    timeout: Duration | None = None,
    labels: Mapping[str, str] | None = None,
    **inputs: Any,
) -> dict[str, Any]:
    """For `compensate`: the call that undoes what a step did. Among its inputs, `f.output_of` is what the step returned.

    Raises:
        TypeError: The timeout is a bare number, or `with_` is an expression and there are further inputs.
    """
    return given(
        {
            "call": handler,
            "with": inputs_of(with_, inputs),
            "retry": retry_of(retry),
            "timeout": duration_of("timeout", timeout),
            "labels": dict(labels) if labels else None,
        }
    )


class Block(Step):
    """A step that holds the steps that are added within `with`."""

    __slots__ = ("_builder", "_keys", "index", "last", "yields")

    def __init__(self, builder: Blocks, id_: str, keys: dict[str, Any]) -> None:
        super().__init__(id_)
        self._builder = builder
        self._keys = keys
        self.yields: Any = None
        """What its steps yield, seen from within; None: an object of the outputs of those that no other needs."""
        self.index = Expression("loop.index", simple=True)
        """Of a loop, within it: which iteration this is, from 0."""
        self.last = Expression("loop.last", simple=True)
        """Of a loop, within it: what the iteration before yielded; null in the first."""

    def until(self, condition: Expression | str | bool) -> None:
        """Of a loop: it is over after an iteration in which this is true; the steps within can be read."""
        self._keys["loop"]["until"] = condition_of(condition)

    def __enter__(self) -> Block:
        self._builder._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keys["steps"] = self._builder._leave()
        if self.yields is not None:
            self._keys["output"] = plain(self.yields)


class Blocks:
    """The part of the flow builder that makes blocks."""

    last_error = Expression("last_error", simple=True)
    """In a step that handles errors: code, message, step, attempt, retryable, failure."""

    def __init__(self) -> None:
        self._levels: list[dict[str, dict[str, Any]]] = [{}]

    @property
    def _steps(self) -> dict[str, dict[str, Any]]:
        """The steps of the block that is being made."""
        return self._levels[-1]

    def _enter(self) -> None:
        self._levels.append({})

    def _leave(self) -> dict[str, dict[str, Any]]:
        return self._levels.pop()

    def _add(self, id_: str, keys: Mapping[str, Any]) -> Step:
        if id_ in self._steps:
            raise ValueError(f"there is a step {id_!r} already")
        self._steps[id_] = given(keys)
        return Step(id_)

    def _block(self, id_: str, keys: Mapping[str, Any]) -> Block:
        self._add(id_, keys)
        return Block(self, id_, self._steps[id_])

    def group(
        self,
        id: str,  # noqa: A002 - the word of the language
        *,
        retry: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        compensate: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> Block:
        """Begin a group, for `with`: steps that begin with it, and with which it ends.

        Args:
            id: The step's id.
            retry: How often the whole is run again; without it, never.
            timeout: Longest time that it may take, each time.
            compensate: What undoes the whole: `undo(...)`. Without it its steps are undone one by one.
            **common: `needs`, `if_`, `name`, `on_error`, `join`, as in `call`.

        Raises:
            ValueError: The id is taken.
            TypeError: A duration is a bare number.
        """
        return self._block(id, {**common_keys(**common), **_bounds(retry, timeout, compensate)})

    def each(
        self,
        id: str,  # noqa: A002 - the word of the language
        over: Expression | list[Any] | str,
        *,
        concurrency: int | None = None,
        tolerate: int | None = None,
        retry: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        compensate: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> Block:
        """Begin a map over a block, for `with`: its steps run for each item of an array, with `f.item` and `f.index`.

        Args:
            id: The step's id.
            over: The array.
            concurrency: Most items at once.
            tolerate: Failed items that do not make the step fail.
            retry: How often the whole of an item is run again; without it, never.
            timeout: Longest time that an item may take, each time.
            compensate: What undoes the whole of an item: `undo(...)`.
            **common: As in `group`.

        Raises:
            ValueError: The id is taken.
            TypeError: A duration is a bare number.
        """
        keys = {"map": plain(over), "concurrency": concurrency, "tolerate": tolerate}
        return self._block(id, {**common_keys(**common), **keys, **_bounds(retry, timeout, compensate)})

    def loop(
        self,
        id: str,  # noqa: A002 - the word of the language
        *,
        for_: int | Expression | list[Any] | str | None = None,
        while_: Expression | str | bool | None = None,
        max: int | None = None,  # noqa: A002 - the word of the language
        delay: Duration | None = None,
        factor: float | None = None,
        max_delay: Duration | None = None,
        timeout: Duration | None = None,
        **common: Any,
    ) -> Block:
        """Begin a loop, for `with`: its steps run again and again, one iteration after the other. `until` is said within, by `Block.until`.

        Args:
            id: The step's id.
            for_: A number of iterations, or an array: one for each `f.item`.
            while_: Looked at before each iteration.
            max: Most iterations.
            delay: Delay between iterations.
            factor: What each further delay is multiplied by.
            max_delay: Longest delay.
            timeout: Longest time that all iterations may take.
            **common: As in `group`.

        Raises:
            ValueError: The id is taken.
            TypeError: A duration is a bare number.
        """
        loop = {
            "for": plain(for_),
            "while": condition_of(while_),
            "max": max,
            "delay": duration_of("delay", delay),
            "factor": factor,
            "max_delay": duration_of("max_delay", max_delay),
        }
        keys = {"loop": given(loop), "timeout": duration_of("timeout", timeout)}
        return self._block(id, {**common_keys(**common), **keys})


def _bounds(
    retry: Mapping[str, Any] | None, timeout: Duration | None, compensate: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "retry": retry_of(retry),
        "timeout": duration_of("timeout", timeout),
        "compensate": None if compensate is None else dict(compensate),
    }
