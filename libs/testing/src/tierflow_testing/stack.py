"""The whole system on one machine: Postgres, NATS and any number of each service, on free ports.

Used by end-to-end tests, `tierflow dev`, the demo and the benchmarks.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tierflow_testing import children
from tierflow_testing.errors import StartFailed
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.processes import READY_TIMEOUT, ServiceProcess, run_once

COORDINATOR = "tierflow_coordinator"
ORCHESTRATOR = "tierflow_orchestrator"
EXECUTOR = "tierflow_executor"

Server = TypeVar("Server", EmbeddedPostgres, EmbeddedNats)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What a stack consists of.

    Attributes:
        coordinators: How many instances of Tier 1.
        orchestrators: How many instances of Tier 2.
        executors: How many instances of Tier 3.
        handlers: Modules with handlers that the executors import.
        slots: Attempts that one executor performs at a time.
        guests: Addresses, `host:port`, at which somebody else may start further executors.
        environment: Variables for every service.
        coordinator_environment: Variables for Tier 1 beside or instead of those.
        orchestrator_environment: The same for Tier 2.
        executor_environment: The same for Tier 3.
        supervised: Start services again when they die.
        database: Name of the database.
        template: A database that is already migrated; copied instead of migrating. Only with a given server.
        modules: Other modules than the product's, by the product's name.
        via: Given a route and an address, the address to use instead: what puts a bad network between two parts. Routes are `orchestrator-postgres`,
            `coordinator-postgres`, `services-nats`, `coordinator-orchestrator` and `orchestrator-executor`. Calls among peers, and those for blobs, go straight.
    """

    coordinators: int = 1
    orchestrators: int = 1
    executors: int = 1
    handlers: Sequence[str] = ()
    slots: int = 64
    guests: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    coordinator_environment: Mapping[str, str] = field(default_factory=dict)
    orchestrator_environment: Mapping[str, str] = field(default_factory=dict)
    executor_environment: Mapping[str, str] = field(default_factory=dict)
    supervised: bool = False
    database: str = "tierflow"
    template: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)
    via: Callable[[str, str], str] = lambda route, address: address


