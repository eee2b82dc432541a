"""What people and other services do to a run from outside, as test files write it, as the core takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tierflow_expressions.values import dumps
from tierflow_flow import Flow
from tierflow_orchestrator.core import commands

from tierflow_kit.rehearsal import without_jitter

SOMEBODY = "test"
Action = Mapping[str, Any]


def kind_of(action: Action) -> str:
    """Which of the actions it is."""
    return next(kind for kind in COMMANDS if kind in action)


def command_of(action: Action, command_id: str) -> commands.RunCommand:
    """The command of an action, in the normal form of `case_keys.ACTION`."""
    return COMMANDS[kind_of(action)](action, command_id)


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
    kind: str, command: type[commands.Cancel] | type[commands.Resume] | type[commands.Retry]
) -> Callable[[Action, str], commands.RunCommand]:
    def made(action: Action, command_id: str) -> commands.RunCommand:
        return command(command_id=command_id, actor=action.get("by", SOMEBODY), reason=action[kind])

    return made


def _pause(action: Action, command_id: str) -> commands.RunCommand:
    by, interrupt = action.get("by", SOMEBODY), action.get("interrupt", False)
    return commands.Pause(command_id=command_id, actor=by, reason=action["pause"], interrupt=interrupt)


def _skip(action: Action, command_id: str) -> commands.RunCommand:
    output = dumps(action["output"]) if "output" in action else None
    by, reason = action.get("by", SOMEBODY), action.get("reason", "")
    return commands.Skip(command_id=command_id, step_id=action["skip"], output=output, actor=by, reason=reason)


def _migrate(action: Action, command_id: str) -> commands.RunCommand:
    """`migrate` is the flow itself by now, read from its file."""
    flow: Flow = action["migrate"]
    by, reason = action.get("by", SOMEBODY), action.get("reason", "")
    return commands.Migrate(
        command_id=command_id, definition=flow.canonical, actor=by, reason=reason, flow=without_jitter(flow)
    )


COMMANDS: Mapping[str, Callable[[Action, str], commands.RunCommand]] = {
    "signal": _signal,
    "approve": _deciding("approve", "APPROVED"),
    "reject": _deciding("reject", "REJECTED"),
    "delegate": _deciding("delegate", "DELEGATED"),
    "skip": _skip,
    "retry": _telling("retry", commands.Retry),
    "migrate": _migrate,
    "cancel": _telling("cancel", commands.Cancel),
    "pause": _pause,
    "resume": _telling("resume", commands.Resume),
}
