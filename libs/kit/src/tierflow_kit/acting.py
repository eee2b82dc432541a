"""What people and other services do to a run from outside, as test files write it, as the core takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tierflow_flow.values import dumps
from tierflow_orchestrator.core import commands

SOMEBODY = "test"
Action = Mapping[str, Any]


def kind_of(action: Action) -> str:
    """Which of the actions it is."""
    return next(kind for kind in _COMMANDS if kind in action)


def command_of(action: Action, command_id: str) -> commands.RunCommand:
    """The command of an action, in the normal form of `case_keys.ACTION`."""
    return _COMMANDS[kind_of(action)](action, command_id)


def _signal(action: Action, command_id: str) -> commands.RunCommand:
    by = action.get("by", SOMEBODY)
    return commands.Signal(command_id=command_id, name=action["signal"], payload=dumps(action.get("with")), actor=by)


def _deciding(kind: str, verdict: str) -> Callable[[Action, str], commands.RunCommand]:
    def made(action: Action, command_id: str) -> commands.RunCommand:
        return commands.DecideApproval(
            command_id=command_id,
            step_id=action[kind],
            verdict=verdict,
            actor=action.get("by", SOMEBODY),
            roles=tuple(action.get("roles", ())),
            reason=action.get("reason", ""),
            delegate_to=action.get("to", ""),
        )

    return made


def _telling(
    kind: str, command: type[commands.Cancel] | type[commands.Pause] | type[commands.Resume]
) -> Callable[[Action, str], commands.RunCommand]:
    def made(action: Action, command_id: str) -> commands.RunCommand:
        return command(command_id=command_id, actor=action.get("by", SOMEBODY), reason=action[kind])

    return made


_COMMANDS: Mapping[str, Callable[[Action, str], commands.RunCommand]] = {
    "signal": _signal,
    "approve": _deciding("approve", "APPROVED"),
    "reject": _deciding("reject", "REJECTED"),
    "delegate": _deciding("delegate", "DELEGATED"),
    "cancel": _telling("cancel", commands.Cancel),
    "pause": _telling("pause", commands.Pause),
    "resume": _telling("resume", commands.Resume),
}
