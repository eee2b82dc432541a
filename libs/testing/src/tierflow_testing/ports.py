"""Free ports of the loopback interface that stay ours.

Asking the kernel for port 0 gives one out of the range it also takes for outgoing connections. A server that is killed and comes back to its
port may then find it taken by somebody's client; worse, a client that retries in a loop can connect to itself. Ports are therefore picked
below that range and reserved by a file lock that ends with this process, so that parallel test processes do not pick the same.
"""

import fcntl
import os
import pathlib
import random
import socket
import tempfile

FIRST_PORT = 15_000
LAST_PORT = 32_000

_reserved: dict[int, int] = {}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, reserved for this process until it ends.

    Raises:
        OSError: No port of the range is free.
    """
    candidates = random.sample(range(FIRST_PORT, min(LAST_PORT, first_ephemeral_port())), 500)
    for port in candidates:
        if port not in _reserved and _reserve(port):
            return port
    raise OSError(f"no free port between {FIRST_PORT} and {LAST_PORT}")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def first_ephemeral_port() -> int:
    """The lowest port that the kernel takes for outgoing connections."""
    try:
        return int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return LAST_PORT


def _reserve(port: int) -> bool:
    directory = pathlib.Path(tempfile.gettempdir()) / f"tierflow-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(directory / str(port), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    if not is_free(port):
        os.close(handle)
        return False
    _reserved[port] = handle
    return True
