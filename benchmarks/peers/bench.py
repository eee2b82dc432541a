"""Runs the workloads against Tierflow and its peers in turn, several rounds, and prints a table: `make bench-peers`.

Environment: PEERS and OPS, names separated by blanks (default: all), ROUNDS (default 3), SMOKE=1 for tiny counts that show nothing but that it works.
Every product is started anew for each variant and round. Lines go to `benchmarks/results/peers.jsonl`, if the machine was quiet at the begin.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import measuring
from benchmarks.peers.driver import ITEMS
from benchmarks.peers.install import install
from benchmarks.peers.load import LoadFailed, Took, perform
from benchmarks.peers.products import EVERYTHING, PRODUCTS, Product, Running, Variant
from benchmarks.peers.report import summary, table


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a workload: runs and how many at once, and the same one at a time; `steps` to a run."""

    count: int
    at_once: int
    alone: int
    steps: int


AMOUNTS = {
    "w1": Amount(2000, 256, 300, 1),
    "w2": Amount(200, 32, 20, 10),
    "w3": Amount(1, 1, 0, ITEMS["w3"]),
    "w3big": Amount(1, 1, 0, ITEMS["w3big"]),
}
SMOKE = {"w1": Amount(20, 8, 4, 1), "w2": Amount(4, 2, 2, 10), "w3": AMOUNTS["w3"], "w3big": AMOUNTS["w3big"]}
WARM_UP = {"w1": (64, 32), "w2": (6, 6), "w3": (1, 1)}
_UNITS = {"w1": "run", "w2": "step", "w3": "step", "w3big": "step"}


def measured(running: Running, operation: str, amount: Amount) -> dict[str, Any]:
    """Performs one workload and returns its figures; `errors` says what went wrong."""
    alone = perform(running.loads, operation, amount.alone, 1) if amount.alone else None
    before = measuring.cpu_of(running.processes())
    took = perform(running.loads, operation, amount.count, amount.at_once)
    after = measuring.cpu_of(running.processes())
    done = len(took.latencies) * amount.steps
    cpu = measuring.spent(before, after, done)
    errors = took.errors + (alone.errors if alone else [])
    figures: dict[str, Any] = _figures(operation, amount, took, alone) if not errors else {"errors": errors[:3]}
    if not errors:
        figures[f"cpu_us_per_{_UNITS[operation]}"] = round(sum(cpu.values()), 1)
    return {**figures, "cpu_us": cpu}


def _figures(operation: str, amount: Amount, took: Took, alone: Took | None) -> dict[str, Any]:
    if operation in ITEMS:
        return {"seconds": round(took.seconds, 4)}
    found: dict[str, Any] = {
        f"{_UNITS[operation]}s_per_s": round(took.rate * amount.steps, 1),
        **measuring.milliseconds(took.latencies),
    }
    if alone:
        lone = measuring.milliseconds(alone.latencies)
        found |= {f"alone_{name}": round(value / amount.steps, 3) for name, value in lone.items()}
    return found


def one_variant(
    product: Product, variant: Variant, operations: Sequence[str], amounts: Mapping[str, Amount]
) -> dict[str, Any]:
    """Starts a product, measures, stops it; returns figures by operation, and of its start."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"bench-{product.name}-"))
    directory.chmod(0o755)
    found: dict[str, Any] = {}
    try:
        with contextlib.ExitStack() as stack:
            began = time.perf_counter()
            running = product.start(stack, directory, variant)
            perform(running.loads, operations[0] if operations[0] != "w3big" else "w3", 1, 1)
            found["start"] = {"first_run_s": round(time.perf_counter() - began, 2)}
            found["start"]["pss_mib"] = {who: measuring.memory_mib(pid) for who, pid in running.processes().items()}
            for operation in operations:
                if operation in WARM_UP:
                    perform(running.loads, operation, *WARM_UP[operation])
                found[operation] = measured(running, operation, amounts[operation])
                print(f"{product.name}, {variant.label}: {operation} {found[operation]}", file=sys.stderr)
            problems = running.check()
            if problems:
                raise SystemExit("fast and wrong does not count:\n" + "\n".join(problems[:20]))
    except LoadFailed as failed:
        print(f"{product.name}, {variant.label}: {failed}", file=sys.stderr)
        found["failed"] = str(failed)[:300]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: products, workloads, how much of them, how often."""

    products: Sequence[Product]
    operations: Sequence[str]
    amounts: Mapping[str, Amount]
    rounds: int


def order(given: Mapping[str, str]) -> Order:
    """Reads the environment. Raises `SystemExit` where it names what there is not."""
    smoke = given.get("SMOKE") == "1"
    peers = _chosen(given, "PEERS", PRODUCTS)
    operations = _chosen(given, "OPS", EVERYTHING if not smoke else EVERYTHING[:-1])
    products = [PRODUCTS[name] for name in dict.fromkeys(["tierflow", *peers])]
    rounds = 1 if smoke else int(given.get("ROUNDS") or 3)
    return Order(products, operations, SMOKE if smoke else AMOUNTS, rounds)


def series(wanted: Order) -> Iterator[dict[str, Any]]:
    """All rounds; within a round every product in each of its variants, so that what changes on the machine meets all of them."""
    for number in range(1, wanted.rounds + 1):
        for product in wanted.products:
            for variant in product.variants:
                operations = [name for name in wanted.operations if name in variant.operations]
                if operations:
                    found = one_variant(product, variant, operations, wanted.amounts)
                    yield {"product": product.name, "variant": variant.label, "round": number, **found}


def incomplete(line: Mapping[str, Any]) -> bool:
    """Whether something of it could not be measured."""
    return "failed" in line or any("errors" in line.get(name, {}) for name in EVERYTHING)


def main() -> None:
    """See the module."""
    wanted = order(os.environ)
    for product in wanted.products:
        if product.name != "tierflow":
            install(product.name)
    circumstances = measuring.circumstances(300.0 if wanted.amounts is AMOUNTS else 0.0)
    lines = [{**line, **circumstances} for line in series(wanted)]
    print(table(summary(lines)))
    print(
        f"\nmedians of {wanted.rounds} rounds; {', '.join(f'{name} {value}' for name, value in circumstances.items())}"
    )
    if wanted.amounts is AMOUNTS:
        measuring.keep("peers", lines)
    if any(map(incomplete, lines)):
        raise SystemExit("not everything could be measured; see above")


def _chosen(given: Mapping[str, str], variable: str, all_of_them: Sequence[str] | Mapping[str, object]) -> list[str]:
    chosen = (given.get(variable) or " ".join(all_of_them)).split()
    unknown = [name for name in chosen if name not in all_of_them]
    if unknown:
        raise SystemExit(f"{variable}: there is no {', '.join(unknown)}, there are {', '.join(all_of_them)}")
    return chosen


if __name__ == "__main__":
    main()
