"""How a handler says that something else than plain success happened: errors to raise, and values to return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class HandlerFailed(Exception):
    """The handler failed; by default another attempt can help.

    Whether it is retried is decided by this type and its fields, never by the words of the message.

    Args:
        message: For users: what happened and what to do. No secrets.
        code: A code of the catalogue without its prefix, such as `RATE_LIMITED`.
        retryable: Whether trying again can help.
        retry_after: The least time to wait before trying again, seconds.
        detail: For operators; never leaves the system.
    """

    default_code = "HANDLER_FAILED"
    default_retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.detail = detail


class Rejected(HandlerFailed):
    """The handler refuses the work for good: no other attempt is made."""

    default_code = "HANDLER_REJECTED"
    default_retryable = False


class BudgetExhausted(HandlerFailed):
    """The attempt has spent more than it was granted. Raised by `Context.spend`; what was spent is booked."""

    default_code = "BUDGET_EXHAUSTED"
    default_retryable = False


class Cancelled(BaseException):
    """The attempt is to stop. Raised by `Context.check`; not an Exception, so that `except Exception` lets it pass."""


@dataclass(frozen=True, slots=True)
class Degraded(Generic[T]):
    """A result that a fallback made: the step completes with outcome DEGRADED, which is never counted as success."""

    value: T
