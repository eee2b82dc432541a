"""Who may import whom; the contracts are in pyproject.toml."""

import pathlib
import subprocess
import sys

import grimp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    packages = ["tierflow_coordinator", "tierflow_orchestrator", "tierflow_executor", "tierflow_cli", "tierflow"]
    return grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)


def test_import_contracts_hold() -> None:
    """A7, B1, B2, B3, N1: every contract of pyproject.toml is kept."""
    program = pathlib.Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache", "--no-logo"], cwd=sources.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def test_services_import_no_service(graph: grimp.ImportGraph) -> None:
    """A7: no chain of imports leads from one service to another."""
    services = ("tierflow_coordinator", "tierflow_orchestrator", "tierflow_executor")
    chains = [(a, b) for a in services for b in services if a != b and graph.chain_exists(a, b, as_packages=True)]
    assert chains == []


def test_the_command_has_no_engine(graph: grimp.ImportGraph) -> None:
    """N1, Lesson 19: the command line reaches no engine; what it says goes over gRPC."""
    engines = {"tierflow_durable", "tierflow_flow", "tierflow_coordinator", "tierflow_orchestrator", "asyncpg", "nats"}
    modules = {"tierflow_cli", *graph.find_descendants("tierflow_cli")}
    imported = {name.split(".")[0] for module in modules for name in graph.find_modules_directly_imported_by(module)}
    assert not imported & engines


def test_the_kit_knows_the_core_alone() -> None:
    """A7, B2, Q24: rehearsals are decided by the core of tier 2, and by nothing else of it; no service and no module of the SDK knows the kit."""
    graph = grimp.build_graph("tierflow_kit", "tierflow_orchestrator", "tierflow", "tierflow_executor", cache_dir=None)
    kit = {"tierflow_kit", *graph.find_descendants("tierflow_kit")}
    imported = {name for module in kit for name in graph.find_modules_directly_imported_by(module)}
    of_tier_2 = {name for name in imported if name.startswith("tierflow_orchestrator")}
    assert of_tier_2
    assert {name for name in of_tier_2 if not name.startswith("tierflow_orchestrator.core")} == set()
    importers = {name for module in kit for name in graph.find_modules_that_directly_import(module)} - kit
    assert importers == {"tierflow.testing"}
