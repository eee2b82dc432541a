"""The simulation: the product keeps its invariants over many seeds, a seed is one history, and faults that are built in are noticed.

Each test plays in an interpreter of its own: a simulation replaces clocks and chance.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent
OVERTAKING = 1_000_000
"""Seeds from here on are about commands that are overtaken: `simulation.scenario.OVERTAKING`."""
SEEDS = 400
"""The same on every machine: a test that plays as many as fit into a time finds something else on a faster one. `make sim SEEDS=…` plays more."""


def _play(*arguments: str, hash_seed: str = "0") -> str:
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-m", "simulation", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr[-2000:]
    return done.stdout


def _described(found: dict[str, Any]) -> str:
    return f"make sim SEED={found['seed']}: {found['violations'][0]}"


@pytest.mark.timeout(300)
def test_invariants_hold() -> None:
    """V1 to V55, V57, S1, D8, R1 to R31: whatever the seeds do to processes, network, database and event stream."""
    played = json.loads(_play("--seeds", str(SEEDS), "--json"))
    assert [_described(found) for found in played["bad"]] == []
    assert played["seeds"] == SEEDS


def test_commands_come_in_order() -> None:
    """V51, R14: whatever ways pauses and resumes go over connections that are slow and break."""
    played = json.loads(_play("--first", str(OVERTAKING), "--seeds", "10", "--json"))
    assert [_described(found) for found in played["bad"]] == []


def test_a_seed_is_one_history() -> None:
    """The same seed gives the same history, alone and after others: what failed once is seen again."""
    for seed in ("3", "108"):
        alone = [_play("--seed", seed, "--quiet", "--digest") for _ in range(2)]
        assert alone[0] == alone[1]
        assert alone[0] in _play("--digests", f"0,5,{seed}")


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_every_mutation_is_caught() -> None:
    """Lesson 45: each fault breaks an invariant that is about it, within its seeds; without it the same seeds hold."""
    results = json.loads(_play("--mutations", "--json"))
    assert len(results) >= 30
    assert [f"{each['name']}: not caught in {each['seeds']} seeds" for each in results if each["seed"] is None] == []
    assert [f"{each['name']}: {each['violation']}" for each in results if not each["expected"]] == []
    assert [f"{each['name']}: seed {each['seed']} fails without it" for each in results if not each["clean"]] == []
