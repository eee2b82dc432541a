"""The command: `python -m simulation --seeds N` or `--seed K`."""

from __future__ import annotations

import argparse

from simulation import clocks, scenario, world


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    world.prepare(verbose=given.verbose)
    seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    begun = clocks.REAL_CLOCK()
    bad = 0
    for seed in seeds:
        outcome = world.Simulation(scenario.draw(seed)).play()
        if given.seed is not None:
            print("\n".join(outcome.lines()))
        if not outcome.ok:
            bad += 1
            print(seed, outcome.violations[:2])
    took = clocks.REAL_CLOCK() - begun
    print(f"{len(seeds)} seeds, {bad} bad, {took:.2f} s")
    return 1 if bad else 0
