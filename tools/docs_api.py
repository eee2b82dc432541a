"""The reference of the contracts, from the protos and their comments."""

import pathlib
import subprocess
import sys
from dataclasses import dataclass

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ["coordinator", "orchestrator", "executor", "events", "common"]
SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM")
}

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A proto file with its comments by place."""

    proto: descriptor_pb2.FileDescriptorProto
    comments: dict[Path, str]

    def comment(self, *path: int) -> str:
        """What stands before the thing at the place, on one line."""
        return " ".join(self.comments.get(path, "").split())


def page() -> str:
    """The page."""
    files = [file for file in _files() if file.proto.package.startswith("tierflow.")]
    files.sort(
        key=lambda file: (PACKAGES.index(file.proto.package.split(".")[1]), not file.proto.service, file.proto.name)
    )
    parts = [
        "# The contracts\n\nServices first, then what they send. Every field has its number; a number is never given to anything else.\n"
    ]
    for file in files:
        parts.append(f"\n## `{file.proto.name}`\n")
        parts += [_service(file, index) for index in range(len(file.proto.service))]
        parts += [_message(file, message, (4, index)) for index, message in enumerate(file.proto.message_type)]
        parts += [_enum(file, enum, (5, index)) for index, enum in enumerate(file.proto.enum_type)]
    return "".join(parts)


def _files() -> list[File]:
    buf = pathlib.Path(sys.executable).with_name("buf")
    image = subprocess.run([buf, "build", "-o", "-"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    found = descriptor_pb2.FileDescriptorSet.FromString(image).file
    return [
        File(proto, {tuple(at.path): at.leading_comments for at in proto.source_code_info.location}) for proto in found
    ]


def _service(file: File, index: int) -> str:
    service = file.proto.service[index]
    lines = [f"\n### service {service.name}\n\n{file.comment(6, index)}\n"]
    for number, method in enumerate(service.method):
        request = ("stream " if method.client_streaming else "") + _short(method.input_type)
        answer = ("stream " if method.server_streaming else "") + _short(method.output_type)
        lines.append(f"\n**{method.name}** (`{request}`) → `{answer}`  \n{file.comment(6, index, 2, number)}\n")
    return "".join(lines)


def _message(file: File, message: descriptor_pb2.DescriptorProto, path: Path, prefix: str = "") -> str:
    if message.options.map_entry:
        return ""
    name = prefix + message.name
    lines = [f"\n### {name}\n\n{file.comment(*path)}\n"]
    if message.field:
        lines.append("\n| # | field | type | |\n|---|---|---|---|\n")
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for number, field in enumerate(message.field):
        text = file.comment(*path, 2, number).replace("|", "\\|")
        lines.append(f"| {field.number} | `{field.name}` | {_type(field, maps)} | {text} |\n")
    lines += [
        _message(file, nested, (*path, 3, number), f"{name}.") for number, nested in enumerate(message.nested_type)
    ]
    lines += [_enum(file, nested, (*path, 4, number), f"{name}.") for number, nested in enumerate(message.enum_type)]
    return "".join(lines)


def _enum(file: File, enum: descriptor_pb2.EnumDescriptorProto, path: Path, prefix: str = "") -> str:
    lines = [f"\n### enum {prefix}{enum.name}\n\n{file.comment(*path)}\n\n| # | value | |\n|---|---|---|\n"]
    for number, value in enumerate(enum.value):
        lines.append(f"| {value.number} | `{value.name}` | {file.comment(*path, 2, number)} |\n")
    return "".join(lines)


def _type(field: descriptor_pb2.FieldDescriptorProto, maps: dict[str, descriptor_pb2.DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rsplit(".", 1)[-1])
    if entry is not None:
        return f"map of {_type(entry.field[0], {})} to {_type(entry.field[1], {})}"
    name = SCALARS.get(field.type) or _short(field.type_name)
    return f"repeated {name}" if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED else name


def _short(name: str) -> str:
    """`.tierflow.common.v1.Failure` as `Failure`, `.google.protobuf.Duration` as `google.protobuf.Duration`."""
    return name.rsplit(".", 1)[-1] if name.startswith(".tierflow.") else name.lstrip(".")
