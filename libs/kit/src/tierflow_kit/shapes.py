"""Shapes of values in test files that flows do not have: mappings and lists of something, and moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tierflow_flow.moments import parse_moment
from tierflow_flow.problems import Place, Problems
from tierflow_flow.shapes import INVALID, Shape, refuse


@dataclass(frozen=True)
class Each:
    """A mapping from names to values of one shape."""

    shape: Shape

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "object", "additionalProperties": self.shape.schema}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The mapping, without what is wrong."""
        if not isinstance(value, dict):
            return refuse("a mapping", value, place, problems)
        read = {name: self.shape.read(item, (*place, name), problems) for name, item in value.items()}
        return {name: item for name, item in read.items() if item is not INVALID}


@dataclass(frozen=True)
class Several:
    """A list of values of one shape; where `alone`, one value stands for a list of one."""

    shape: Shape
    alone: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        listed = {"type": "array", "items": self.shape.schema}
        return {"anyOf": [listed, self.shape.schema]} if self.alone else listed

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The list, without what is wrong."""
        if not isinstance(value, list):
            if not self.alone:
                return refuse("a list", value, place, problems)
            item = self.shape.read(value, place, problems)
            return [] if item is INVALID else [item]
        read = [self.shape.read(item, (*place, index), problems) for index, item in enumerate(value)]
        return [item for item in read if item is not INVALID]


@dataclass(frozen=True)
class Short:
    """A section for which something shorter may stand: `expand` makes the section's mapping of it."""

    shape: Shape
    kind: type
    expand: Callable[[Any], dict[str, Any]]
    brief: dict[str, Any]
    """Schema of the short form."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [self.brief, self.shape.schema]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The section."""
        return self.shape.read(self.expand(value) if isinstance(value, self.kind) else value, place, problems)


@dataclass(frozen=True)
class Moment:
    """A moment with a time zone; its normal form is microseconds since the epoch."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "string"}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """Microseconds since the epoch."""
        if not isinstance(value, str):
            return refuse("text with a moment such as 2030-01-31T08:00:00Z", value, place, problems)
        try:
            return parse_moment(value)
        except ValueError as error:
            problems.add(place, str(error))
            return INVALID
