"""The command: plays seeds, shows what fails, and how to see it again. `make sim SEEDS=n` and `make sim SEED=k` call it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from simulation import clocks

CHUNK = 25
"""Seeds between two sweeps of a process's memory."""

SHOWN = 40
"""Lines of a failing history that are shown at once."""

COURSES = 6
"""Courses that are tried of each smaller scenario."""


def main() -> int:
    """Plays what the arguments say; 1 where an invariant did not hold."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # The order of sets of texts is part of the course of things.
        os.execve(
            sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    given = _arguments()
    if given.mutations:
        return _mutated(given)
    if given.digests:
        return _digests(given.digests)
    return _one(given) if given.seed is not None else _many(given)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m simulation", description="Plays simulations and checks invariants."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--mutation", default="", help="play with a fault built into the product; see mutations.py")
    parser.add_argument("--mutations", action="store_true", help="play each mutation until it is caught")
    parser.add_argument("--digests", default="", help="only the digests of these seeds, separated by commas")
    parser.add_argument("--stop", action="store_true", help="stop at the first that fails")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after so long")
    parser.add_argument("--least", type=int, default=0, help="with --seconds: play so many, however long it takes")
    parser.add_argument("--seed", type=int, help="play one and show its history")
    parser.add_argument("--chance", type=int, default=0, help="with --seed: another course of the same scenario")
    parser.add_argument("--without", default="", help="with --seed: leave out faults and swarms, such as f0,s2")
    parser.add_argument("--quiet", action="store_true", help="with --seed: without what the services log")
    parser.add_argument("--digest", action="store_true", help="with --seed: only the digest of the history")
    return parser.parse_args()


# --- one ---


def _one(given: Any) -> int:
    from simulation import scenario, world

    _prepare(given.mutation, verbose=not given.quiet)
    drawn = replace(scenario.draw(given.seed), chance=given.chance)
    drawn = drawn.without(frozenset(filter(None, given.without.split(","))))
    outcome = world.play(drawn)
    if given.digest:
        print(outcome.digest())
        return 0
    print(_headline(drawn))
    print("\n".join(outcome.lines()))
    for text in outcome.violations:
        print(f"VIOLATED {text}")
    print(f"digest {outcome.digest()}")
    return 0 if outcome.ok else 1


def _headline(drawn: Any) -> str:
    return (
        f"seed {drawn.seed}: {drawn.coordinators} coordinators, {drawn.orchestrators} orchestrators, {drawn.executors} executors with {drawn.slots} slots, "
        f"{len(drawn.swarms)} swarms, {len(drawn.faults)} faults, NATS {'there' if drawn.nats else 'not used'}"
    )  # fmt: skip


def _digests(seeds: str) -> int:
    """The digests of seeds that are played one after the other."""
    from simulation import scenario, world

    _prepare("")
    for seed in seeds.split(","):
        print(world.play(scenario.draw(int(seed))).digest())
    return 0


def _mutated(given: Any) -> int:
    """How each mutation is caught."""
    from simulation import mutations

    names = [each.name for each in mutations.MUTATIONS]
    if given.processes <= 1:
        _prepare("")
        results = [_hunt(name) for name in names]
    else:
        with multiprocessing.get_context("spawn").Pool(given.processes, initializer=_prepare, initargs=("",)) as pool:
            results = pool.map(_hunt, names, chunksize=1)
    if given.json:
        print(json.dumps(results))
    else:
        for each in results:
            print(
                f"{each['name']:24} seed {each['seed']!s:5} {each['violation'][:110]}{'' if each['expected'] else '  NOT EXPECTED'}"
            )
    return 0 if all(each["expected"] and each["clean"] for each in results) else 1


def _hunt(name: str) -> dict[str, Any]:
    """Plays a mutation until an invariant that is about it is broken; then the same seed without it."""
    from simulation import mutations, scenario, world

    with mutations.applied(name) as mutation:
        found = None
        for seed in range(mutation.first, mutation.first + mutation.seeds):
            outcome = world.play(scenario.draw(seed))
            if seed % CHUNK == CHUNK - 1:
                world.sweep()
            if not outcome.ok:
                found = outcome
                break
    world.sweep()
    clean = found is None or world.play(scenario.draw(found.seed)).ok
    return {
        "name": name, "seeds": mutation.seeds, "seed": None if found is None else found.seed, "violation": "" if found is None else found.violations[0],
        "expected": found is not None and found.invariant in mutation.caught_by, "clean": clean,
    }  # fmt: skip


# --- many ---


def _many(given: Any) -> int:
    begun = clocks.REAL_CLOCK()
    done, bad = 0, []
    shown = begun
    for result in _results(given, begun):
        done += result["seeds"]
        bad += result["bad"]
        now = clocks.REAL_CLOCK()
        if not given.json and now - shown > 5:
            shown = now
            print(f"{done} seeds, {len(bad)} failed, {done / (now - begun):.1f} seeds/s", file=sys.stderr, flush=True)
        if given.stop and bad:
            break
    took = clocks.REAL_CLOCK() - begun
    bad.sort(key=lambda found: found["seed"])
    if given.json:
        print(json.dumps({"seeds": done, "seconds": took, "bad": bad}))
    else:
        for found in bad[:5]:
            _show(found)
        others = [found["seed"] for found in bad[5:]]
        if others:
            print(f"further failing seeds: {others}")
        print(
            f"{done} seeds in {took:.1f} s ({done / took:.1f} seeds/s with {given.processes} processes), {len(bad)} failed"
        )
    return 1 if bad else 0


def _results(given: Any, begun: float) -> Iterator[dict[str, Any]]:
    """What each chunk of seeds came to."""
    until = given.first + given.seeds
    chunks = [(at, min(at + CHUNK, until)) for at in range(given.first, until, CHUNK)]
    wanted = (
        (low, high)
        for low, high in chunks
        if low < given.first + given.least or clocks.REAL_CLOCK() - begun < given.seconds
    )
    if given.processes <= 1:
        _prepare(given.mutation, verbose=False)
        yield from (_play(chunk) for chunk in wanted)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.processes, initializer=_prepare, initargs=(given.mutation,)) as pool:
        waiting = [
            pool.apply_async(_play, (chunk,)) for _, chunk in zip(range(2 * given.processes), wanted, strict=False)
        ]
        while waiting:
            yield waiting.pop(0).get()
            waiting += [pool.apply_async(_play, (chunk,)) for _, chunk in zip(range(1), wanted, strict=False)]


def _prepare(mutation: str, verbose: bool = False) -> None:
    """Once per process."""
    from simulation import world

    world.prepare(verbose=verbose)
    if mutation:
        from simulation import mutations

        mutations.apply(mutation)


def _play(chunk: tuple[int, int]) -> dict[str, Any]:
    from simulation import scenario, world

    bad = []
    for seed in range(*chunk):
        outcome = world.play(scenario.draw(seed))
        if not outcome.ok:
            bad.append(_described(outcome))
    world.sweep()
    return {"seeds": chunk[1] - chunk[0], "bad": bad}


def _described(outcome: Any) -> dict[str, Any]:
    """A failing seed, made smaller where that is cheap."""
    smaller = _shrunk(outcome)
    drawn = smaller.scenario
    return {
        "seed": outcome.seed,
        "violations": outcome.violations[:3],
        "smaller": {"without": sorted(smaller.left_out), "chance": drawn.chance, "violations": smaller.violations[:1]},
        "headline": _headline(drawn),
        "history": smaller.lines(),
    }  # fmt: skip


def _shrunk(outcome: Any) -> Any:
    """The smallest scenario that still breaks the same invariant: one thing after the other is left out, in a few courses each."""
    from simulation import world

    best, left_out = outcome, frozenset[str]()
    for name in outcome.scenario.parts:
        smaller = outcome.scenario.without(left_out | {name})
        if not smaller.swarms:
            continue
        for chance in range(COURSES):
            tried = world.play(replace(smaller, chance=chance))
            if tried.invariant == outcome.invariant:
                best, left_out = tried, left_out | {name}
                break
    best.left_out = left_out
    return best


def _show(found: dict[str, Any]) -> None:
    smaller = found["smaller"]
    print(f"\nseed {found['seed']} failed: {found['violations'][0]}")
    print(f"  again:   make sim SEED={found['seed']}")
    if smaller["without"] or smaller["chance"]:
        more = f"--chance {smaller['chance']} --without {','.join(smaller['without'])}"
        print(f"  smaller: make sim SEED={found['seed']} ARGS='{more}'")
    print(f"  {found['headline']}")
    lines = found["history"]
    if len(lines) > SHOWN:
        print(f"  ... {len(lines) - SHOWN} lines before")
    for line in lines[-SHOWN:]:
        print(f"  {line[:200]}")
