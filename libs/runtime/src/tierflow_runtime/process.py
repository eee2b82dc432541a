"""A service as a process: how it starts, how it is told to stop, and what its exit code says.

| exit code | meaning | what a supervisor should do |
|---|---|---|
| 0 | told to stop, drained | nothing |
| 70 | a defect | restart, look at the log |
| 75 | fenced, or not drained in time | restart |
| 78 | configuration | do not restart; the lines on standard error say what to correct |
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import uvloop

from tierflow_runtime.logs import get_log, setup_logs
from tierflow_runtime.settings import EXIT_CONFIGURATION, ServiceSettings, load_settings, print_problems
from tierflow_runtime.values import FailureError

log = get_log(__name__)

EXIT_DRAINED: Final = 0
EXIT_DEFECT: Final = 70
EXIT_TEMPORARY: Final = 75
EXIT_INTERRUPTED: Final = 130
_EXIT_BY_CODE: Final = {
    "FENCED": EXIT_TEMPORARY,
    "CONFIGURATION": EXIT_CONFIGURATION,
    "SCHEMA_VERSION": EXIT_CONFIGURATION,
}
_LAST_SECONDS: Final = 5.0
"""Beyond the drain timeout, for what follows it: closing connections, flushing spans."""

SettingsType = TypeVar("SettingsType", bound=ServiceSettings)


def run_service(
    main: Callable[[SettingsType, asyncio.Event], Awaitable[None]], settings_class: type[SettingsType], *, service: str
) -> int:
    """Runs a service until it ends, and returns its exit code; `sys.exit(run_service(...))` is all of a service's `__main__`.

    SIGTERM or SIGINT sets the event that `main` is given: it drains and returns. A second signal ends the process at once. A process that was fenced
    (FailureError with FENCED) ends without draining: what it owned is somebody else's already (rule R12).

    Args:
        main: The service: given its settings and the event that tells it to stop.
        settings_class: Its settings.
        service: Its name in logs, such as `orchestrator`.
    """
    settings = load_settings(settings_class)
    setup_logs(level=settings.log_level, service=service, instance=settings.instance_name)
    # What was imported lives for ever: it is not looked at again. Little of what a service makes is cyclic, so that looking less often costs no memory;
    # at the default thresholds the collector took an eighth of an orchestrator's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_run(main, settings))
        if code not in (EXIT_DRAINED, EXIT_CONFIGURATION):
            leave(code)  # what is left may wait for threads or peers for ever; nothing of it is worth waiting for
    return code


def leave(code: int) -> None:
    """Ends the process now: no drain, no clean-up beyond what is written to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(main: Callable[[SettingsType, asyncio.Event], Awaitable[None]], settings: SettingsType) -> int:
    stop = asyncio.Event()
    expired = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("told to stop again: ending at once", signal=number.name)
            leave(EXIT_INTERRUPTED)
        log.info("draining", signal=number.name, timeout_seconds=settings.drain_timeout)
        stop.set()
        loop.call_later(settings.drain_timeout + _LAST_SECONDS, expired.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    served = asyncio.ensure_future(main(settings, stop))
    late = asyncio.ensure_future(expired.wait())
    try:
        await asyncio.wait((served, late), return_when=asyncio.FIRST_COMPLETED)
        if not served.done():
            log.error("not drained in time")
            return EXIT_TEMPORARY
        return _exit_code(served)
    finally:
        late.cancel()


def _exit_code(served: asyncio.Future[None]) -> int:
    """What the end of `main` means."""
    if served.cancelled():
        log.error("the service was cancelled from within")
        return EXIT_DEFECT
    error = served.exception()
    if error is None:
        log.info("stopped")
        return EXIT_DRAINED
    cause = root_of(error)
    if isinstance(cause, FailureError) and cause.failure.code == "CONFIGURATION":
        print_problems(cause.failure.message)
        return EXIT_CONFIGURATION
    if isinstance(cause, FailureError) and cause.failure.code in _EXIT_BY_CODE:
        log.error("ended", code=cause.failure.code, message=cause.failure.message, detail=cause.failure.detail)
        return _EXIT_BY_CODE[cause.failure.code]
    log.error("ended by a defect", error=error)
    return EXIT_DEFECT


def root_of(error: BaseException) -> BaseException:
    """The error within groups of errors that says most: the first that carries a failure, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    members = [root_of(member) for member in error.exceptions]
    return next((member for member in members if isinstance(member, FailureError)), members[0])
