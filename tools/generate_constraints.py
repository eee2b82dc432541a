"""Pins the newest versions that fit together in constraints.txt, by name and version alone: no address of any registry is written down.

Usage: generate_constraints.py   (`make constraints`)
"""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADER = "# Exact versions of everything the workspace installs. Made by `make constraints`; used by every install.\n"


def pins() -> list[str]:
    """One `name==version` line per package that is not ours, for this Python and later ones, sorted."""
    uv = pathlib.Path(sys.executable).with_name("uv")
    flags = [
        "--quiet",
        "--upgrade",
        "--universal",
        "--python-version",
        "3.11",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
    ]
    done = subprocess.run(
        [uv, "pip", "compile", *flags, "requirements-dev.txt"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    lines = [line for line in done.stdout.splitlines() if "==" in line and not line.startswith(("-e", "#"))]
    return sorted(lines, key=lambda line: line.partition("==")[0])


if __name__ == "__main__":
    lines = pins()
    (ROOT / "constraints.txt").write_text(HEADER + "".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} pins")
