"""What must hold of the events of steering: part of the checker of histories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tierflow_flow import from_canonical

from tierflow_testing.history_blocks import blocks_of, path_of


@dataclass(slots=True)
class StepSeen:
    """What the history has said of a step so far."""

    live: str = ""
    """Id of the attempt in flight."""
    started: bool = False
    ended: bool = False
    completed: bool = False
    done: bool = False
    """Whether it ended with a result that a later generation keeps."""
    tolerated: bool = False
    child: bool = False
    """Whether the attempt in flight is a run of another flow."""
    expanded: int = -1
    """Items of a map; -1 where it is none."""
    epoch: int = 0
    before: int = 0
    """The epoch with which its generation found it."""
    attempt: int = 0
    due: int | None = None
    """Set in BACKOFF and by timers."""
    stopping: bool = False
    """Whether it is being stopped although its run goes on."""
    comes_back: bool = False
    """Whether it is READY again once it has stopped."""
    waits: bool = False
    """Whether it has begun to wait for something other than an executor."""
    held: bool = False
    """Whether it waits at a breakpoint."""
    inner: list[str] = field(default_factory=list)
    """Steps that began below it."""
    iterations: int = 0
    aide: str = ""
    """The step that handles its error."""
    completed_at: int = -1

    def again(self) -> None:
        """It is going to run once more, in a new generation: its epochs go on."""
        epoch = self.epoch
        self.__init__(epoch=epoch, before=epoch, due=0 if epoch else None)  # type: ignore[misc]


def _way(name: str) -> tuple[str, str]:
    """Of a step: the step of the flow itself that it belongs to, and the item of that, where that is a map; else that step twice."""
    found = _WAY.match(name)
    return (found[1], found[0]) if found is not None else (name, name)


_WAY = re.compile(r"([^\[/#!]+)(\[\d+\])?")


def _has_begun(step: StepSeen) -> bool:
    """Whether anything has happened to it."""
    return bool(step.epoch or step.ended or step.expanded >= 0 or step.waits or step.inner)


class SteeringRules:
    """Handlers of the events of steering. The checker has the state."""

    needs: Mapping[str, Sequence[str]] | None
    blocks: Mapping[str, Sequence[str]] | None
    grown: dict[str, dict[str, Any]]
    steps: dict[str, StepSeen]
    state: str
    generation: int
    reopened: bool
    floor: int
    asked: dict[str, Any]
    most_attempts: int | None
    cancel: bool
    tolerated: bool
    untolerated: bool
    undone: list[str]

    def expect(self, holds: bool, invariant: str, text: str) -> None:
        """Notes a breach where it does not hold."""
        raise NotImplementedError

    def _step(self, name: str) -> StepSeen:
        """What is known of a step."""
        raise NotImplementedError

    def _touch(self, name: str) -> StepSeen:
        """A step moves."""
        raise NotImplementedError

    def _close(self, event: Any, *, known: bool = True) -> StepSeen:
        """An attempt ends."""
        raise NotImplementedError

    def _items_ended(self, name: str, step: StepSeen) -> None:
        """All items of a map must have ended."""
        raise NotImplementedError

    def reopening(self, event: Any, name: str) -> bool:
        """Whether it is what may follow the end of a generation: somebody retries a run that has FAILED (R31)."""
        if self.state != "FAILED":
            return False
        if name == "CommandReceived":
            return bool(event.command == "retry")
        return name == "RunStateChanged" and bool(event.generation)

    def reopen(self, event: Any) -> None:
        """A generation begins: the next one, from FAILED; what completed and does not depend on what failed is kept."""
        self.expect(event.generation > self.generation, "V1", f"generation {event.generation} after {self.generation}")
        self.generation, self.reopened, self.cancel = event.generation, True, False
        self.floor = max((step.epoch for step in self.steps.values()), default=0)
        reset = set(event.reset_steps)
        self.undone.clear()
        self._begin_again(reset)
        self._open_maps(reset)
        self._forget_asked(reset)
        self.tolerated = any(step.tolerated for step in self.steps.values() if step.ended)
        self.untolerated = False
        self._check_dependants(reset)

    def _begin_again(self, reset: set[str]) -> None:
        """What runs again is as new, and what was below it is gone."""
        for name in [name for name in self.steps if self._forgotten(name, reset)]:
            del self.steps[name]
        for name, step in self.steps.items():
            of, item = _way(name)
            if name in reset or (name == item != of and self._opens(of, reset) and not step.done):
                step.again()

    def _open_maps(self, reset: set[str]) -> None:
        """Maps that go on with their items have not ended."""
        for name, step in self.steps.items():
            if name == _way(name)[0] and self._opens(name, reset):
                step.ended, step.inner, step.aide = False, [], ""

    def _forget_asked(self, reset: set[str]) -> None:
        """Who runs again may ask again."""
        for name in list(self.asked):
            if name in reset or name not in self.steps or not self.steps[name].ended:
                del self.asked[name]

    def _check_dependants(self, reset: set[str]) -> None:
        """What needs a step that runs again does so itself."""
        for name in reset:
            for other, needs in (self.needs or {}).items():
                kept = name in needs and other not in reset and self._step(other).ended
                self.expect(not kept, "V4", f"{other} needs {name}, which runs again, and does not itself")

    def _forgotten(self, name: str, reset: set[str]) -> bool:
        """Whether it is below a step, or an item, that runs again."""
        of, item = _way(name)
        if name == of:
            return False
        if of in reset:
            return True
        if not self._opens(of, reset):
            return False
        # What handled the map's error; what an item that runs again had begun.
        return name.startswith(f"{of}!") or (name != item and not self._step(item).done)

    def _opens(self, name: str, reset: set[str]) -> bool:
        """Whether it is a map that goes on with the items that it had."""
        step = self.steps.get(name)
        return step is not None and name not in reset and step.expanded >= 0 and not step.done and not step.tolerated

    def skipped_by_hand(self, event: Any) -> None:
        """Somebody skipped a step, in whatever state it was."""
        if event.attempt_id:
            step = self._close(event, known=event.confirmed)
        else:
            step = self._touch(event.step_id)
            self.expect(not step.live, "V11", f"{event.step_id} was skipped with {step.live} in flight")
        if step.expanded >= 0:
            self._items_ended(event.step_id, step)
        step.ended = step.done = step.tolerated = self.tolerated = True

    def on_StepReused(self, event: Any, time: int) -> None:  # noqa: N802 - named after the event, as all that follow
        """A result comes before the first step."""
        self.expect(self.state == "QUEUED", "V3", f"{event.step_id} was taken over while the run was {self.state}")
        step = self._step(event.step_id)
        self.expect(not step.ended, "V2", f"{event.step_id} was taken over twice")
        step.ended = step.completed = step.done = True

    def on_StepInterrupted(self, event: Any, time: int) -> None:  # noqa: N802
        """An attempt that was told to stop has stopped, and does not count."""
        self.expect(self._step(event.step_id).stopping, "V5", f"{event.step_id} was interrupted without being told")
        step = self._close(event)
        step.attempt -= 1
        step.due = 0

    def on_StepHeld(self, event: Any, time: int) -> None:  # noqa: N802
        """A step waits."""
        step = self._touch(event.step_id)
        self.expect(not step.live and not step.held, "V2", f"{event.step_id} is held in flight, or twice")
        step.held = True

    def on_StepReleased(self, event: Any, time: int) -> None:  # noqa: N802
        """A step may go on."""
        self._touch(event.step_id).held = False

    def on_BreakpointsSet(self, event: Any, time: int) -> None:  # noqa: N802
        """Breakpoints change nothing by themselves."""

    def on_RunUpdated(self, event: Any, time: int) -> None:  # noqa: N802
        """Other limits hold from now on."""
        self.most_attempts = event.allocation.steps

    def on_RunMigrated(self, event: Any, time: int) -> None:  # noqa: N802
        """Another version of the flow: what has begun is part of it."""
        self.expect(self.state == "PAUSED", "V2", f"the run was migrated while it was {self.state}")
        flow = from_canonical(event.definition if hasattr(event, "definition") else event.definition_json)
        needs = {**self.grown["needs"], **{step.id: step.needs for step in flow.by_id.values()}}
        for name, step in list(self.steps.items()):
            own = _way(name)[0] == name
            if own and not _has_begun(step):
                del self.steps[name]
                continue
            step.held = step.held and not own  # The flow's own are looked at anew.
            known = path_of(name) in needs
            self.expect(known, "V4", f"{name} has begun and is not part of the version that the run goes on with")
        self.needs = needs
        if self.blocks is not None:
            self.blocks = {**self.grown["blocks"], **blocks_of(flow)}

    def on_SignalAnswered(self, event: Any, time: int) -> None:  # noqa: N802
        """An answer belongs to a step that is under way."""
        self._touch(event.step_id)
