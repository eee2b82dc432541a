"""Whether a failed attempt is tried again, and when.

Chance has no place in a core: the jitter of a delay is a hash of run, step and attempt, so that it is the same wherever and whenever it is computed.
"""

from __future__ import annotations

import hashlib

from tierflow_flow.definition import Flow, StepSpec
from tierflow_runtime.values import Failure, Micros, Options, RetryPolicy


def policy_for(spec: StepSpec, flow: Flow, options: Options) -> RetryPolicy:
    """The policy of a step: its own, else the one this run was asked to use, else the flow's (which holds the default)."""
    return spec.retry or options.retry or flow.retry


def may_retry(policy: RetryPolicy, failure: Failure) -> bool:
    """Whether the policy retries such a failure at all. What cannot be helped by trying again is never retried."""
    if not failure.retryable or failure.code in policy.never_retry_on:
        return False
    return not policy.retry_on or failure.code in policy.retry_on


def delay(policy: RetryPolicy, failed_attempt: int, seed: str) -> Micros:
    """The delay after the `failed_attempt`-th attempt (from 1), jitter included, never above `max_delay`.

    Args:
        policy: The policy; its delays are microseconds.
        failed_attempt: The attempt that failed, from 1.
        seed: Names the attempt; the same seed gives the same delay.
    """
    try:
        base = min(policy.initial_delay * policy.factor ** (failed_attempt - 1), float(policy.max_delay))
    except OverflowError:
        base = float(policy.max_delay)
    spread = 1.0 + policy.jitter * (2.0 * _share(seed) - 1.0)
    return max(0, min(round(base * spread), policy.max_delay))


def next_attempt_at(policy: RetryPolicy, failure: Failure, failed_attempt: int, seed: str, now: Micros) -> Micros:
    """When the next attempt is due: after the delay, or after what the other side asked for where that is longer (F12)."""
    return now + max(delay(policy, failed_attempt, seed), failure.retry_after or 0)


def _share(seed: str) -> float:
    """A number from 0 up to 1 that depends on the seed alone."""
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
