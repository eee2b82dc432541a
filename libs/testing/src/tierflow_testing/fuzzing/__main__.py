"""The long form: `python -m tierflow_testing.fuzzing --seconds 60 --seed 7`, or one case again: `--only WaitSwarm --case 12 --seed 7`."""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import random
import shutil
import sys
import tempfile
import time

from tierflow_testing.fuzzing.calls import make_call
from tierflow_testing.fuzzing.cases import make_case, methods
from tierflow_testing.fuzzing.language import Language
from tierflow_testing.fuzzing.session import Session, documented
from tierflow_testing.fuzzing.world import World
from tierflow_testing.stack import Stack, StackOptions

LOT = 40
PROTOS = pathlib.Path("proto")


def main() -> int:
    """See the module. Returns 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tierflow_testing.fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; a fifth of it goes to the flow language")
    parser.add_argument(
        "--seed", default=str(random.SystemRandom().randrange(10**6)), help="where all chance comes from"
    )
    parser.add_argument("--only", default="", help="only the RPC of this name, or `language`")
    parser.add_argument("--case", type=int, default=None, help="only the case of this number, shown in full")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    found = 0
    if given.only in ("", "language"):
        found += _language(given.seed, given.seconds if given.only else given.seconds / 5)
    if given.only != "language":
        found += _services(given)
    return 1 if found else 0


def _language(seed: str, seconds: float) -> int:
    language = Language(seed)
    language.run(until=time.monotonic() + seconds)
    print(
        f"language: {language.flows} flows ({language.accepted} accepted, dearest {language.dearest_flow * 1000:.0f} ms), "
        f"{language.expressions} expressions ({language.evaluated} evaluated, dearest {language.dearest_expression * 1000:.0f} ms), "
        f"{len(language.findings)} findings",
        flush=True,
    )
    for finding in language.findings[:20]:
        print(finding, file=sys.stderr)
    return len(language.findings)


def _services(given: argparse.Namespace) -> int:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tierflow-fuzz-"))
    directory.chmod(0o755)  # Postgres runs as another user
    stack = Stack(directory, StackOptions())
    try:
        stack.start()
        return asyncio.run(_fuzz(stack, given))
    finally:
        stack.stop(1.0)
        shutil.rmtree(directory, ignore_errors=True)


async def _fuzz(stack: Stack, given: argparse.Namespace) -> int:
    world = World.of(stack)
    await world.open()
    session = Session(world, given.seed, stack.services, documented(PROTOS))
    try:
        if given.case is not None:
            await _again(session, given)
        else:
            await _rounds(session, given)
        await session.look_around()
        strangers = await session.accounts.strangers(stack.database_url, world.own)
    finally:
        await world.close()
    print(
        f"services: {session.calls} calls, {session.statuses}, {len(session.findings)} findings, {len(strangers)} strangers",
        flush=True,
    )
    for finding in session.findings[:30]:
        print(f"\n{finding}", file=sys.stderr)
    for stranger in strangers[:30]:
        print(f"stored although it was refused: {stranger}", file=sys.stderr)
    return len(session.findings) + len(strangers)


async def _rounds(session: Session, given: argparse.Namespace) -> None:
    until = time.monotonic() + given.seconds * 0.8
    chosen = [(tier, method) for tier, method in methods() if given.only in ("", method.name)]
    start = 0
    while time.monotonic() < until and len(session.findings) < 200:
        for tier, method in chosen:
            await session.lot(tier, method, range(start, start + LOT))
        start += LOT


async def _again(session: Session, given: argparse.Namespace) -> None:
    """One case, with what came of it."""
    for tier, method in methods():
        if method.name == given.only:
            case = make_case(session.world, given.seed, tier, method, given.case)
            print(case)
            outcome = await make_call(session.world.channels[tier], case)
            print(
                f"{tier}: {outcome.status} {outcome.reason} {outcome.details} after {outcome.took:.3f} s, {len(outcome.answers)} answers"
            )
            for answer in outcome.answers[:10]:
                print(f"  {answer}")


if __name__ == "__main__":
    sys.exit(main())
