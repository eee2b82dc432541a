"""Serving: the gRPC server that every tier has - its boundary, health, reflection, admin port - and how it starts and drains."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from grpc_channelz.v1 import _async as channelz_aio
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from tierflow_runtime.boundary import Boundary
from tierflow_runtime.channels import server_options
from tierflow_runtime.errors import failure, info
from tierflow_runtime.form import COMPILED
from tierflow_runtime.logs import get_log
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.process import run_service
from tierflow_runtime.security import Authenticator, DevelopmentAuthenticator, RefusingAuthenticator
from tierflow_runtime.settings import PREFIX, ServiceSettings
from tierflow_runtime.telemetry import Telemetry
from tierflow_runtime.values import Failure, FailureError

log = get_log(__name__)

__all__ = ["LIVENESS", "Server", "run_service"]

LIVENESS: Final = "liveness"
"""Health name that is SERVING as long as the process answers; all others are readiness."""
_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"


class Server:
    """One gRPC server of a service, and its admin server where a port for it is set.

    Usage: `add` each servicer, `start`, `set_serving` as readiness changes, `announce_ready` once, `drain`.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        tier: int,
        component: str,
        authenticator: Authenticator | None = None,
        telemetry: Telemetry | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepares the server; nothing listens yet.

        Args:
            settings: Where to listen and the limits.
            tier: 1, 2 or 3; named in failures.
            component: Name of the service in failures and logs, such as `orchestrator`.
            authenticator: Knows callers; by default everybody is let in in development mode, nobody otherwise.
            telemetry: Records spans of unary calls.
            metrics: Counts failures.
        """
        self._settings = settings
        self._component = component
        chosen = authenticator or (DevelopmentAuthenticator() if settings.is_development else RefusingAuthenticator())
        on_failure: list[Callable[[Failure], None]] = []
        if telemetry is not None and telemetry.enabled:
            on_failure.append(telemetry.mark_failed)
        if metrics is not None:
            count = metrics.failures
            on_failure.append(lambda seen: count.labels(info(seen.code).code, component).inc())
        boundary = Boundary(
            chosen, tier=tier, component=component, on_failure=on_failure, most_calls=settings.most_calls
        )
        options = server_options(settings.max_message_bytes, channelz=settings.admin_port is not None)
        self._server = grpc.aio.server(
            interceptors=[*(telemetry.server_interceptors() if telemetry is not None else ()), boundary],
            options=options,
        )
        self._admin = grpc.aio.server(options=server_options()) if settings.admin_port is not None else None
        self._names: list[str] = []
        self._health = health_aio.HealthServicer()
        self.port = 0
        """The port it really listens on, once started."""
        self.admin_port = 0
        """The admin port it really listens on, once started; 0 without one."""

    @property
    def address(self) -> str:
        """The address under which others reach this process."""
        return self._settings.advertised(self.port)

    def add(self, name: str, add_to_server: Callable[[Any, Any], None], servicer: object) -> None:
        """Adds a servicer under its full service name, with the generated `add_…_to_server`. It is NOT_SERVING until said otherwise."""
        add_to_server(servicer, self._server)
        self._names.append(name)

    async def start(self) -> int:
        """Listens, and returns the port. Health answers at once: alive, not ready.

        Raises:
            FailureError: CONFIGURATION, where the port is taken or the address is not this host's.
        """
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        for name in ("", *self._names):
            await self.set_serving(name, False)
        self._expose(self._server, self._names)
        settings = self._settings
        self.port = _bind(self._server, settings.host, settings.port, "PORT")
        if self._admin is not None and settings.admin_port is not None:
            channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz_aio.ChannelzServicer(), self._admin)
            self._expose(self._admin, ["grpc.channelz.v1.Channelz"])
            self.admin_port = _bind(self._admin, settings.admin_host, settings.admin_port, "ADMIN_PORT")
            await self._admin.start()
        await self._server.start()
        if settings.is_development:
            log.warning(
                "development mode: everybody who reaches this port is let in", host=settings.host, port=self.port
            )
        return self.port

    async def set_serving(self, name: str, serving: bool) -> None:
        """Says whether a service is ready; the empty name is the server as a whole. Watchers are told."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, status)

    async def set_all_serving(self, serving: bool) -> None:
        """Says of every service, and of the server as a whole, whether it is ready."""
        for name in (*self._names, ""):
            await self.set_serving(name, serving)

    async def announce_ready(self, **fields: object) -> None:
        """Turns health to SERVING and writes the one line by which others know that the service serves."""
        await self.set_all_serving(True)
        ports = {"admin_port": self.admin_port} if self._admin is not None else {}
        log.info(
            "ready",
            port=self.port,
            address=self.address,
            name=self._settings.instance_name,
            compiled=COMPILED,
            **ports,
            **fields,
        )

    async def drain(self, grace: float | None = None) -> None:
        """Stops: health turns NOT_SERVING for good, new calls are refused, calls under way may end within `grace` seconds (the setting), then are cut."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_timeout if grace is None else grace)
        if self._admin is not None:
            await self._admin.stop(0)

    async def wait_closed(self) -> None:
        """Waits until the server has ended."""
        await self._server.wait_for_termination()

    def _expose(self, server: grpc.aio.Server, names: Sequence[str]) -> None:
        """Health and both versions of reflection."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        listed = [*names, "grpc.health.v1.Health", _REFLECTION_V1, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(listed, server)
        # Version 1 differs from v1alpha only in its name.
        handler = grpc.stream_stream_rpc_method_handler(
            reflection_aio.ReflectionServicer(service_names=listed).ServerReflectionInfo,
            request_deserializer=ServerReflectionRequest.FromString,
            response_serializer=ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
        )


def _bind(server: grpc.aio.Server, host: str, port: int, variable: str) -> int:
    """Binds a port and returns it. Tries it first with a plain socket, whose error says by its number what is wrong."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
        return server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except (OSError, RuntimeError) as error:
        host_variable = PREFIX + variable.replace("PORT", "HOST")
        if isinstance(error, socket.gaierror) or getattr(error, "errno", 0) == errno.EADDRNOTAVAIL:
            message = f"{host_variable} is {host}, which is no address of this host; expected one that it has, such as 127.0.0.1"
        else:
            reason = (error.strerror if isinstance(error, OSError) else "") or "it cannot be bound"
            message = f"{PREFIX}{variable} is {port} on {host}: {reason}; expected a port that is free"
        raise FailureError(failure("CONFIGURATION", message, component="serving", operation="start")) from error
