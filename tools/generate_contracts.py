"""Generates libs/contracts from proto/.

Runs with the pinned generator (grpcio-tools and mypy-protobuf of an environment of their own, see `make contracts`): its output must run with every
protobuf runtime that the workspace allows. protoc derives Python imports from file paths, so that the root `tierflow` of the protos would collide with the
SDK's package; the root is rewritten to `tierflow_contracts` in imports and in the builder calls (else pickling breaks).

Usage: generate_contracts.py [OUTPUT_DIR]; the default is libs/contracts/src/tierflow_contracts.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = "tierflow_contracts"


def generate(target: pathlib.Path) -> int:
    """Writes the generated modules into `target` and returns how many files there are."""
    protos = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        flags = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *flags, *protos], check=True, cwd=PROTO)
        for child in target.iterdir() if target.exists() else ():
            if child.is_dir() and child.name != "__pycache__":
                shutil.rmtree(child)
        count = 0
        for source in sorted((scratch / "tierflow").rglob("*.py*")):
            text = rewritten(source.read_text())
            destination = target / source.relative_to(scratch / "tierflow")
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_text(text)
            count += 1
        for directory in [d for d in target.rglob("*") if d.is_dir() and d.name != "__pycache__"]:
            (directory / "__init__.py").write_text("")
    return count


def rewritten(text: str) -> str:
    """The text of a generated module with its root package renamed."""
    text = re.sub(r"\bfrom tierflow\.", f"from {PACKAGE}.", text)
    text = re.sub(r"\bimport tierflow\.", f"import {PACKAGE}.", text)
    text = re.sub(r"(?<![\w./'\"])tierflow\.(\w+)\.v1(\.|\b)(?=\w+_pb2)", rf"{PACKAGE}.\1.v1.", text)
    return re.sub(r"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')tierflow\.", rf"\1{PACKAGE}.", text)


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "libs/contracts/src" / PACKAGE
    print(f"{generate(where)} files")
