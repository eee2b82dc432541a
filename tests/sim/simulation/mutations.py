"""Faults that somebody could build into the product tomorrow: each is put in by replacing a few lines, and must be caught by an invariant within so many seeds.

What is found here is not whether the product is right, but whether the simulation would notice if it were not.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from tierflow_coordinator.core import commands as swarm_commands
from tierflow_coordinator.core import events as swarm_events
from tierflow_coordinator.core import states as swarm_states
from tierflow_durable.births import Births
from tierflow_durable.entity import Created
from tierflow_durable.owning import Owning
from tierflow_durable.relay import Relay
from tierflow_executor.core.table import UNARY, Attempts
from tierflow_orchestrator import starting
from tierflow_orchestrator.core import commands, events
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.engine import Engine
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.sessions import Sessions

from simulation.paid_mutations import PAID
from simulation.patches import Mutation, Patches
from simulation.steered_mutations import STEERED

# By their names: the packages export functions that are called like the modules.
swarm_decide = importlib.import_module("tierflow_coordinator.core.decide")
run_decide = importlib.import_module("tierflow_orchestrator.core.decide")
run_evolve = importlib.import_module("tierflow_orchestrator.core.evolve")
core_attempts = importlib.import_module("tierflow_orchestrator.core.attempts")

# --- writing ---


def _no_fence_check(patches: Patches) -> None:
    patches.sql("held", " AND NOT fenced", "")


def _early_answer(patches: Patches) -> None:
    def decide(self: Any, entity: Any, command: Any, birth: Any) -> None:
        before(self, entity, command, birth)
        birth.on_done(Created(entity.id, created=True, reply=birth.reply))
        birth.on_done = lambda _: None

    before = patches.put(Births, "_decide", decide)


def _no_request_id(patches: Patches) -> None:
    patches.sql("creates", "WHERE {keyed}", "WHERE true")


def _no_owner_check(patches: Patches) -> None:
    patches.sql("updates", "entity.id = u.id AND entity.owner IS NOT DISTINCT FROM held.id", "entity.id = u.id")
    patches.sql("held", " AND NOT fenced", "")


# --- owning ---


def _never_woken(patches: Patches) -> None:
    async def claimed(self: Any, query: str, /, **values: Any) -> dict[str, int]:
        return {} if query == "due" else await before(self, query, **values)

    before = patches.put(Owning, "_claimed", claimed)


def _nothing_reopened(patches: Patches) -> None:
    patches.put(Engine, "opened", lambda self, entity: self.resettle(entity))


# --- relaying ---


def _watermark_too_far(patches: Patches) -> None:
    def enqueue(self: Any, position: int, *more: Any, last: bool) -> None:
        before(self, position, *more, last=last)
        self.watermark = position

    before = patches.put(Relay, "enqueue", enqueue)


# --- dispatching ---


def _early_dispatch(patches: Patches) -> None:
    def assign(self: Any, entity: Any, step_id: str, link: Link) -> bool:
        done = before(self, entity, step_id, link)
        run = entity.state
        step = run.steps[step_id]
        if done and step.state == "SCHEDULED":
            event = events.StepScheduled(
                step_id=step_id, attempt=step.attempt, attempt_id=step.attempt_id, epoch=step.epoch, executor_id=step.executor_id,
                handler=step.handler, input=step.input,
            )  # fmt: skip
            self._dispatch(run, event)
        return bool(done)

    before = patches.put(Engine, "_assign", assign)


def _repeated_after_crash(patches: Patches) -> None:
    """A change of owner raises the epoch: attempts of an adopted run are given up instead of asked for."""

    def recover(self: Any, run: Any, effect: Any) -> None:
        lost = commands.ReportLost(attempt_id=effect.attempt_id, reason="the orchestrator has changed")
        asyncio.get_running_loop().call_soon(self._tell, run.id, lost)

    patches.put(Engine, "_recover", recover)


def _executor_by_owner(patches: Patches) -> None:
    """An executor keeps its attempts by who asked for them: asked by a successor it knows nothing, and does it again."""

    def request(self: Any, attempt_id: str, run_id: str, instance: str) -> Any:
        known = self._known.get(attempt_id)
        if known is not None and known.owner not in (instance, UNARY):
            del self._known[attempt_id]
        return asked(self, attempt_id, run_id, instance)

    def adopt(self: Any, attempt_id: str, instance: str, now: int) -> Any:
        known = self._known.get(attempt_id)
        if known is not None and known.owner != instance:
            return None
        return adopted(self, attempt_id, instance, now)

    asked = patches.put(Attempts, "request", request)
    adopted = patches.put(Attempts, "adopt", adopt)


def _early_acknowledgement(patches: Patches) -> None:
    def result(self: Any, link: Any, message: Any) -> None:
        before(self, link, message)
        self.dispatcher.acknowledge(link, message.context.attempt_id)

    before = patches.put(Engine, "result", result)


def _lease_forgotten(patches: Patches) -> None:
    def link(self: Any, address: str, listener: Any, alive: Any) -> None:
        before(self, address, listener, lambda: True)

    before = patches.put(Link, "__init__", link)


def _slot_kept(patches: Patches) -> None:
    def land(self: Any, attempt_id: str) -> None:
        flight = self.flights.get(attempt_id)
        before(self, attempt_id)
        if flight is not None and flight.link is not None and flight.stop_reason is not None:
            flight.link.used += 1

    before = patches.put(Dispatcher, "land", land)


# --- deciding ---


def _lost_join(patches: Patches) -> None:
    """The second of two needs that end in one decision is not counted."""

    def end(run: Any, step: Any, state: str, time: int) -> None:
        before(run, step, state, time)
        for other_id in run.definition().dependants.get(step.id, ()):
            other = run.steps[other_id]
            if len(run.spec(other).needs) > 1 and other.waiting == 1 and step.attempt > 1:
                other.waiting += 1

    before = patches.put(run_evolve, "end_step", end)


def _late_accepted(patches: Patches) -> None:
    """A result is taken for whichever attempt of its step is in flight."""

    def result(turn: Any, command: Any) -> Any:
        step, _ = core_attempts.find(turn.run, command.attempt_id)
        if step is not None and step.in_flight and step.attempt_id != command.attempt_id:
            command = msgspec.structs.replace(command, attempt_id=step.attempt_id)
        return before(turn, command)

    before = patches.put(core_attempts, "result", result)
    patches.entry(run_decide._BY_TYPE, commands.ReportResult, result)


def _second_end(patches: Patches) -> None:
    """A result that comes again ends its swarm again."""

    def finish(swarm: Any, command: Any) -> Any:
        if swarm.ended and swarm.run is not None and swarm.state != swarm_states.TERMINATED:
            return (swarm_events.SwarmEnded(from_=swarm_states.RUNNING, to=swarm.state, outcome=swarm.outcome),)
        return before(swarm, command)

    before = patches.entry(swarm_decide._DECIDE, swarm_commands.FinishRun, finish)


# --- between the tiers ---


def _result_said_once(patches: Patches) -> None:
    """A result that was not acknowledged is not said again."""

    async def sweep(self: Any, before: int) -> None:
        """Nothing."""

    def ended(self: Any, run: Any) -> None:
        said(self, run)
        self._results.forget(run.id)

    said = patches.put(Sessions, "ended", ended)
    patches.put(Sessions, "_sweep", sweep)


def _word_too_soon(patches: Patches) -> None:
    """A command on its way is said to have taken effect, whatever it was that changed its run."""

    async def command(self: Any, session: Any, request: Any) -> None:
        self._commands[request.run_id] = request.command_id
        await before(self, session, request)

    before = patches.put(Sessions, "_command", command)


def _tombstone_taken(patches: Patches) -> None:
    """A run that was cancelled before it came does not refuse its request."""

    async def is_buried(*_: object) -> bool:
        return False

    patches.put(starting, "is_buried", is_buried)


MUTATIONS: tuple[Mutation, ...] = (
    Mutation("no-fence-check", "a group commit does not look at its fence (R1)", _no_fence_check, ("V23", "V24", "V40"), 400),
    Mutation("no-owner-check", "nor at whose the entities are (R3)", _no_owner_check, ("V23", "V24", "V40"), 400),
    Mutation("early-answer", "a create is answered before it is committed (R7)", _early_answer, ("V26",), 20),
    Mutation("no-request-id", "a request id is stored and not looked at (R8)", _no_request_id, ("V27",), 60),
    Mutation("never-woken", "what is parked is never woken (R15)", _never_woken, ("V38",), 200),
    Mutation("nothing-reopened", "an adopted run is not asked what is open (R16)", _nothing_reopened, ("V38",), 200),
    Mutation("watermark-too-far", "the watermark says what was sent, not what has arrived (R19)", _watermark_too_far, ("V36", "V37"), 200),
    Mutation("early-dispatch", "an attempt is sent before it is committed (R24)", _early_dispatch, ("V30",), 20),
    Mutation("repeated-after-crash", "a change of owner raises the epoch (R23)", _repeated_after_crash, ("V32",), 200),
    Mutation("executor-by-owner", "an executor does for a successor what it does already (R24, R25)", _executor_by_owner, ("V31",), 200),
    Mutation("early-acknowledgement", "a result may be forgotten before it is committed (R27)", _early_acknowledgement, ("V33",), 20),
    Mutation("lease-forgotten", "an executor is told something past the lease (R25)", _lease_forgotten, ("V34",), 200),
    Mutation("slot-kept", "the slot of a stopped attempt stays taken (R24)", _slot_kept, ("V35", "V38"), 100),
    Mutation("lost-join", "an ended need is not counted", _lost_join, ("V38", "V11", "V13"), 100),
    Mutation("late-accepted", "a late result is taken for that of the present attempt (R23)", _late_accepted, ("V42", "V10", "V11"), 500),
    Mutation("second-end", "a result that comes again ends its swarm again (R28)", _second_end, ("V28", "V38"), 400),
    Mutation("result-said-once", "a result without acknowledgement is not said again (R28)", _result_said_once, ("V38",), 200),
    Mutation("word-too-soon", "a command is said to have taken effect before it is stored (R7, R29)", _word_too_soon, ("V26", "V38"), 500),
    Mutation("tombstone-taken", "a cancel that came before its run does not refuse it (R29)", _tombstone_taken, ("V45",), 400),
    *STEERED,
    *PAID,
)  # fmt: skip


@contextmanager
def applied(name: str) -> Iterator[Mutation]:
    """The product with a fault in it."""
    mutation = next(each for each in MUTATIONS if each.name == name)
    patches = Patches()
    try:
        mutation.patch(patches)
        yield mutation
    finally:
        patches.undo()


def apply(name: str) -> None:
    """Puts a fault in for good, in this interpreter."""
    next(each for each in MUTATIONS if each.name == name).patch(Patches())
