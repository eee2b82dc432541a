"""What a swarm decides about what it shares: its context and its blackboard, by expected versions. Everything that changes makes one revision more.

Agents (attempts of the swarm's runs) may write to the blackboard as far as the policy lets them; context they may change only while the swarm is adaptive, and then only goal and policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from tierflow_runtime.values import Failure, FailureError, Violation

from tierflow_coordinator.core import commands, events
from tierflow_coordinator.core.board import Board
from tierflow_coordinator.core.ledger import funded
from tierflow_coordinator.core.swarm import Swarm, settings_of

MOST_KEYS: Final = 10_000
MOST_BYTES: Final = 256 << 20
LONGEST_POLICY: Final = 64 * 1024
_EMPTY: Final = Board()


def shared(swarm: Swarm) -> Board:
    """What it shares; to be read only."""
    return swarm.board or _EMPTY


def reply(swarm: Swarm, command: commands.Shared, emitted: Sequence[events.SwarmEvent]) -> commands.Reply:
    """The answer to a command about what is shared."""
    board = shared(swarm)
    known = board.known.get(command.command_id)
    changed = 0
    for event in emitted:
        if isinstance(event, events.ContextRestored):
            changed = sum(entry.version == event.revision for entry in board.entries.values())
    return commands.Reply(
        applied=known is not None,
        state=swarm.state,
        generation=swarm.generation,
        revision=known or board.revision,
        changed=changed,
    )


def write(swarm: Swarm, command: commands.WriteKeys) -> Sequence[events.SwarmEvent]:
    """Writes keys, all of them or none."""
    board = shared(swarm)
    if command.command_id in board.known:
        return ()
    _alive(swarm)
    _check_versions(board, command)
    rules = Rules.of(board.policy)
    _check_protected(rules, command)
    changes = tuple(
        events.KeyChanged(
            key=change.key,
            previous=board.entries[change.key].version if change.key in board.entries else 0,
            value=change.value,
            encoding=change.encoding,
            size=change.size,
            sha256=change.sha256,
        )
        for change in command.changes
        if change.value is not None or change.key in board.entries
    )
    if not changes:
        return ()
    _check_room(board, changes, rules)
    return (
        events.BlackboardChanged(
            revision=board.revision + 1,
            changes=changes,
            actor=command.actor,
            run_id=command.run_id,
            step_id=command.step_id,
            command_id=command.command_id,
        ),
    )


def update(swarm: Swarm, command: commands.UpdateContext) -> Sequence[events.SwarmEvent]:
    """Changes what is agreed on."""
    board = shared(swarm)
    if command.command_id in board.known:
        return ()
    _alive(swarm)
    _check_agent(swarm, command)
    if command.expected != board.version:
        raise _conflict("expected_version", f"the context has version {board.version}, not {command.expected}")
    before = settings_of(swarm)
    after = msgspec.structs.replace(
        before,
        goal=before.goal if command.goal is None else command.goal,
        limits=before.limits if command.limits is None else command.limits,
        policy=before.policy if command.policy is None else merged(before.policy, command.policy),
        adaptive=before.adaptive if command.adaptive is None else command.adaptive,
    )
    changed = tuple(name for name in after.__struct_fields__ if getattr(after, name) != getattr(before, name))
    if not changed:
        return ()
    return (
        events.ContextUpdated(
            version=board.version + 1,
            revision=board.revision + 1,
            settings=after,
            changed=changed,
            actor=command.actor,
            run_id=command.run_id,
            step_id=command.step_id,
            reason=command.reason,
            command_id=command.command_id,
        ),
    )


def fund(swarm: Swarm, command: commands.FundSwarm) -> Sequence[events.SwarmEvent]:
    """Changes what the swarm and its run may spend (C12)."""
    board = shared(swarm)
    if command.command_id in board.known:
        return ()
    _alive(swarm)
    limits, grant = funded(swarm, command.limits, command.cleared)
    if limits == swarm.allocation:
        return ()
    return (
        events.ContextUpdated(
            version=board.version + 1,
            revision=board.revision + 1,
            settings=msgspec.structs.replace(settings_of(swarm), limits=limits),
            changed=("limits",),
            grant=grant,
            actor=command.actor,
            reason=command.reason,
            command_id=command.command_id,
        ),
    )


def checkpoint(swarm: Swarm, command: commands.CheckpointContext) -> Sequence[events.SwarmEvent]:
    """Names what is shared now."""
    board = shared(swarm)
    if command.command_id in board.known:
        return ()
    _alive(swarm)
    return (
        events.ContextCheckpointed(
            name=command.name,
            revision=board.revision,
            hash=board.hash(settings_of(swarm)),
            actor=command.actor,
            command_id=command.command_id,
        ),
    )


def restore(swarm: Swarm, command: commands.RestoreContext) -> Sequence[events.SwarmEvent]:
    """Goes back to a checkpoint, as a new revision."""
    board = shared(swarm)
    if command.command_id in board.known:
        return ()
    _alive(swarm)
    found = board.checkpoint(command.name)
    if found is None:
        names = ", ".join(each.name for each in board.checkpoints) or "none"
        raise FailureError(_failure("NOT_FOUND", f"name: there is no checkpoint {command.name}; there are: {names}."))
    if command.expected is not None and command.expected != board.revision:
        raise _conflict("expected_revision", f"the context has revision {board.revision}, not {command.expected}")
    if not board.different(found) and found.settings == settings_of(swarm):
        return ()
    return (
        events.ContextRestored(
            name=found.name,
            to_revision=found.revision,
            revision=board.revision + 1,
            hash=found.hash,
            actor=command.actor,
            reason=command.reason,
            command_id=command.command_id,
        ),
    )


class Rules(msgspec.Struct, frozen=True):
    """What a policy says of the blackboard, under `blackboard`."""

    max_keys: int = MOST_KEYS
    max_bytes: int = MOST_BYTES
    protected: tuple[str, ...] = ()
    """Keys that begin with one of these are not for agents to write."""

    @classmethod
    def of(cls, policy: str) -> Rules:
        """The rules of a policy."""
        if '"blackboard"' not in policy:
            return _NO_RULES
        return msgspec.convert(msgspec.json.decode(policy).get("blackboard", {}), cls)


_NO_RULES: Final = Rules()


def merged(policy: str, patch: str) -> str:
    """A policy with changes merged in (RFC 7396). Raises FailureError INVALID_REQUEST where what comes of it is no policy."""
    after = msgspec.json.encode(
        _merged(msgspec.json.decode(policy), msgspec.json.decode(patch)), order="sorted"
    ).decode()
    if len(after) > LONGEST_POLICY:
        raise _invalid("changes.policy", f"would have {len(after)} characters; at most {LONGEST_POLICY} are allowed")
    try:
        Rules.of(after)
    except (msgspec.ValidationError, AttributeError) as error:
        raise _invalid("changes.policy.blackboard", f"{error}") from None
    return after


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _alive(swarm: Swarm) -> None:
    if swarm.ended:
        raise FailureError(
            _failure("STATE_CONFLICT", f"The swarm is {swarm.state}: what it shared can be read, not changed.")
        )


def _check_agent(swarm: Swarm, command: commands.UpdateContext) -> None:
    """What agents may not (B20)."""
    if not command.run_id:
        return
    if not swarm.options.emergent:
        text = "The swarm is not adaptive: its agents may not change its context. Set `emergent`, or `adaptive` in its context."
        raise FailureError(_failure("PERMISSION_DENIED", text))
    for name in ("limits", "adaptive"):
        if getattr(command, name) is not None:
            raise FailureError(_failure("PERMISSION_DENIED", f"changes.{name}: not for agents to change."))


def _check_versions(board: Board, command: commands.WriteKeys) -> None:
    found: list[Violation] = []
    for place, change in enumerate(command.changes):
        if change.expected is None:
            continue
        entry = board.entries.get(change.key)
        version = 0 if entry is None else entry.version
        if version != change.expected:
            is_now = f"has version {version}" if version else "is not there"
            text = f"{change.key} {is_now}, expected was {change.expected or 'that it is not'}"
            found.append(Violation(field=f"changes[{place}].expected_version", description=text))
    if found:
        text = "; ".join(f"{each.field}: {each.description}" for each in found[:3])
        raise FailureError(_failure("VERSION_CONFLICT", text, violations=tuple(found)))


def _check_protected(rules: Rules, command: commands.WriteKeys) -> None:
    if not command.run_id or not rules.protected:
        return
    for place, change in enumerate(command.changes):
        if change.key.startswith(rules.protected):
            text = f"changes[{place}].key: {change.key} is protected by the swarm's policy; agents may only read it."
            raise FailureError(_failure("PERMISSION_DENIED", text))


def _check_room(board: Board, changes: Sequence[events.KeyChanged], rules: Rules) -> None:
    keys, size = len(board.entries), board.bytes
    for change in changes:
        old = board.entries.get(change.key)
        keys += (change.value is not None) - (old is not None)
        size += change.size - (0 if old is None else old.size)
    for name, now, before, most in (
        ("keys", keys, len(board.entries), min(rules.max_keys, MOST_KEYS)),
        ("bytes", size, board.bytes, min(rules.max_bytes, MOST_BYTES)),
    ):
        if now > most and now > before:
            text = f"changes: the blackboard would have {now} {name}; at most {most} are allowed."
            raise FailureError(_failure("PAYLOAD_TOO_LARGE", text))


def _invalid(field: str, description: str) -> FailureError:
    found = (Violation(field=field, description=description),)
    return FailureError(_failure("INVALID_REQUEST", f"{field} {description}", violations=found))


def _conflict(field: str, description: str) -> FailureError:
    found = (Violation(field=field, description=description),)
    return FailureError(_failure("VERSION_CONFLICT", f"{field}: {description}", violations=found))


def _failure(code: str, message: str, **more: Any) -> Failure:
    return Failure(code=code, message=message, tier=1, component="context", operation="decide", **more)
