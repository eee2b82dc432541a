"""A small grpcurl in Python: lists, describes and calls gRPC services through server reflection, knowing nothing of their protos.

The recipes of docs/operations.md are run with it, so that what an operator types is what was tested. It understands the part of grpcurl's command line that
the recipes use: `-plaintext`, `-d`, `-H`, `-max-time`, `-emit-defaults`, then an address, then `list`, `describe` or `service/method`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection_pb2

VERSIONS = ("v1", "v1alpha")
TRIES = 3
"""How often each version is asked."""
_KINDS: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_DETAILS = "grpc-status-details-bin"


class NoReflection(Exception):
    """The server does not answer reflection."""


class NoSymbol(Exception):
    """The server has no service, method or type of that name."""


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line."""

    address: str
    verb: str
    """`list`, `describe`, or a method such as `package.Service/Method`."""
    symbol: str = ""
    data: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    max_time: float | None = None
    emit_defaults: bool = False


@dataclass(slots=True)
class Reflection:
    """What one server says of itself.

    Attributes:
        channel: A channel to it.
        version: `v1` or `v1alpha`; the newest that it answers where empty.
    """

    channel: grpc.aio.Channel
    version: str = ""
    pool: DescriptorPool = field(default_factory=DescriptorPool)
    _known: set[str] = field(default_factory=set)

    async def services(self) -> list[str]:
        """Full names of its services."""
        response = await self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        return sorted(service.name for service in response.list_services_response.service)

    async def service(self, name: str) -> ServiceDescriptor:
        """One service. Raises `NoSymbol`."""
        await self._load(name)
        found: ServiceDescriptor = self.pool.FindServiceByName(name)
        return found

    async def method(self, path: str) -> MethodDescriptor:
        """One method, given as `package.Service/Method` or `package.Service.Method`. Raises `NoSymbol`."""
        service, _, name = path.rpartition("/" if "/" in path else ".")
        found = (await self.service(service)).methods_by_name.get(name)
        if found is None:
            raise NoSymbol(f"service {service} has no method {name}")
        return found

    async def describe(self, symbol: str) -> str:
        """A service, method, message or enum as text close to its proto. Raises `NoSymbol`."""
        try:
            await self._load(symbol)
        except NoSymbol:  # servers know methods within their services only
            return _show_method(await self.method(symbol))
        kinds: list[tuple[Callable[[str], Any], Callable[[Any], str]]] = [
            (self.pool.FindServiceByName, _show_service),
            (self.pool.FindMessageTypeByName, _show_message),
            (self.pool.FindEnumTypeByName, _show_enum),
        ]
        for find, show in kinds:
            try:
                return show(find(symbol))
            except KeyError:
                continue
        return _show_method(await self.method(symbol))

    async def call(
        self,
        path: str,
        requests: Sequence[Any],
        *,
        headers: Sequence[tuple[str, str]] = (),
        timeout: float | None = None,
    ) -> AsyncIterator[Any]:
        """Calls a method of any kind and yields its response messages.

        Args:
            path: `package.Service/Method`.
            requests: Plain JSON values; one for a unary request.
            headers: Metadata.
            timeout: Seconds.

        Raises:
            NoSymbol: There is no such method.
            json_format.ParseError: A request does not fit.
            grpc.aio.AioRpcError: The call failed.
        """
        method = await self.method(path)
        messages = [
            json_format.ParseDict(value, GetMessageClass(method.input_type)(), descriptor_pool=self.pool)
            for value in requests
        ]
        kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        multi = getattr(self.channel, "_".join(kind))(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = multi(
            iter(messages) if method.client_streaming else messages[0], metadata=tuple(headers), timeout=timeout
        )
        if method.server_streaming:
            async for response in call:
                yield response
        else:
            yield await call

    async def _load(self, symbol: str) -> None:
        """Brings the files that define a symbol into the pool."""
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        pending = await self._files(request, symbol)
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        while pending:
            file = pending.pop()
            if file.name in self._known or file.name in files:
                continue
            files[file.name] = file
            for needed in file.dependency:
                if (
                    needed not in self._known
                    and needed not in files
                    and needed not in {other.name for other in pending}
                ):
                    pending += await self._files(
                        reflection_pb2.ServerReflectionRequest(file_by_filename=needed), needed
                    )
        self._add(files)

    def _add(self, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
        """Adds files to the pool, each after those it needs."""
        while files:
            ready = next(name for name, file in files.items() if not any(needed in files for needed in file.dependency))
            self.pool.Add(files.pop(ready))
            self._known.add(ready)

    async def _files(self, request: Any, symbol: str) -> list[descriptor_pb2.FileDescriptorProto]:
        response = await self._ask(request)
        if response.HasField("error_response"):
            raise NoSymbol(f"the server knows no {symbol}: {response.error_response.error_message}")
        texts = response.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(text) for text in texts]

    async def _ask(self, request: Any) -> Any:
        for version in TRIES * ([self.version] if self.version else list(VERSIONS)):
            ask = self.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            try:
                async for response in ask(iter([request])):
                    self.version = version
                    return response
            except grpc.aio.AioRpcError as error:
                # INTERNAL is what gRPC itself says where the server refuses the stream while the question is being written.
                if error.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL):
                    raise
        raise NoReflection("the server does not answer reflection")


