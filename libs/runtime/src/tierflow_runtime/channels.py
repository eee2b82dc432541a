"""Channels between tiers: kept alive, reconnecting soon, and never retrying by themselves (F11: only Tier 2 retries, and only steps)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

SHARED_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Of a ping that flow control has sent, which keeps keepalive from sending its own: by default a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A silent peer is found dead within 20 seconds, on streams that say nothing for hours too."""


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, int]]:
    """Options of a client's channel."""
    return [
        *SHARED_OPTIONS,
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A host's name may stand for another address after a restart: by default that is looked up once in half a minute.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES, *, channelz: bool = False) -> list[tuple[str, int]]:
    """Options of a server. Without `so_reuseport=0` a second server binds the same port in silence."""
    return [
        *SHARED_OPTIONS,
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", 10_000),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.enable_channelz", int(channelz)),
    ]


def open_channel(
    address: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()
) -> grpc.aio.Channel:
    """A channel to `host:port` or `dns:///name:port`. Opens no connection until the first call; one connection per channel."""
    return grpc.aio.insecure_channel(
        address, options=channel_options(max_message_bytes), interceptors=list(interceptors) or None
    )
