"""The catalogue, and failures as gRPC statuses: through a real call in `test_serving`, piece by piece here."""

import pathlib
import sys

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st
from runtime_samples import failures
from tierflow_contracts.common.v1 import failure_pb2
from tierflow_runtime.errors import (
    CATALOGUE,
    DETAILS_KEY,
    DOMAIN,
    failure,
    failure_of,
    grpc_status,
    info,
    public,
    rich_status,
)
from tierflow_runtime.values import Failure, Violation

ROOT = pathlib.Path(__file__).resolve().parents[3]
CODES = [name.removeprefix("ERROR_CODE_") for name, number in failure_pb2.ErrorCode.items() if number]


def error_with(status: status_pb2.Status) -> AioRpcError:
    """What a client's call raises when it ends with a status."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailing = Metadata((DETAILS_KEY, status.SerializeToString()))
    return AioRpcError(code, Metadata(), trailing, details=status.message)


def detail(status: status_pb2.Status, message):
    """The status's detail of a message's type."""
    return any(one.Unpack(message) for one in status.details if one.Is(message.DESCRIPTOR)) and message


def test_every_code_is_in_the_catalogue() -> None:
    """F2, F24: every code of the contract has one entry, in the contract's order, and no entry is without a code."""
    assert list(CATALOGUE) == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_happened_and_what_to_do(code: str) -> None:
    """F2, F24, F29: each has a status that is not OK, a default for retrying, a meaning and a hint in whole sentences."""
    entry = CATALOGUE[code]
    assert entry.status is not grpc.StatusCode.OK
    assert isinstance(entry.retryable, bool)
    assert entry.meaning.endswith(".")
    assert entry.hint.endswith((".", "?"))


def test_reasons_are_distinct() -> None:
    """F24, Lesson 34: back-pressure, an empty budget and a message too large are told apart though their status is the same."""
    assert len({entry.reason for entry in CATALOGUE.values()}) == len(CATALOGUE)
    exhausted = {
        "QUEUE_FULL", "RATE_LIMITED", "BUDGET_EXHAUSTED", "MESSAGE_TOO_LARGE", "PAYLOAD_TOO_LARGE", "TENANT_LIMIT",
    }  # fmt: skip
    assert {grpc_status(code) for code in exhausted} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {code for code in exhausted if CATALOGUE[code].retryable} == {"QUEUE_FULL", "RATE_LIMITED", "TENANT_LIMIT"}


def test_timeouts_can_be_retried() -> None:
    """F3, F5: a timeout and a rate limit can pass, exhausted retries and invalid requests cannot (F7)."""
    assert failure("TIMEOUT", "late").retryable
    assert failure("RATE_LIMITED", "busy").retryable
    assert not failure("MAX_RETRIES_EXCEEDED", "enough").retryable
    assert not failure("INVALID_REQUEST", "wrong").retryable
    assert not failure("TIMEOUT", "late", retryable=False).retryable


