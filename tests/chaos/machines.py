"""Bad machines: a wrong clock and a slow disk by a shim that is compiled here, a full disk by a small file system. What a machine cannot do is skipped."""

import os
import pathlib
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SHIM = pathlib.Path(__file__).with_name("shim.c")


class Weather:
    """The weather of processes that were started with `environment`; it can be changed while they run."""

    def __init__(self, library: pathlib.Path, file: pathlib.Path) -> None:
        self._file = file
        file.write_bytes(bytes(16))
        file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(library), "WEATHER_FILE": str(file)}

    def slow_disk(self, seconds: float) -> None:
        """From now on each fsync takes so much longer."""
        self._put(0, int(seconds * 1e6))

    def clock(self, seconds: float) -> None:
        """From now on the wall clock is so far ahead, or behind."""
        self._put(8, int(seconds * 1e9))

    def _put(self, place: int, number: int) -> None:
        with self._file.open("r+b") as file:
            file.seek(place)
            file.write(struct.pack("=q", number))


def shim(directory: pathlib.Path) -> pathlib.Path:
    """The compiled shim; skips the test where there is no compiler or no LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("a bad machine needs Linux and a C compiler")
    library = directory / "shim.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], check=True)
    library.chmod(0o755)
    return library


@contextmanager
def small_disk(place: pathlib.Path, megabytes: int) -> Iterator[pathlib.Path]:
    """A file system of this size in memory; skips the test where none may be mounted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a full disk needs root and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: pathlib.Path) -> pathlib.Path:
    """Takes all space that is left; the file that has it gives it back when it is deleted."""
    hog = place / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    return hog