class Stack:
    """A running system. Names are `coordinator-0`, `orchestrator-1` and so on; logs are in `directory/logs`.

    With a directory that is kept, what was stored before is there again. Servers that are passed in are used and left running.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        options: StackOptions | None = None,
        *,
        postgres: EmbeddedPostgres | None = None,
        nats: EmbeddedNats | None = None,
    ) -> None:
        """Prepares, starts nothing.

        Args:
            directory: Data and logs; made if it does not exist.
            options: What to start.
            postgres: A running server to use instead of an own one.
            nats: A running server to use instead of an own one.
        """
        self.directory = directory
        self.options = options or StackOptions()
        self._own_servers: list[EmbeddedPostgres | EmbeddedNats] = []
        self.postgres = postgres or self._owned(EmbeddedPostgres(directory / "postgres"))
        self.nats = nats or self._owned(EmbeddedNats(directory / "nats"))
        self.coordinators = self._services("coordinator", COORDINATOR, self.options.coordinators)
        self.orchestrators = self._services("orchestrator", ORCHESTRATOR, self.options.orchestrators)
        self.executors = self._services("executor", EXECUTOR, self.options.executors)

    @property
    def services(self) -> list[ServiceProcess]:
        """All of them, executors first: the order in which they can start."""
        return [*self.executors, *self.orchestrators, *self.coordinators]

    @property
    def address(self) -> str:
        """Where clients connect: the first coordinator, `host:port`."""
        return self.coordinators[0].address

    @property
    def database_url(self) -> str:
        """The database of the services, for their role."""
        return self.postgres.url(self.options.database)

    def service(self, name: str) -> ServiceProcess:
        """The service of that name, as in `orchestrator-1`.

        Raises:
            KeyError: There is none.
        """
        return {service.name: service for service in self.services}[name]

    def start(self, timeout: float = READY_TIMEOUT) -> None:
        """Starts everything, in parallel as far as one needs the other; returns when all serve.

        Args:
            timeout: Seconds for the services.

        Raises:
            StartFailed: Something did not come up; everything is stopped again.
        """
        try:
            for executor in self.executors:  # they need neither database nor NATS
                executor.spawn()
            _all_at_once([server.start for server in self._own_servers])
            self._configure()
            self._prepare_database()
            for service in self.services:
                service.spawn()
            _all_at_once([_waiting(service, timeout) for service in self.services])
        except BaseException:  # whatever it was, an interrupt included: nothing stays half started
            self.stop(patience=1.0)
            raise

    def stop(self, patience: float = 30.0) -> None:
        """Stops everything in reverse order; services drain for at most `patience` seconds per tier, then they are killed."""
        for tier in (self.coordinators, self.orchestrators, self.executors):
            _all_at_once([_stopping(service, patience) for service in tier])
        _all_at_once([server.stop for server in self._own_servers])

    def environment(self) -> dict[str, str]:
        """What a client of this stack needs: `TIERFLOW_ADDRESS`."""
        return {"TIERFLOW_ADDRESS": self.address}

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _owned(self, server: Server) -> Server:
        self._own_servers.append(server)
        return server

    def _services(self, tier: str, module: str, count: int) -> list[ServiceProcess]:
        extra = {
            "coordinator": self.options.coordinator_environment,
            "orchestrator": self.options.orchestrator_environment,
            "executor": {
                "TIERFLOW_HANDLERS": ",".join(self.options.handlers),
                "TIERFLOW_SLOTS": str(self.options.slots),
                **self.options.executor_environment,
            },
        }[tier]
        return [
            ServiceProcess(
                f"{tier}-{number}",
                self.options.modules.get(module, module),
                {**self.options.environment, **extra},
                directory=self.directory / "logs",
                supervised=self.options.supervised,
            )
            for number in range(count)
        ]

    def _configure(self) -> None:
        """Tells the services of each other, now that the servers' ports are known."""
        via = self.options.via
        nats = via("services-nats", self.nats.url)
        executors = via("orchestrator-executor", ",".join([_addresses(self.executors), *self.options.guests]))
        orchestrators = via("coordinator-orchestrator", _addresses(self.orchestrators))
        for service in self.orchestrators:
            database = via("orchestrator-postgres", self.database_url)
            service.configure(TIERFLOW_DATABASE_URL=database, TIERFLOW_NATS_URL=nats, TIERFLOW_EXECUTORS=executors)
        for service in self.coordinators:
            database = via("coordinator-postgres", self.database_url)
            service.configure(
                TIERFLOW_DATABASE_URL=database, TIERFLOW_NATS_URL=nats, TIERFLOW_ORCHESTRATORS=orchestrators
            )

    def _prepare_database(self) -> None:
        if not self.postgres.has_database(self.options.database):
            self.postgres.create_database(self.options.database, template=self.options.template or "template1")
        if not self.options.template:
            migrate(self.database_url, self.directory / "logs", self.options.modules)


def migrate(database_url: str, logs: pathlib.Path, modules: Mapping[str, str] | None = None) -> None:
    """Creates or upgrades the schemas of both tiers that have one.

    Args:
        database_url: The database.
        logs: Where the output of the commands goes.
        modules: As in `StackOptions`.

    Raises:
        StartFailed: A command failed; has what it said.
    """
    commands = {}
    for module in (COORDINATOR, ORCHESTRATOR):
        log = logs / f"migrate-{module.removeprefix('tierflow_')}.log"
        log.unlink(missing_ok=True)
        environment = {"TIERFLOW_DATABASE_URL": database_url}
        commands[log] = run_once((modules or {}).get(module, module), "migrate", environment=environment, log=log)
    failed = [log for log, command in commands.items() if command.wait()]
    if failed:
        raise StartFailed("migration failed:\n" + "\n".join(children.tail(log) for log in failed))


def _addresses(services: Sequence[ServiceProcess]) -> str:
    return ",".join(service.address for service in services)


def _waiting(service: ServiceProcess, timeout: float) -> Callable[[], object]:
    return lambda: service.wait_ready(timeout)


def _stopping(service: ServiceProcess, patience: float) -> Callable[[], object]:
    return lambda: service.stop(patience)


def _all_at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Makes the calls in parallel, waits for all and raises the first error."""
    if not calls:
        return
    with ThreadPoolExecutor(len(calls)) as pool:
        for outcome in [pool.submit(call) for call in calls]:
            outcome.result()
