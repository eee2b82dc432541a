"""The connection to Tier 1: one channel, and calls over it that are tried again while nobody answers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from tierflow_contracts.coordinator.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub

from tierflow.errors import Unavailable, call_error
from tierflow.submission import traceparent

DEFAULT_ADDRESS = "127.0.0.1:7701"
FIRST_DELAY, MAX_DELAY = 0.05, 2.0
_OPTIONS = (
    (
        "grpc.keepalive_time_ms",
        10_000,
    ),  # a silent peer is found dead within 20 seconds, while something is waited for
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of pings that flow control sends; by default a minute
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),  # by default half a minute
    ("grpc.enable_retries", 0),  # what is tried again is decided here, where it is known to be safe
)


class Calls:
    """One channel to Tier 1. Opened by the first call, within the running event loop."""

    def __init__(
        self,
        address: str | None,
        *,
        tenant: str | None,
        user: str | None,
        timeout: float,
        patience: float,
        roles: Sequence[str] = (),
    ) -> None:
        self.address = address or os.environ.get("TIERFLOW_ADDRESS") or DEFAULT_ADDRESS
        self.timeout = timeout
        self.patience = patience
        tenant, user = tenant or os.environ.get("TIERFLOW_TENANT"), user or os.environ.get("TIERFLOW_USER")
        held = ",".join(roles) or os.environ.get("TIERFLOW_ROLES")
        self._identity = tuple(
            (f"tierflow-{name}", value)
            for name, value in (("tenant", tenant), ("user", user), ("roles", held))
            if value
        )
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        """The generated stub."""
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
            self._stub = CoordinatorServiceStub(self._channel)
        return self._stub

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls, and in which trace."""
        trace = traceparent()
        return (*self._identity, ("traceparent", trace)) if trace else self._identity

    async def call(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """One unary call, tried again while the coordinator cannot be reached.

        Only for calls that may be repeated: reads, and commands with an id of their own.

        Args:
            method: Name of the RPC.
            request: Its request.
            timeout: Seconds for one try; the client's where None.

        Raises:
            TierflowError: What the answer says; `Unavailable` once the client's patience is over.
        """
        loop = asyncio.get_running_loop()
        started, delay = loop.time(), FIRST_DELAY
        while True:
            try:
                return await getattr(self.stub, method)(
                    request, metadata=self.metadata(), timeout=timeout or self.timeout
                )
            except grpc.aio.AioRpcError as broken:
                error = call_error(broken, self.address)
                if not isinstance(error, Unavailable) or loop.time() - started >= self.patience:
                    raise error from broken
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, MAX_DELAY)

    async def pages(
        self, method: str, request: Any, field: str, limit: int | None, page_of: Callable[[Any], Any] | None = None
    ) -> AsyncIterator[Any]:
        """The rows of a paged call, `limit` at most. `page_of` finds the message that holds the page's size and token, where it is not the request."""
        target = page_of(request) if page_of else request
        left = limit
        while left is None or left > 0:
            target.page_size = min(left, 1000) if left is not None else 0
            response = await self.call(method, request)
            rows = getattr(response, field)
            for row in rows if left is None else rows[:left]:
                yield row
            if not response.next_page_token:
                return
            target.page_token = response.next_page_token
            left = None if left is None else left - len(rows)

    async def close(self) -> None:
        """Closes the channel."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close(None)