def test_the_page_is_the_catalogue() -> None:
    """F24: docs/errors.md is what the catalogue says."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import docs_errors
    finally:
        sys.path.remove(str(ROOT / "tools"))
    assert (ROOT / "docs/errors.md").read_text().endswith(docs_errors.page())
    for code in CODES:
        assert f"| `{code}` |" in docs_errors.page()


@given(failures)
def test_a_status_carries_the_failure(sent: Failure) -> None:
    """F23, F29: what a client reads from the status is the failure with its causes, without internals."""
    status = rich_status(sent)
    got = failure_of(error_with(status))
    assert got == public(sent)
    found = detail(status, error_details_pb2.ErrorInfo())
    assert found.domain == DOMAIN
    assert found.reason == info(sent.code).reason


@given(failures)
def test_public_failures_have_no_internals(one: Failure) -> None:
    """F29: detail is removed from a failure and all its causes, and nothing else is."""
    seen: Failure | None = public(one)
    original: Failure | None = one
    while seen is not None and original is not None:
        assert seen.detail == ""
        assert (seen.code, seen.message, seen.violations) == (original.code, original.message, original.violations)
        seen, original = seen.cause, original.cause
    assert seen is original is None


def test_standard_details() -> None:
    """A5, F12, F24: BadRequest has every violation, RetryInfo the wait, ErrorInfo the hint, for clients that know nothing of ours."""
    wrong = (
        Violation(field="input.flow", description="required"),
        Violation(field="steps.a", description="bad", line=4),
    )
    sent = failure("RATE_LIMITED", "slow down", component="gate", retry_after=2_500_000, violations=wrong, tier=1)
    status = rich_status(sent)
    bad = detail(status, error_details_pb2.BadRequest())
    assert [(one.field, one.description) for one in bad.field_violations] == [
        ("input.flow", "required"),
        ("steps.a", "line 4: bad"),
    ]
    assert detail(status, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() == 2500
    metadata = detail(status, error_details_pb2.ErrorInfo()).metadata
    assert metadata["hint"] == CATALOGUE["RATE_LIMITED"].hint
    assert (metadata["component"], metadata["tier"], metadata["retryable"]) == ("gate", "1", "true")


@given(st.integers(0, 400), st.integers(0, 30), st.integers(0, 20_000))
def test_statuses_fit_into_metadata(violations: int, depth: int, length: int) -> None:
    """A5, F23: a status never exceeds the metadata that peers take; the first violations, their number and the root cause stay."""
    sent = failure("UPSTREAM_ERROR", "the root")
    for level in range(depth):
        sent = failure("STEP_FAILED", f"level {level} " + "ä" * length, cause=sent)
    wrong = tuple(
        Violation(field=f"steps.s{n}.with.url", description="is not a URL", line=n) for n in range(violations)
    )
    sent = failure("FLOW_INVALID", "x" * length, cause=sent, violations=wrong)
    status = rich_status(sent)
    assert status.ByteSize() <= 5 * 1024 + 64
    got = failure_of(error_with(status))
    assert got.code == "FLOW_INVALID"
    root = got
    while root.cause is not None:
        root = root.cause
    assert root.message == "the root"
    named = [one for one in got.violations if one.field != "…"]
    assert [one.field for one in named] == [f"steps.s{n}.with.url" for n in range(len(named))]
    if len(named) < violations:
        assert got.violations[-1].description.startswith(f"and {violations - len(named)} more")


def test_foreign_statuses() -> None:
    """F3, Lesson 13: an error without our details is judged by its status code, whatever words it has."""
    words = "not retryable: fatal invalid argument"
    unavailable = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details=words)
    seen = failure_of(unavailable)
    assert (seen.code, seen.retryable, seen.detail) == ("UNAVAILABLE", True, words)
    assert words not in seen.message
    refused = AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(), details="please retry, timeout")
    assert (failure_of(refused).code, failure_of(refused).retryable) == ("INVALID_REQUEST", False)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_grpc_status_is_a_code(code: grpc.StatusCode) -> None:
    """F24: every gRPC status has a code of the catalogue."""
    assert failure_of(AioRpcError(code, Metadata(), Metadata())).code in CATALOGUE


def test_exhausted_without_a_reason() -> None:
    """Lesson 34: among tiers, RESOURCE_EXHAUSTED without a reason is gRPC's own word for a message too large; of a stranger it is back-pressure."""
    bare = AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), Metadata())
    assert (failure_of(bare).code, failure_of(bare).retryable) == ("MESSAGE_TOO_LARGE", False)
    assert (failure_of(bare, foreign=True).code, failure_of(bare, foreign=True).retryable) == ("RATE_LIMITED", True)


def test_foreign_retry_info() -> None:
    """F12: the wait that another system asks for is kept."""
    status = status_pb2.Status(code=8, message="slow")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    status.details.add().Pack(retry)
    seen = failure_of(error_with(status), foreign=True)
    assert (seen.code, seen.retry_after) == ("RATE_LIMITED", 1_500_000)


def test_broken_details_are_not_believed() -> None:
    """F23: a status whose details cannot be parsed is still a failure, by its code."""
    trailing = Metadata((DETAILS_KEY, b"\xff\xff\xff"))
    error = AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), trailing, details="gone")
    assert failure_of(error).code == "NOT_FOUND"
