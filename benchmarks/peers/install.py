"""Installs the peers, each into an environment of its own below `.tools/peers`, at the versions in `pins`; nothing of them reaches the workspace."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / ".tools/peers"
PINS = pathlib.Path(__file__).with_name("pins")


def python_of(peer: str) -> pathlib.Path:
    """The interpreter of a peer's environment."""
    return PLACE / peer / "bin/python"


def restate_server() -> pathlib.Path:
    """The program of Restate's server.

    Raises:
        SystemExit: npm has installed none for this machine.
    """
    found = sorted((PLACE / "npm/node_modules/@restatedev").glob("restate-server-*/bin/restate-server"))
    if not found:
        raise SystemExit("Restate has no server for this machine")
    return found[0]


def install(peer: str) -> None:
    """Makes the environment of a peer, unless it is there with the same versions."""
    _once(peer, PINS / f"{peer}.txt", _python_packages)
    if peer == "restate":
        _once("npm", PINS / "package.json", _npm_packages)


def _once(name: str, pins: pathlib.Path, make: Callable[[pathlib.Path, pathlib.Path], None]) -> None:
    """Calls `make(directory, pins)` where the directory was not made from these pins."""
    directory = PLACE / name
    mark = directory / "installed"
    if mark.exists() and mark.read_text() == pins.read_text():
        return
    print(f"installing {name} into {directory.relative_to(ROOT)}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    make(directory, pins)
    shutil.copy(pins, mark)


def _python_packages(directory: pathlib.Path, pins: pathlib.Path) -> None:
    uv = pathlib.Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, directory], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", directory / "bin/python", "-r", pins], check=True)


def _npm_packages(directory: pathlib.Path, pins: pathlib.Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("Restate's server is installed with npm, which is not here; PEERS=... leaves Restate out")
    directory.mkdir()
    shutil.copy(pins, directory / "package.json")
    quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    subprocess.run([npm, "install", *quiet], cwd=directory, check=True, stdout=subprocess.DEVNULL)
