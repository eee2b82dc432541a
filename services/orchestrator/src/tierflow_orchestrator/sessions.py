"""Coordinators that are connected: requests in, answers and results out, until each result is acknowledged (rule R28)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from tierflow_contracts.common.v1 import failure_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.durable import Durable
from tierflow_runtime import wire
from tierflow_runtime.errors import public
from tierflow_runtime.logs import get_log
from tierflow_runtime.streams import Frames
from tierflow_runtime.values import FailureError, Micros

from tierflow_orchestrator.checks import sound_acknowledgement
from tierflow_orchestrator.contexts import Questions
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.results import Results
from tierflow_orchestrator.views import result_of

log = get_log(__name__)

SWEEP_EVERY = 5.0
"""Seconds between looks for results that nobody has acknowledged."""

FIRST_ID = "00000000-0000-0000-0000-000000000000"
SWEPT_AT_ONCE = 200
"""Results that are looked for at once."""

MOST_UNANSWERED = 10_000
MOST_UNSENT = 10_000
"""Requests under way and answers unread, of one coordinator, beyond which nothing more is read from it."""

LOOK_AGAIN = 0.05
"""Seconds between looks at a congested stream."""

Start = Callable[[run_pb2.RunExecutionRequest, Callable[[pb.StartRunResponse | FailureError], None]], None]


class Session:
    """One coordinator's stream."""

    def __init__(self, hello: pb.CoordinatorHello) -> None:
        self.instance_id = hello.instance_id
        self.name = hello.name
        self.frames = Frames()
        self.unanswered = 0
        """Requests and commands that are being worked on."""
        self.refusal: FailureError | None = None
        """Why the stream is ended, where what came on it cannot be read."""
        self.reading: asyncio.Task[None] | None = None

    @property
    def congested(self) -> bool:
        """Whether it is to be read no further: its coordinator asks faster than it is answered, or does not read the answers."""
        return self.unanswered > MOST_UNANSWERED or self.frames.size > MOST_UNSENT


