"""Compiles the services to machine code with mypyc, into a directory of their own: `make native`.

Nothing is written beside the sources, so that a changed source is never hidden by an old binary: the compiled tree is used only by who puts it first on PYTHONPATH
(`make bench NATIVE=1`, the image). Needs a C compiler and Python's headers. docs/adr/0021 says what it gives and what it costs; `native_modules.py` says what is compiled.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata

from native_modules import PACKAGES, matching

ROOT = pathlib.Path(__file__).resolve().parents[1]
HERE = pathlib.Path(__file__).resolve().parent


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
    found = hashlib.sha256(f"{sys.version} {metadata.version('mypy')} {os.environ.get('NATIVE_OPT')}".encode())
    for tool in sorted(HERE.glob("native*.py")):
        found.update(tool.read_bytes())
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
    modules = matching(target)
    print(f"compiling {len(modules)} modules into {target}; this takes some minutes", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(HERE / "native_compile.py"), scratch, *map(str, modules)]
        environment = {**os.environ, "MYPYPATH": str(target)}
        done = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit("\n".join([*done.stdout.splitlines()[-20:], *done.stderr.splitlines()[-20:]]))


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
