"""What goes wrong: each fault of a scenario, done to the world at its moment and undone after its time."""

from __future__ import annotations

from typing import Any

from tierflow_executor.wire import RESULTS

from simulation.scenario import Fault


class Faults:
    """Carries out the faults of a scenario."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.open = 0
        """Faults that are still to come, or to be undone."""

    def plan(self) -> None:
        for fault in self.world.scenario.faults:
            self.open += 1
            self.world.at(fault.at, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        self.world.note("fate", str(fault))
        getattr(self, "_" + fault.kind.replace("-", "_"))(fault)

    def _over(self) -> None:
        self.open -= 1

    def _later(self, seconds: float, undo: Any, *args: Any) -> None:
        """Undoes something after a while."""

        def done() -> None:
            undo(*args)
            self._over()

        self.world.after(seconds, done)

    # --- processes ---

    def _at_await(self, fault: Fault, action: Any) -> None:
        """Does something so many callbacks of the process later; a process without any is met where it is."""
        current = self.world.processes[fault.who].current
        if current is None or not current.alive or current.loop.frozen or not fault.fuse:
            action()
            return
        loop = current.loop
        done = [False]

        def once() -> None:
            if not done[0]:
                done[0] = True
                action()

        loop.fuse, loop.blow = fault.fuse, once
        self.world.after(1.0, once)

    def _crash(self, fault: Fault) -> None:
        process = self.world.processes[fault.who]

        def crash() -> None:
            if process.current is not None:
                process.current.crash(silent=fault.silent)
            self._later(fault.seconds, process.start)

        self._at_await(fault, crash)

    def _freeze(self, fault: Fault) -> None:
        process = self.world.processes[fault.who]

        def freeze() -> None:
            current = process.current
            if current is None or not current.alive or current.loop.frozen:
                self._over()
                return
            current.loop.freeze()
            self.world.network.frozen(process.name)
            self._later(fault.seconds, current.loop.thaw)

        self._at_await(fault, freeze)

    _blink = _freeze

    def _stop(self, fault: Fault) -> None:
        current = self.world.processes[fault.who].current
        if current is not None:
            current.drain()
        self._over()

    def _replace(self, fault: Fault) -> None:
        """The process hangs and is given up, another is started under its name; then the old one goes on for a while."""
        process = self.world.processes[fault.who]
        old = process.current
        if old is None or not old.alive or old.loop.frozen:
            self._over()
            return
        old.loop.freeze()
        self.world.network.frozen(process.name)
        process.abandon()
        self.world.after(0.2, process.start)
        self.world.after(0.3 + fault.seconds, old.loop.thaw)
        self._later(2.0 + fault.seconds, lambda: old.crash(silent=False))

    def _skew(self, fault: Fault) -> None:
        """Somebody sets the machine's clock."""
        self.world.processes[fault.who].skew.wall += fault.amount
        self._over()

    def _repeat(self, fault: Fault) -> None:
        """An executor says results again that it has said before, to anybody who is connected."""
        until = self.world.now + fault.seconds
        self._say_again(fault.who, until)

    def _say_again(self, name: str, until: float) -> None:
        if self.world.now > until:
            self._over()
            return
        chance = self.world.random
        one = self.world.processes[name].current
        if one is not None and one.alive and one.parts.get("said") and one.parts["engine"].streams:
            stream = chance.choice(list(one.parts["engine"].streams))
            item = chance.choice(one.parts["said"][-20:])
            one.loop.deliver(self.world.now, stream.outbox.put, RESULTS, item)
        self.world.after(chance.random() * 0.2, self._say_again, name, until)

    # --- the network ---

    def _cut(self, fault: Fault) -> None:
        if fault.who == fault.whom:
            self._over()
            return
        self.world.network.cut(fault.who, fault.whom)
        self._later(fault.seconds, self.world.network.heal, fault.who, fault.whom)

    def _break(self, fault: Fault) -> None:
        for connection in self.world.network.between(fault.who):
            if self.world.random.random() < 0.7:
                connection.break_("the connection is broken")
        self._over()

    def _slow_network(self, fault: Fault) -> None:
        self.world.network.slow = fault.amount
        self._later(fault.seconds, setattr, self.world.network, "slow", 1.0)

    # --- the database ---

    def _cut_database(self, fault: Fault) -> None:
        self.world.database.cut(fault.who)
        self._later(fault.seconds, self.world.database.heal, fault.who)

    def _database_restart(self, fault: Fault) -> None:
        if not self.world.database.up:
            self._over()
            return
        self.world.database.stop(polite=not fault.silent)
        self._later(min(fault.seconds, 0.5), self.world.database.start)

    def _database_away(self, fault: Fault) -> None:
        if not self.world.database.up:
            self._over()
            return
        self.world.database.stop(polite=False)
        self._later(fault.seconds, self.world.database.start)

    def _database_slow(self, fault: Fault) -> None:
        self.world.database.slow = fault.amount
        self._later(fault.seconds, setattr, self.world.database, "slow", 1.0)

    def _database_stall(self, fault: Fault) -> None:
        self.world.database.stall_until = self.world.now + fault.seconds
        self._over()

    def _database_hang(self, fault: Fault) -> None:
        """The disk hangs, and in the middle of that a proxy drops all connections."""
        self.world.database.stall_until = self.world.now + fault.seconds
        self._later(fault.seconds * 0.1, self.world.database.shake)

    def _database_faults(self, fault: Fault) -> None:
        self.world.database.fault_rate = fault.amount
        self._later(fault.seconds, setattr, self.world.database, "fault_rate", 0.0)

    # --- the event stream ---

    def _nats_away(self, fault: Fault) -> None:
        self.world.broker.stop()
        self._later(fault.seconds, self.world.broker.start)

    def _nats_lost(self, fault: Fault) -> None:
        self.world.broker.lose()
        self._over()

    def _nats_loss(self, fault: Fault) -> None:
        self.world.broker.loss = fault.amount
        self._later(fault.seconds, setattr, self.world.broker, "loss", 0.0)
