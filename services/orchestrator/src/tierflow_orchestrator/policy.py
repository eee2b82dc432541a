"""The policy of this service: a file of norms, read at the start and again whenever it changes (L12). What cannot be read allows nothing (L14)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tierflow_flow import FlowError
from tierflow_flow.norms import Policy, parse_policy
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

log = get_log(__name__)

LOOK_EVERY = 1.0
"""Seconds between looks at the file."""


class PolicyFile:
    """The norms as they are now."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises FailureError CONFIGURATION with everything that is wrong: a service does not start on rules that nobody can read."""
        self.path = path
        self._seen: tuple[int, int] | None = None
        self.current = Policy()
        self.look()
        if self.current.unreadable:
            raise FailureError(
                failure(
                    "CONFIGURATION",
                    f"TIERFLOW_POLICY_FILE: {self.current.unreadable}",
                    component="policy",
                    operation="start",
                )
            )

    def look(self) -> bool:
        """Reads the file where it has changed; whether it had."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen == self._seen and not self.current.unreadable:
                return False
            self._seen = seen
            policy = parse_policy(self.path.read_text(encoding="utf-8"))
        except FlowError as error:
            policy = Policy(unreadable=f"the policy {self.path} is not valid: {error}")
        except (OSError, UnicodeDecodeError) as error:
            policy = Policy(unreadable=f"the policy {self.path} cannot be read: {error}")
        changed = policy != self.current
        if changed and policy.unreadable:
            log.error("the policy cannot be read; nothing is allowed until it can", reason=policy.unreadable)
        elif changed:
            log.info("the policy was read", path=str(self.path), norms=len(policy.norms))
        self.current = policy
        return changed

    async def run(self) -> None:
        """Looks at the file, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.to_thread(self.look)
