"""Compiles the modules of the hot path to machine code with mypyc, into a directory of their own: `make native`.

Nothing is written beside the sources, so that a changed source is never hidden by an old binary: the compiled tree is used only by who puts it first on PYTHONPATH
(`make bench NATIVE=1`). Needs a C compiler and Python's headers. docs/adr/0021 says what it gives and why it is not the default.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("libs/runtime", "libs/durable", "libs/flow", "services/orchestrator", "services/coordinator")
MODULES = (
    "tierflow_durable/{host,births,writer,batch,relay,packing,entity,timers,clock}.py",
    "tierflow_runtime/{filling,wire,requests,streams,payloads,subjects,publisher,names,moves}.py",
    "tierflow_runtime/contract*.py",
    "tierflow_orchestrator/core/*.py",
    "tierflow_orchestrator/core/kinds/*.py",
    "tierflow_orchestrator/{engine,dispatcher,slots,starting,attempt_requests,wire,wire_filling,machine,views,spans}.py",
    "tierflow_coordinator/core/*.py",
    "tierflow_coordinator/{engine,runs,wire,views,admission,submission,waiting,machine,tracing}.py",
)
STRUCTS = re.compile(r"\bfield\(|^class \w+\((Event|Command|Effect)\)|gc=False, omit_defaults=True", re.MULTILINE)
"""Modules of msgspec's structs stay as they are: mypyc takes the marks of their fields for values, and they are classes of C already."""


def matching(tree: pathlib.Path) -> list[pathlib.Path]:
    """The modules to compile, below a tree of packages. Raises SystemExit for a pattern that matches nothing."""
    found: list[pathlib.Path] = []
    for pattern in MODULES:
        some = [path for each in _spelled_out(pattern) for path in sorted(tree.glob(each)) if _can_be(path)]
        if not some:
            raise SystemExit(f"no module is called {pattern} any more: correct tools/native.py")
        found += some
    return [path.relative_to(tree) for path in found]


def _can_be(path: pathlib.Path) -> bool:
    return path.name not in ("__init__.py", "event.py") and STRUCTS.search(path.read_text()) is None


def _spelled_out(pattern: str) -> list[str]:
    head, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    names, _, tail = rest.partition("}")
    return [head + name + tail for name in names.split(",")]


def sources() -> dict[str, pathlib.Path]:
    """By name of the package, where its sources are."""
    return {
        path.name: path
        for package in PACKAGES
        for path in (ROOT / package / "src").iterdir()
        if path.name.startswith("tierflow")
    }


def digest() -> str:
    """What the compiled tree depends on."""
    found = hashlib.sha256(sys.version.encode() + pathlib.Path(__file__).read_bytes())
    for path in sorted(each for source in sources().values() for each in source.rglob("*") if each.is_file()):
        if "__pycache__" not in path.parts:
            found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()


def build(target: pathlib.Path) -> None:
    """Copies the packages and compiles them there. Raises SystemExit where that cannot be done."""
    headers = pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h"
    if shutil.which(os.environ.get("CC", "cc")) is None or not headers.exists():
        raise SystemExit("a C compiler and Python's headers are needed (Debian: apt install gcc python3-dev)")
    if importlib.util.find_spec("mypyc") is None:
        raise SystemExit("mypyc is missing: make setup")
    shutil.rmtree(target, ignore_errors=True)
    for name, source in sources().items():
        shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [str(path) for path in matching(target)]
    print(f"compiling {len(modules)} modules into {target}; this takes some minutes", file=sys.stderr)
    environment = {**os.environ, "MYPYPATH": str(target), "MYPYC_OPT_LEVEL": "2", "MYPYC_DEBUG_LEVEL": "0"}
    command = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", *modules]
    done = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit("\n".join([*done.stdout.splitlines()[-20:], *done.stderr.splitlines()[-20:]]))
    shutil.rmtree(target / "build")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=pathlib.Path, nargs="?", default=ROOT / ".native")
    target = parser.parse_args().target.resolve()
    stamp, now = target / ".digest", digest()
    if stamp.exists() and stamp.read_text() == now:
        return
    build(target)
    stamp.write_text(now)


if __name__ == "__main__":
    main()
