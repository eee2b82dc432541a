"""Names of the contract's enums without their prefix, as the cores use them, and back."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from tierflow_contracts.common.v1 import execution_pb2 as ex
from tierflow_contracts.common.v1 import failure_pb2 as fa
from tierflow_contracts.common.v1 import state_pb2 as st

Number = TypeVar("Number", bound=int)


class EnumNames(Generic[Number]):
    """Names of an enum without their common prefix, and back. The name of UNSPECIFIED is the empty string.

    Numbers that this build does not know read as `<PREFIX>_<n>` and are written back as they came (A12).
    """

    def __init__(self, items: list[tuple[str, Number]]) -> None:
        self._prefix = next(name for name, number in items if number == 0).removesuffix("UNSPECIFIED")
        self._names: dict[int, str] = {number: name.removeprefix(self._prefix) for name, number in items}
        self._names[0] = ""
        self._numbers: dict[str, Number] = {name.removeprefix(self._prefix): number for name, number in items if number}
        self._numbers[""] = next(number for _, number in items if number == 0)
        self.names: tuple[str, ...] = tuple(name for number, name in sorted(self._names.items()) if number)

    def name(self, number: int) -> str:
        """The name of a number."""
        return self._names.get(number) or (f"{self._prefix}{number}" if number else "")

    def number(self, name: str) -> Number:
        """The number of a name. Raises ValueError for a name that is neither known nor an unknown number's."""
        number = self._numbers.get(name)
        if number is not None:
            return number
        digits = name.removeprefix(self._prefix)
        if digits is name or not digits.isdecimal():
            raise ValueError(f"{name!r} is none of {', '.join(self.names)}")
        return int(digits)  # type: ignore[return-value]

    def knows(self, number: int) -> bool:
        """Whether this build knows the number and it is not UNSPECIFIED."""
        return number != 0 and number in self._names


SWARM_STATES: Final[EnumNames[st.SwarmState.ValueType]] = EnumNames(st.SwarmState.items())
RUN_STATES: Final[EnumNames[st.RunState.ValueType]] = EnumNames(st.RunState.items())
STEP_STATES: Final[EnumNames[st.StepState.ValueType]] = EnumNames(st.StepState.items())
OUTCOMES: Final[EnumNames[st.Outcome.ValueType]] = EnumNames(st.Outcome.items())
TOOL_OUTCOMES: Final[EnumNames[st.ToolOutcome.ValueType]] = EnumNames(st.ToolOutcome.items())
FAILURE_POLICIES: Final[EnumNames[ex.FailurePolicy.ValueType]] = EnumNames(ex.FailurePolicy.items())
ON_LOST: Final[EnumNames[ex.OnLost.ValueType]] = EnumNames(ex.OnLost.items())
ERROR_CODES: Final[EnumNames[fa.ErrorCode.ValueType]] = EnumNames(fa.ErrorCode.items())
