"""Generates libs/contracts from proto/.

Runs with the pinned generator (grpcio-tools and mypy-protobuf of an environment of their own, see `make contracts`): its output must run with every
protobuf runtime that the workspace allows. protoc derives Python imports from file paths, so that the root `tierflow` of the protos would collide with the
SDK's package; the root is rewritten to `tierflow_contracts` in imports and in the builder calls (else pickling breaks).

Usage: generate_contracts.py [--check]; with --check nothing is written, and the exit code says whether the committed modules are what the protos give.
"""

import filecmp
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = "tierflow_contracts"
TARGET = ROOT / "libs/contracts/src" / PACKAGE


def generate(target: pathlib.Path) -> int:
    """Writes the generated modules into `target`, whose packages it replaces, and returns how many files there are."""
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        _compile(scratch)
        for package in _packages(target):
            shutil.rmtree(package)
        sources = sorted((scratch / "tierflow").rglob("*.py*"))
        for source in sources:
            destination = target / source.relative_to(scratch / "tierflow")
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_text(rewritten(source.read_text()))
    for package in _packages(target):
        for directory in [package, *(path for path in package.rglob("*") if path.is_dir())]:
            (directory / "__init__.py").write_text("")
    return len(sources)


def _compile(target: pathlib.Path) -> None:
    """Lets protoc and its plug-ins write into `target`."""
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    flags = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *flags, *protos]
    done = subprocess.run(command, cwd=PROTO, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)  # otherwise only chatter of the plug-ins


def _packages(target: pathlib.Path) -> list[pathlib.Path]:
    """The directories of generated packages."""
    return [path for path in target.glob("*") if path.is_dir() and path.name != "__pycache__"]


def rewritten(text: str) -> str:
    """The text of a generated module with its root package renamed."""
    text = re.sub(r"\bfrom tierflow\.", f"from {PACKAGE}.", text)
    text = re.sub(r"\bimport tierflow\.", f"import {PACKAGE}.", text)
    text = re.sub(r"(?<![\w./'\"])tierflow\.(\w+)\.v1(\.|\b)(?=\w+_pb2)", rf"{PACKAGE}.\1.v1.", text)
    return re.sub(r"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')tierflow\.", rf"\1{PACKAGE}.", text)


def differences() -> list[str]:
    """What is not as the protos give it, one line each."""
    with tempfile.TemporaryDirectory() as name:
        fresh = pathlib.Path(name)
        generate(fresh)
        wanted, present = _modules(fresh), _modules(TARGET)
        lines = [f"missing: {path}" for path in sorted(wanted - present)]
        lines += [f"not from any proto: {path}" for path in sorted(present - wanted)]
        _, changed, unreadable = filecmp.cmpfiles(fresh, TARGET, sorted(wanted & present), shallow=False)
        return lines + [f"differs: {path}" for path in changed + unreadable]


def _modules(directory: pathlib.Path) -> set[str]:
    """The paths of the modules below the package, without the package's own files."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*.py*")
        if path.parent != directory and path.suffix != ".pyc"
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        found = differences()
        sys.exit("\n".join([*found, "make contracts brings them up to date"]) if found else 0)
    print(f"{generate(TARGET)} files")
