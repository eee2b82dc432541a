"""The boundary of every gRPC service: who calls, under which ids, and what a caller sees of what went wrong.

One interceptor, once per call or stream and never per message (PERFORMANCE.md, section 8).
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.message import DecodeError

from tierflow_runtime.classify import failure_of_exception
from tierflow_runtime.errors import abort, failure
from tierflow_runtime.logs import get_log, set_call_fields
from tierflow_runtime.security import Authenticator, Caller, set_caller
from tierflow_runtime.tracecontext import parse_traceparent
from tierflow_runtime.values import Failure, FailureError

log = get_log(__name__)

REQUEST_ID_KEY: Final = "x-request-id"
_OPEN: Final = ("/grpc.health.v1.", "/grpc.reflection.")
_LONGEST_REQUEST_ID: Final = 128
MOST_CALLS: Final = 10_000
_COME_BACK: Final = 1_000_000


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps each method: authenticates, sets the ids for logs, turns what is raised into a rich status."""

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        tier: int,
        component: str,
        on_failure: Sequence[Callable[[Failure], None]] = (),
        most_calls: int = MOST_CALLS,
    ) -> None:
        """Prepares the boundary of one server.

        Args:
            authenticator: Knows callers.
            tier: Named in failures that name none.
            component: Likewise.
            on_failure: Told of each failure before the call ends with it: metrics, spans.
            most_calls: Calls and streams at once, beyond which further ones are refused; health and reflection are not counted.
        """
        self._most_calls = most_calls
        self.calls = 0
        """Calls and streams under way."""
        self._authenticator = authenticator
        self._on_failure = on_failure
        self._tier = tier
        self._component = component

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The method's handler, wrapped; health and reflection as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN):
            return handler
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._answer(handler.unary_unary, method), _one(read), write)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._answer(handler.stream_unary, method), _each(read), write)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method), _one(read), write)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, method), _each(read), write)

    def _answer(self, behaviour: Any, method: str) -> Callable[..., Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self.calls += 1
            try:
                await self._enter(context)
                if isinstance(request, FailureError):
                    raise request
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # the boundary: every error becomes a status, unknown ones are logged with their stack
                await abort(context, self._failure(error, method))
            finally:
                self.calls -= 1

        return answer

    def _stream(self, behaviour: Any, method: str) -> Callable[..., Any]:
        async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            self.calls += 1
            try:
                await self._enter(context)
                if isinstance(request, FailureError):
                    raise request
                async for message in behaviour(request, context):
                    yield message
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                await abort(context, self._failure(error, method))
            finally:
                self.calls -= 1

        async def written(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self.calls += 1
            try:
                await self._enter(context)
                if isinstance(request, FailureError):
                    raise request
                await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                await abort(context, self._failure(error, method))
            finally:
                self.calls -= 1

        return stream if inspect.isasyncgenfunction(behaviour) else written

    async def _enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self.calls > self._most_calls:
            text = f"{self._most_calls} calls are under way here, which is the most that may be; come back, or ask another instance"
            raise FailureError(failure("QUEUE_FULL", text, retry_after=_COME_BACK))
        metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        fields = {"request_id": _request_id(metadata)}
        traceparent = metadata.get("traceparent")
        trace = parse_traceparent(traceparent) if isinstance(traceparent, str) else None
        if trace is not None:
            fields["trace_id"] = trace.trace_id
        set_caller(None)
        set_call_fields(fields)
        caller: Caller = await self._authenticator.authenticate(metadata)
        set_caller(caller)
        fields["tenant"] = caller.tenant
        fields["user"] = caller.user_id

    def _failure(self, error: Exception, method: str) -> Failure:
        """What the caller sees: a failure as it was raised; for anything else one without internals, whose error id is in the log beside the stack."""
        operation = method.rpartition("/")[2]
        seen = failure_of_exception(error, self._component, operation)
        # What another tier has said is its failure, with the error id of its log.
        if seen.code == "INTERNAL" and not isinstance(error, FailureError | grpc.RpcError):
            error_id = secrets.token_hex(8)
            log.error("call failed by a defect", error=error, method=method, error_id=error_id)
            seen = msgspec.structs.replace(
                seen, message=f"An internal error occurred; its id in the logs is {error_id}."
            )
        elif not isinstance(error, FailureError):
            log.warning("call failed", method=method, code=seen.code, detail=seen.detail)
        seen = msgspec.structs.replace(
            seen,
            tier=seen.tier or self._tier,
            component=seen.component or self._component,
            operation=seen.operation or operation,
        )
        for tell in self._on_failure:
            tell(seen)
        return seen


def _one(deserialize: Any) -> Callable[[bytes], Any]:
    """Reads the one message of a call. gRPC reads it before any code of ours, where an error would be UNKNOWN: so it is handed on instead."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _undecodable(error)

    return read


def _each(deserialize: Any) -> Callable[[bytes], Any]:
    """Reads the messages of a stream: what cannot be read is raised where the stream is read."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise _undecodable(error) from error

    return read


def _undecodable(error: DecodeError) -> FailureError:
    """The bytes of a message are not of its type: damaged, cut off, nested too deep, or text that is not UTF-8."""
    return FailureError(failure("INVALID_REQUEST", f"The message cannot be read: {error}", retryable=False))


def _request_id(metadata: dict[str, str | bytes]) -> str:
    given = metadata.get(REQUEST_ID_KEY)
    return given[:_LONGEST_REQUEST_ID] if isinstance(given, str) and given else secrets.token_hex(8)
