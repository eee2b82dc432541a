"""Sessions with the simulated Postgres, and its pool: what asyncpg shows to a process, and how a statement fares on its way, on the server and on its way back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import asyncpg

from simulation.database import Blocked, Server, Transaction
from simulation.loop import Loop


class Session:
    """A connection, as asyncpg shows it to the process and as the server knows it."""

    def __init__(
        self, server: Server, loop: Loop, schema: str, settings: dict[str, str], timeout: float | None
    ) -> None:
        self.server = server
        self.timeout = timeout
        """Seconds after which asyncpg gives a statement up."""
        self.loop = loop
        self.process: str = loop.name
        self.schema = schema
        server.pids += 1
        self.pid = server.pids
        self.started = server.clock()
        limit = settings.get("transaction_timeout")
        self.limit = None if limit is None else int(limit) / 1000
        self.tables = server.engine.tables(schema)
        self.open = True
        """As the process sees it."""
        self.alive = True
        """As the server sees it."""
        self.pending: Any = None
        """The future of the statement under way."""
        self.transaction: Transaction | None = None
        self.leaving = False

    # --- what asyncpg offers ---

    def is_closed(self) -> bool:
        return not self.open

    def get_server_pid(self) -> int:
        return self.pid

    def terminate(self) -> None:
        """The process drops the connection without a word; the server goes on with what it does."""
        if self.open:
            self.open = False
            self._fail_pending(asyncpg.InterfaceError("connection was closed"))
            server = self.server
            server.world.after(server.delay(), server.carry, self.process, self.abandoned)

    async def close(self, timeout: float | None = None) -> None:
        self.terminate()

    async def fetch(self, text: str, *args: Any) -> list[Any]:
        return await self._run(text, args)  # type: ignore[no-any-return]

    async def fetchrow(self, text: str, *args: Any) -> Any:
        rows = await self._run(text, args)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *args: Any) -> Any:
        rows = await self._run(text, args)
        return next(iter(rows[0].values())) if rows else None

    async def execute(self, text: str, *args: Any) -> str:
        await self._run(text, args)
        return ""

    async def prepare(self, text: str) -> Prepared:
        return Prepared(self, text)

    # --- on the way ---

    def _run(self, text: str, args: tuple[Any, ...]) -> Any:
        if not self.open:
            raise asyncpg.InterfaceError("connection is closed")
        if self.pending is not None and not self.pending.done():
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        future = self.loop.create_future()
        self.pending = future
        server = self.server
        if self.timeout is not None and self.process in server.unreachable:
            self.loop.call_later(self.timeout, _reject, future, TimeoutError())
        plan = server.engine.plan(self.schema, text)
        fault = server.fault_rate and server.random.random() < server.fault_rate
        if fault:
            self._misfortune(plan, args, future)
        else:
            server.world.after(server.delay(), server.carry, self.process, lambda: self.arrive(plan, args, future))
        return future

    def _misfortune(self, plan: Any, args: tuple[Any, ...], future: Any) -> None:
        """Something happens to this statement: it never arrives, its answer never does, or the server is in no mood."""
        server = self.server
        kind = server.random.randrange(5)
        server.on_fault(f"{self.process}: {('lost', 'unanswered', 'unanswered', 'deadlock', 'slow')[kind]} {plan.name}")
        if kind == 0:
            server.world.after(server.delay(), self.broken_by_network)
        elif kind in (1, 2):
            server.world.after(server.delay(), server.carry, self.process, lambda: self.arrive(plan, args, future))
            wait = server.delay() + server.random.random() * (0.002 if kind == 1 else 0.2)
            server.world.after(wait, self.broken_by_network)
        elif kind == 3:
            error = server.random.choice(
                (asyncpg.DeadlockDetectedError, asyncpg.TooManyConnectionsError, asyncpg.QueryCanceledError)
            )
            self.loop.deliver(server.world.now + server.delay(), _reject, future, error("bad weather"))
        else:
            wait = server.delay() + server.random.random() * 2.0
            server.world.after(wait, server.carry, self.process, lambda: self.arrive(plan, args, future))

    # --- on the server ---

    def arrive(self, plan: Any, args: tuple[Any, ...], future: Any) -> None:
        """A statement has arrived."""
        if not self.alive or not self.server.up:
            return
        world = self.server.world
        if self.limit is not None and plan.writes:
            world.after(self.limit, self._overdue, future)
        self._attempt(plan, args, future)

    def _attempt(self, plan: Any, args: tuple[Any, ...], future: Any) -> None:
        if not self.alive:
            return
        server = self.server
        transaction = self.transaction = Transaction(self, server.clock())
        try:
            rows = plan.run(transaction, self.tables, args)
        except Blocked as blocked:
            transaction.release()
            if blocked.holder.done:
                server.world.after(0.0, self._attempt, plan, args, future)
            else:
                blocked.holder.waiters.append(
                    lambda: server.world.after(0.0, self._attempt, plan, args, future) and None
                )
            return
        except asyncpg.PostgresError as error:
            transaction.end()
            self.transaction = None
            self._answer(future, error)
            return
        if transaction.writes or transaction.keys:
            wait = server.delay() * 2
            if server.stall_until > server.world.now:
                wait += server.stall_until - server.world.now
            server.world.after(wait, self._commit, transaction, plan, rows, future)
        else:
            self.transaction = None
            if transaction.wait:
                server.world.after(transaction.wait, self._answer, future, rows)
            else:
                self._answer(future, rows)

    def _commit(self, transaction: Transaction, plan: Any, rows: Any, future: Any) -> None:
        if transaction.done:
            return
        if transaction.writes:
            self.server.on_commit(self, plan, transaction)
        for change, args in transaction.writes:
            change(*args)
        self.transaction = None
        transaction.end()
        self._answer(future, rows)
        if self.leaving:
            self.abandoned()

    def _answer(self, future: Any, result: Any) -> None:
        if not self.alive:
            return
        server = self.server
        if isinstance(result, BaseException):
            call = lambda: self.loop.deliver(server.world.now + server.delay(), _reject, future, result) and None  # noqa: E731
        else:
            call = lambda: self.loop.deliver(server.world.now + server.delay(), _resolve, future, result) and None  # noqa: E731
        server.carry(self.process, call)

    def _overdue(self, future: Any) -> None:
        """The transaction took longer than it may: the server closes the session."""
        if self.alive and self.transaction is not None and self.pending is future and not self.transaction.done:
            self.server.on_fault(f"{self.process}: transaction timeout")
            self.broken_by_server("terminating connection due to transaction timeout")

    def _abort(self) -> None:
        self.alive = False
        self.server.sessions.pop(self.pid, None)
        if self.transaction is not None:
            self.transaction.end()
            self.transaction = None

    def abandoned(self) -> None:
        """The client is gone. A statement under way ends first."""
        if self.transaction is not None and not self.transaction.done:
            self.leaving = True
        elif self.alive:
            self._abort()

    # --- breaking ---

    def broken_by_network(self) -> None:
        """The connection breaks: the process sees it at once, the server when its statement is done."""
        if self.open and not self.loop.dead:
            self.loop.deliver(self.server.world.now, self._broken, asyncpg.ConnectionDoesNotExistError("broken"))
        self.abandoned()

    def broken_by_server(self, said: str) -> None:
        """The server ends the session and what it does."""
        self._abort()
        if not self.open or self.loop.dead:
            return
        error: Exception = ConnectionResetError("connection reset by peer")
        if said:
            error = asyncpg.ConnectionDoesNotExistError(f"connection was closed in the middle of operation: {said}")
        server = self.server
        server.carry(
            self.process, lambda: self.loop.deliver(server.world.now + server.delay(), self._broken, error) and None
        )

    def _broken(self, error: Exception) -> None:
        self.open = False
        self._fail_pending(error)

    def _fail_pending(self, error: Exception) -> None:
        if self.pending is not None and not self.pending.done():
            self.pending.set_exception(error)


class Prepared:
    """A prepared statement."""

    __slots__ = ("session", "text")

    def __init__(self, session: Session, text: str) -> None:
        self.session = session
        self.text = text

    async def fetchrow(self, *args: Any) -> Any:
        return await self.session.fetchrow(self.text, *args)

    async def fetch(self, *args: Any) -> list[Any]:
        return await self.session.fetch(self.text, *args)


def _resolve(future: Any, rows: Any) -> None:
    if not future.done():
        future.set_result(rows)


def _reject(future: Any, error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


async def connect(
    server: Server, settings: dict[str, str], timeout: float, command_timeout: float | None = None
) -> Session:
    """A new session. Raises OSError while the server is down, TimeoutError while it cannot be reached."""
    loop: Loop = asyncio.get_running_loop()  # type: ignore[assignment]
    future = loop.create_future()
    world = server.world
    schema = settings.get("search_path", "")

    def arrive() -> None:
        if server.up:
            session = Session(server, loop, schema, settings, command_timeout)
            server.sessions[session.pid] = session
            loop.deliver(world.now + server.delay(), _resolve, future, session)
        else:
            loop.deliver(world.now + server.delay(), _reject, future, ConnectionRefusedError("the database is down"))

    world.after(2 * server.delay(), server.carry, loop.name, arrive)
    late = loop.call_later(timeout, _reject, future, TimeoutError())
    try:
        return await future  # type: ignore[no-any-return]
    finally:
        late.cancel()


class Pool:
    """A pool of sessions, as asyncpg's."""

    def __init__(
        self, server: Server, settings: dict[str, str], size: int, timeout: float, command_timeout: float
    ) -> None:
        self._command_timeout = command_timeout
        self._server = server
        self._settings = settings
        self._timeout = timeout
        self._free: deque[Session] = deque()
        self._room = size
        self._waiting: deque[Any] = deque()

    def acquire(self, *, timeout: float | None = None) -> Acquired:
        return Acquired(self, timeout)

    async def take(self, timeout: float | None) -> Session:
        while self._free:
            session = self._free.popleft()
            if session.open:
                return session
            self._room += 1
        if self._room <= 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await asyncio.wait_for(future, timeout)
            except BaseException:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(future)
                raise
            return await self.take(timeout)
        self._room -= 1
        try:
            return await connect(self._server, self._settings, self._timeout, self._command_timeout)
        except BaseException:
            self._room += 1
            self._wake()
            raise

    def give(self, session: Session) -> None:
        if session.open and (session.pending is None or session.pending.done()):
            self._free.append(session)
        else:
            session.terminate()
            self._room += 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        for session in self._free:
            session.terminate()


class Acquired:
    """`async with pool.acquire() as session`."""

    __slots__ = ("_pool", "_session", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> Session:
        self._session = await self._pool.take(self._timeout)
        return self._session

    async def __aexit__(self, *_: Any) -> None:
        self._pool.give(self._session)
