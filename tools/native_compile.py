"""Writes C for modules of Python with mypyc, and compiles it on all processors: `native_compile.py SCRATCH MODULE...`, in the directory of the packages."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Distribution, Extension  # type: ignore[import-untyped]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

# mypyc looks whether setuptools is there: so it comes after it.
from mypyc.build import mypycify  # isort: skip

LEVEL = os.environ.get("NATIVE_OPT", "2")
"""-O3 takes longer and gives nothing that can be measured; -O0 is for trying whether something compiles."""


class BuildAtOnce(build_ext):  # type: ignore[misc]
    """Compiles the files of an extension side by side; setuptools alone does so with extensions only."""

    def build_extensions(self) -> None:
        """See setuptools."""
        compiler: Any = self.compiler
        compile_all = compiler.compile
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def compiled(files: list[str], **settings: Any) -> list[str]:
                made = pool.map(lambda file: compile_all([file], **settings), files)
                return list(itertools.chain.from_iterable(made))

            compiler.compile = compiled
            super().build_extensions()


def main(scratch: str, modules: list[str]) -> None:
    """Compiles them in place. Raises SystemExit where mypyc refuses one, and the compiler's error where that does."""
    extensions: list[Extension] = mypycify(
        ["--config-file=", "--ignore-missing-imports", *modules],
        opt_level=LEVEL,
        debug_level="0",
        multi_file=True,
        target_dir=scratch,
        group_name="tierflow",
    )
    build = BuildAtOnce(Distribution({"ext_modules": extensions}))
    build.inplace, build.build_temp, build.build_lib = True, scratch, os.path.join(scratch, "lib")
    build.ensure_finalized()
    build.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
