"""Who gets a slot, and who must not wait for whom."""

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.slots import Slots


class Runs:
    """Runs that want one slot each, of one handler with their labels."""

    def __init__(self, slots: int) -> None:
        self.wanted: dict[str, dict[str, str]] = {}
        self.priorities: dict[str, int] = {}
        self.started: list[str] = []
        self.busy: set[str] = set()
        self.link = Link("127.0.0.1:1", Dispatcher((), Reports(), lambda: True), lambda: True)
        self.link.handlers, self.link.slots, self.link.connected = frozenset(["shell.run"]), slots, True
        self.link.hello = pb.ExecutorHello(labels={"region": "eu"})
        self.slots = Slots({"e/1": self.link}, self.may_start)

    def may_start(self, run_id: str, handler: str) -> bool:
        """The turn of a run; whether it still waits."""
        if run_id in self.busy:
            return True
        link = self.slots.reserve(run_id, handler, self.wanted[run_id], self.priorities.get(run_id, 0))
        if link is None:
            return True
        link.used += 1
        self.started.append(run_id)
        return False

    def want(self, run_id: str, **labels: str) -> None:
        """A run's step becomes ready."""
        self.wanted[run_id] = labels
        self.may_start(run_id, "shell.run")

    def free(self) -> None:
        """An attempt ends."""
        self.link.used -= 1
        self.slots.pump()


def test_labels_that_nobody_has_hold_nobody_up() -> None:
    """Q13: a step that no executor may perform waits; others of the same handler do not wait for it."""
    runs = Runs(slots=1)
    runs.want("nowhere", disk="fast")
    runs.want("a")
    runs.want("b", region="eu")
    assert runs.started == ["a"]
    runs.free()
    assert runs.started == ["a", "b"]
    assert runs.slots.waiting_counts() == {"shell.run": 1}
    runs.slots.forget("nowhere")
    assert runs.slots.waiting_counts() == {}


def test_who_cannot_take_a_slot_lets_the_next_try() -> None:
    """Q13: a run whose turn it is and that cannot start just now does not keep free slots from those behind it."""
    runs = Runs(slots=1)
    for run_id in ("first", "busy", "c"):
        runs.want(run_id)
    runs.busy.add("busy")
    runs.free()
    assert runs.started == ["first", "c"]
    runs.busy.clear()
    runs.free()
    assert runs.started == ["first", "c", "busy"]
    assert runs.slots.waiting_counts() == {}


def test_who_waits_longer_is_served_first() -> None:
    """Q13: one after the other, in the order in which they came."""
    runs = Runs(slots=1)
    for run_id in "abcd":
        runs.want(run_id)
    for _ in range(3):
        runs.free()
    assert runs.started == list("abcd")


def test_the_highest_priority_is_served_first() -> None:
    """J6, Q13: of several runs whose steps wait for the same handler; who waits longer among equals."""
    runs = Runs(slots=1)
    for run_id, priority in (("busy", 0), ("low", 0), ("lower", -5), ("high", 7), ("high2", 7), ("low2", 0)):
        runs.priorities[run_id] = priority
        runs.want(run_id)
    for _ in range(5):
        runs.free()
    assert runs.started == ["busy", "high", "high2", "low", "low2", "lower"]
