"""The simulated Postgres server: transactions with their locks, outages, stalls. `sessions` is how processes speak to it, `statements` what each statement does.

A statement arrives, takes its locks (or waits for who holds them, and looks again), reads what is committed, and commits a little later; what it writes is seen from then
on. Its answer may be lost, its session may break before, in between or after, and a session whose client is gone goes on until its statement has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.clocks import EPOCH
from simulation.loop import World

if TYPE_CHECKING:
    from simulation.sessions import Session


SHUTDOWN = "terminating connection due to administrator command"


class Blocked(Exception):
    """A lock is held by another transaction."""

    def __init__(self, holder: Transaction) -> None:
        self.holder = holder


class Lock:
    """A lock on a row: who holds it, alone or together."""

    __slots__ = ("alone", "holders")

    def __init__(self, holder: Transaction, *, alone: bool) -> None:
        self.holders = [holder]
        self.alone = alone


class Transaction:
    """One statement in its implicit transaction."""

    __slots__ = ("clock", "done", "keys", "locks", "me", "session", "wait", "waiters", "writes")

    def __init__(self, session: Session, clock: int) -> None:
        self.session = session
        self.clock = clock
        """The server's time, microseconds."""
        self.locks: dict[Any, Lock] = session.server.locks
        self.keys: list[Any] = []
        self.writes: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.waiters: list[Callable[[], None]] = []
        self.done = False
        self.wait = 0.0
        """Seconds that a statement which only reads takes beside its way."""
        self.me = ""
        """The instance for which a group commit is."""

    def exclusive(self, key: Any) -> None:
        """Takes a row for itself. Raises Blocked."""
        lock = self.locks.get(key)
        if lock is None:
            self.locks[key] = Lock(self, alone=True)
            self.keys.append(key)
            return
        for holder in lock.holders:
            if holder is not self:
                raise Blocked(holder)
        lock.alone = True

    def share(self, key: Any) -> None:
        """Takes a row together with others who share it. Raises Blocked."""
        lock = self.locks.get(key)
        if lock is None:
            self.locks[key] = Lock(self, alone=False)
            self.keys.append(key)
        elif self not in lock.holders:
            if lock.alone:
                raise Blocked(lock.holders[0])
            lock.holders.append(self)
            self.keys.append(key)

    def locked(self, key: Any) -> bool:
        """Whether another one holds the row."""
        lock = self.locks.get(key)
        return lock is not None and any(holder is not self for holder in lock.holders)

    def write(self, change: Callable[..., None], *args: Any) -> None:
        """Has something changed at the commit."""
        self.writes.append((change, args))

    def release(self) -> None:
        for key in self.keys:
            lock = self.locks[key]
            lock.holders.remove(self)
            if not lock.holders:
                del self.locks[key]
        self.keys.clear()

    def end(self) -> None:
        self.done = True
        self.release()
        waiters, self.waiters = self.waiters, []
        for again in waiters:
            again()


class Server:
    """The database server of the whole world."""

    def __init__(self, world: World, engine: Any) -> None:
        self.world = world
        self.engine = engine
        """Runs statements: `engine.plan(schema, text)` gives a callable of (transaction, parameters)."""
        self.random = world.random
        self.up = True
        self.started = world.now
        self.sessions: dict[int, Session] = {}
        self.locks: dict[Any, Lock] = {}
        self.advisory: dict[Any, Session] = {}
        self.pids = 1000
        self.slow = 1.0
        """What everything is multiplied by."""
        self.stall_until = 0.0
        """Commits wait until then: a disk that hangs."""
        self.fault_rate = 0.0
        """Share of the statements to which something happens."""
        self.unreachable: set[str] = set()
        """Processes that are cut off from the server."""
        self.held: list[tuple[str, Callable[[], None]]] = []
        self.on_commit: Callable[[Session, Any, Transaction], None] = lambda session, plan, transaction: None
        self.on_fault: Callable[[str], None] = lambda text: None

    def clock(self) -> int:
        return int((EPOCH + self.world.now) * 1e6)

    @property
    def started_at(self) -> int:
        return int((EPOCH + self.started) * 1e6)

    def delay(self) -> float:
        """One way over the network, or a bit of work, seconds."""
        return (0.00008 + 0.0004 * self.random.random()) * self.slow

    def carry(self, process: str, call: Callable[[], None]) -> None:
        """Something is on its way between a process and the server; while they are cut off, it waits."""
        if process in self.unreachable:
            self.held.append((process, call))
        else:
            call()

    def cut(self, process: str) -> None:
        self.unreachable.add(process)

    def heal(self, process: str) -> None:
        self.unreachable.discard(process)
        held, self.held = self.held, []
        for name, call in held:
            if name == process:
                call()
            else:
                self.held.append((name, call))

    def stop(self, *, polite: bool) -> None:
        """The server ends: every session breaks, what was not committed is gone."""
        self.up = False
        for session in list(self.sessions.values()):
            session.broken_by_server(SHUTDOWN if polite else "")

    def shake(self) -> None:
        """Every connection breaks, as when a proxy is restarted; what the server has begun goes on."""
        for session in list(self.sessions.values()):
            session.broken_by_network()

    def start(self) -> None:
        self.up = True
        self.started = self.world.now

    def terminate(self, pid: int) -> bool:
        session = self.sessions.get(pid)
        if session is None:
            return False
        if self.random.random() < 0.5:
            session.broken_by_server(SHUTDOWN)
        else:  # too late: it was about to commit
            session.broken_by_network()
        return True