class Sessions:
    """All coordinators' streams of this instance, and the results that wait for acknowledgement."""

    def __init__(self, durable: Durable, info: Callable[[], pb.OrchestratorInfo]) -> None:
        self._durable = durable
        self._info = info
        self._sessions: list[Session] = []
        self._interested: dict[str, Session] = {}
        """By run: the session that asked for it last."""
        self._results = Results()
        self._commands: dict[str, str] = {}
        """By run: id of the last command that applied and is committed, for the word that it has taken full effect."""
        self._strangers: set[str] = set()
        """Runs that somebody asked for, and that were not here at the last look."""
        self.questions = Questions(self._freest)
        """What attempts ask of their swarm's context."""
        self.draining = False
        self.start: Start
        self.command: Callable[[pb.CommandRunRequest], Awaitable[pb.CommandRunResponse]]

    @property
    def unacknowledged(self) -> int:
        """Results in memory that no coordinator has acknowledged."""
        return len(self._results)

    def connect(self, requests: AsyncIterator[pb.ExecuteRunsRequest], hello: pb.CoordinatorHello) -> Session:
        """A stream, after its hello: its requests are read from now on, until it is disconnected; what its frames hold is to be written."""
        session = Session(hello)
        self._sessions.append(session)
        session.frames.set("hello", self._info())
        log.info("a coordinator is connected", coordinator=hello.name, coordinator_instance=hello.instance_id)
        for run_id, result in self._results.items():
            if session.frames.size <= MOST_UNSENT and self._interested.get(run_id) not in self._sessions:
                session.frames.put("results", result)
        session.reading = asyncio.create_task(self._read(session, requests))
        return session

    def disconnect(self, session: Session) -> None:
        """A stream is over."""
        if session.reading is not None:
            session.reading.cancel()
        self._sessions.remove(session)
        self.questions.lost(session)
        for run_id in [run_id for run_id, other in self._interested.items() if other is session]:
            del self._interested[run_id]

    async def _read(self, session: Session, requests: AsyncIterator[pb.ExecuteRunsRequest]) -> None:
        try:
            async for frame in requests:
                self.take(session, frame)
                while session.congested:  # noqa: ASYNC110 - rare, and over by many causes
                    await asyncio.sleep(LOOK_AGAIN)
        except FailureError as error:
            session.refusal = error
        finally:
            session.frames.close()

    def take(self, session: Session, frame: pb.ExecuteRunsRequest) -> None:
        """A batch from a coordinator: acknowledgements and commands before new work."""
        for acknowledgement in filter(sound_acknowledgement, frame.acknowledge):
            self._settled(acknowledgement.run_id)
            self._durable.host.writer.acknowledge(acknowledgement.run_id, acknowledgement.generation)
        for command in frame.commands:
            self._durable.host.spawn(self._command(session, command))
        for request in frame.execute:
            self._execute(session, request)
        for answer in frame.context_answers:
            self.questions.answered(answer)

    def _execute(self, session: Session, request: run_pb2.RunExecutionRequest) -> None:
        run_id = request.context.run_id
        self._interested[run_id] = session
        session.unanswered += 1

        def answered(answer: pb.StartRunResponse | FailureError) -> None:
            session.unanswered -= 1
            if isinstance(answer, FailureError):
                self._interested.pop(run_id, None)
                session.frames.put("refused", pb.RunRefused(run_id=run_id, failure=failure_message(answer)))
                return
            session.frames.put("accepted", answer)
            if not answer.created:
                self._durable.host.spawn(self._attach(session, run_id))

        self.start(request, answered)

    async def _attach(self, session: Session, run_id: str) -> None:
        """A run that existed: its result, if it has ended; its owner's address, if that is another."""
        try:
            if run_id in self._durable.host.entities:
                return
            row = await self._durable.database.fetchrow("owner", id=run_id)
            if row is not None and row["ended_at"] is not None:
                result = await self._durable.reader.view(run_id, _result_if_ended)
                if result is not None:
                    session.frames.put("results", result)
            elif row is not None and row["owner"] is not None and row["address"] and not row["fenced"]:
                session.frames.put("redirects", pb.RunRedirect(run_id=run_id, address=row["address"]))
        except FailureError as error:
            log.info("attaching waits", run_id=run_id, reason=str(error))

    async def _command(self, session: Session, request: pb.CommandRunRequest) -> None:
        self._interested.setdefault(request.run_id, session)
        session.unanswered += 1
        try:
            answer = await self.command(request)
            if answer.applied and request.run_id in self._durable.host.entities:
                self._commands[request.run_id] = request.command_id
        except FailureError as error:
            answer = pb.CommandRunResponse(
                run_id=request.run_id, command_id=request.command_id, failure=failure_message(error)
            )
        finally:
            session.unanswered -= 1
        session.frames.put_first("commands", answer)

    def changed(self, run: Run) -> None:
        """A run's state has changed: whoever commanded it hears when the command has taken full effect."""
        session = self._interested.get(run.id)
        if session is not None and run.id in self._commands:
            session.frames.put(
                "commands",
                pb.CommandRunResponse(
                    run_id=run.id,
                    command_id=self._commands[run.id],
                    applied=True,
                    state=wire.RUN_STATES.number(run.state),
                ),
            )

    def ended(self, run: Run) -> None:
        """A run's end is committed: to the coordinator that asked for it, else to any."""
        result = result_of(run)
        self._results.keep(run.id, run.ended_at or 0, result)
        session = self._interested.get(run.id) or self._freest()
        if session is not None and session.frames.size <= MOST_UNSENT:  # else the sweep brings it
            session.frames.put("results", result)

    def _freest(self) -> Session | None:
        """The coordinator that has least to read."""
        return min(self._sessions, key=lambda session: session.frames.size, default=None)

    async def run_sweep(self) -> None:
        """Sends results again that no coordinator has acknowledged for a while, whoever had ended their runs; forgets what is settled elsewhere."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self._forget_strangers()
            try:
                await self._sweep(self._durable.clock.now() - int(2 * SWEEP_EVERY * 1_000_000))
            except FailureError as error:
                log.info("sending results again waits", reason=str(error))

    async def _sweep(self, before: Micros) -> None:
        known: set[str] = set()
        after = FIRST_ID
        while after:
            rows = await self._durable.database.fetch("unacknowledged", before=before, after=after, limit=SWEPT_AT_ONCE)
            ids = [str(row["id"]) for row in rows]
            known.update(run_id for run_id in ids if run_id in self._results)
            for run_id in ids:
                await self._send_again(run_id)
            after = ids[-1] if len(ids) == SWEPT_AT_ONCE else ""
        # A result that another orchestrator has brought was acknowledged there.
        for run_id in self._results.ended_before(before):
            if run_id not in known:
                self._settled(run_id)

    async def _send_again(self, run_id: str) -> None:
        """To the coordinator that has least to read; where that is much, the next round brings it."""
        session = self._freest()
        if session is None or session.frames.size > MOST_UNSENT // 2:
            return
        result = self._results.get(run_id)
        if result is None:
            result = await self._durable.reader.view(run_id, _result_if_ended)
        if result is None or result.context.attempt_id:
            return  # a step of another run stands for it: its result goes there
        session.frames.put("results", result)

    def _forget_strangers(self) -> None:
        """A run that was parked here may go on anywhere: nobody hears of it here, and its result comes from there (rule R28)."""
        here = self._durable.host.entities
        known = self._interested.keys() | self._commands.keys()
        strangers = {run_id for run_id in known if run_id not in here and run_id not in self._results}
        for run_id in strangers & self._strangers:
            self._settled(run_id)
        self._strangers = strangers

    def _settled(self, run_id: str) -> None:
        self._results.forget(run_id)
        self._interested.pop(run_id, None)
        self._commands.pop(run_id, None)

    def announce_draining(self) -> None:
        """Tells all coordinators to send new runs elsewhere."""
        self.draining = True
        for session in self._sessions:
            session.frames.set("draining", True)

    def close(self) -> None:
        """Ends all streams once what is there is written."""
        for session in self._sessions:
            session.frames.close()


def _result_if_ended(run: Run) -> run_pb2.RunExecutionResult | None:
    """None for a run that is being retried: between two looks it has begun its next generation (rule R31)."""
    return result_of(run) if run.ended else None


def failure_message(error: FailureError) -> failure_pb2.Failure:
    """The failure of an error, fit for another tier."""
    return wire.failure_to_proto(public(error.failure))