def parse(line: str | Sequence[str]) -> Command:
    """A command line, with or without `grpcurl` in front. Raises `ValueError` for what is not understood."""
    words = shlex.split(line) if isinstance(line, str) else [*line]
    if words and words[0] == "grpcurl":
        words = words[1:]
    parser = argparse.ArgumentParser("grpcurl", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-emit-defaults", action="store_true")
    parser.add_argument("-d", default="")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-max-time", type=float)
    parser.add_argument("address")
    parser.add_argument("verb", nargs="?", default="")
    parser.add_argument("symbol", nargs="?", default="")
    try:
        given, unknown = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"not understood: {' '.join(unknown)}")
    if not given.verb:
        raise ValueError("say what to do: list, describe, or package.Service/Method")
    if not given.plaintext:
        raise ValueError("only -plaintext is understood")
    headers = tuple(
        (name.strip().lower(), value.strip()) for name, _, value in (text.partition(":") for text in given.H)
    )
    return Command(given.address, given.verb, given.symbol, given.d, headers, given.max_time, given.emit_defaults)


async def run(command: Command) -> AsyncIterator[str]:
    """Runs a command and yields what grpcurl would print, message by message. Raises what `Reflection` raises."""
    async with grpc.aio.insecure_channel(command.address) as channel:
        reflection = Reflection(channel)
        if command.verb == "list":
            if command.symbol:
                service = await reflection.service(command.symbol)
                yield "\n".join(f"{service.full_name}.{method.name}" for method in service.methods)
            else:
                yield "\n".join(await reflection.services())
        elif command.verb == "describe":
            for symbol in [command.symbol] if command.symbol else await reflection.services():
                yield await reflection.describe(symbol)
        else:
            requests = _values(command.data)
            responses = reflection.call(
                command.verb, requests or [{}], headers=command.headers, timeout=command.max_time
            )
            async for response in responses:
                yield json_format.MessageToJson(
                    response,
                    descriptor_pool=reflection.pool,
                    always_print_fields_with_no_presence=command.emit_defaults,
                )


def _values(text: str) -> list[Any]:
    """The JSON values that follow one another in a text."""
    decoder, values, place = json.JSONDecoder(), [], 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        value, place = decoder.raw_decode(text, place)
        values.append(value)
    return values


def _show_service(service: ServiceDescriptor) -> str:
    lines = [_show_method(method, indent="  ") for method in service.methods]
    return "\n".join([f"service {service.full_name} {{", *lines, "}"])


def _show_method(method: MethodDescriptor, indent: str = "") -> str:
    takes = f"{'stream ' if method.client_streaming else ''}.{method.input_type.full_name}"
    gives = f"{'stream ' if method.server_streaming else ''}.{method.output_type.full_name}"
    return f"{indent}rpc {method.name} ( {takes} ) returns ( {gives} );"


def _show_message(message: Descriptor) -> str:
    return "\n".join([f"message {message.full_name} {{", *(f"  {_show_field(each)}" for each in message.fields), "}"])


def _show_field(each: FieldDescriptor) -> str:
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        key, value = each.message_type.fields
        return f"map<{_kind(key)}, {_kind(value)}> {each.name} = {each.number};"
    return f"{'repeated ' if each.is_repeated else ''}{_kind(each)} {each.name} = {each.number};"


def _kind(each: FieldDescriptor) -> str:
    named = each.message_type or each.enum_type
    return f".{named.full_name}" if named is not None else _KINDS[each.type]


def _show_enum(enum: EnumDescriptor) -> str:
    return "\n".join(
        [f"enum {enum.full_name} {{", *(f"  {value.name} = {value.number};" for value in enum.values), "}"]
    )


def explain(error: grpc.aio.AioRpcError) -> str:
    """A failed call as grpcurl prints it, with the details that came along."""
    words = "".join(part.capitalize() for part in error.code().name.split("_"))
    lines = ["ERROR:", f"  Code: {words}", f"  Message: {error.details()}"]
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == _DETAILS:
            lines += [f"  Detail: {detail.type_url}" for detail in status_pb2.Status.FromString(value).details]
    return "\n".join(lines)


async def _main(arguments: Sequence[str]) -> int:
    try:
        command = parse(arguments)
        if command.data == "@":
            command = Command(
                **{name: getattr(command, name) for name in Command.__slots__} | {"data": sys.stdin.read()}
            )
        async for text in run(command):
            print(text, flush=True)
    except grpc.aio.AioRpcError as error:
        print(explain(error), file=sys.stderr)
        return 64 + int(error.code().value[0])
    except (ValueError, NoReflection, NoSymbol, json_format.ParseError) as error:
        print(f"grpcurl: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1:])))
