"""The Dockerfile, read as Docker would read it, and the packages that it installs."""

import ast
import functools
import importlib.metadata
import importlib.util
import pathlib
import re
import sys
import tomllib
from dataclasses import dataclass, field

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import sources

SERVICES = ("coordinator", "orchestrator", "executor")
PACKAGES = {
    "contracts": "tierflow_contracts",
    "runtime": "tierflow_runtime",
    "durable": "tierflow_durable",
    "expressions": "tierflow_expressions",
    "flow": "tierflow_flow",
    "sdk": "tierflow",
    "kit": "tierflow_kit",
    "testing": "tierflow_testing",
    "cli": "tierflow_cli",
    **{service: f"tierflow_{service}" for service in SERVICES},
}


@dataclass
class Stage:
    """A stage of the Dockerfile: what it is made from, and its instructions."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


@functools.cache
def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    text = (sources.ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        else:
            found[list(found)[-1]].instructions.append((instruction, rest))
    return found


def history(name: str) -> list[tuple[str, str]]:
    """All instructions that make a stage, those of the stages below included."""
    stage = stages()[name]
    return [*(history(stage.base) if stage.base in stages() else []), *stage.instructions]


def project(directory: pathlib.Path) -> dict:
    return tomllib.loads((directory / "pyproject.toml").read_text())["project"]


def dependencies(directory: pathlib.Path) -> set[str]:
    """The names of what a package declares."""
    return {re.split(r"[^\w-]", text, maxsplit=1)[0].lower() for text in project(directory)["dependencies"]}


def needed(directory: pathlib.Path) -> set[pathlib.Path]:
    """The package and all packages of ours that it depends on."""
    places = [*sources.ROOT.glob("libs/*"), *sources.ROOT.glob("services/*")]
    ours = {project(path)["name"]: path for path in places if (path / "pyproject.toml").exists()}
    return {directory, *(path for name in dependencies(directory) & ours.keys() for path in needed(ours[name]))}


def test_every_copy_exists_and_is_sent() -> None:
    """Q33: the Dockerfile copies nothing that is not there, and nothing that .dockerignore holds back."""
    sent = {line[1:] for line in (sources.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, stage in stages().items():
        for instruction, rest in stage.instructions:
            if instruction == "COPY" and not rest.startswith("--from="):
                path = rest.split()[0]
                assert (sources.ROOT / path).exists(), f"{name}: {path}"
                assert path.split("/")[0] in sent, f"{name}: {path}"
            if rest.startswith("--from="):
                assert rest.split()[0].removeprefix("--from=") in stages()


@pytest.mark.parametrize("service", SERVICES)
def test_a_target_installs_what_its_service_needs(service: str) -> None:
    """Q33, A7: the image has the service, the libraries it declares, all of them, and nothing else of ours."""
    installed = {
        sources.ROOT / word[2:]
        for instruction, rest in history(f"build-{service}")
        if instruction == "RUN" and "pip install" in rest
        for word in rest.split()
        if word.startswith("./")
    }
    assert installed == needed(sources.ROOT / "services" / service)
    copied = {rest.split()[0] for instruction, rest in history(f"build-{service}") if instruction == "COPY"}
    assert copied == {"constraints.txt", *(str(path.relative_to(sources.ROOT)) for path in installed)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_target_starts_its_service_as_nobody(service: str) -> None:
    """Q33: each target starts the module of its service, which exists, as a user without rights, on the port that it says."""
    instructions = dict(history(service))
    assert instructions["ENTRYPOINT"] == f'["/opt/tierflow/bin/python", "-m", "tierflow_{service}"]'
    assert instructions["USER"] == "10001:10001"
    assert instructions["EXPOSE"] == str(7701 + SERVICES.index(service))
    assert instructions["COPY"] == f"--from=build-{service} /opt/tierflow /opt/tierflow"
    assert importlib.util.find_spec(f"tierflow_{service}.__main__") is not None


def test_versions_are_pinned() -> None:
    """Q33: what is installed, and what builds it, has the versions of constraints.txt; the base image names its version."""
    environment = " ".join(rest for instruction, rest in stages()["build"].instructions if instruction == "ENV")
    assert "PIP_CONSTRAINT=/src/constraints.txt" in environment
    bases = {stage.base for stage in stages().values()} - stages().keys()
    assert bases == {"python:3.11-slim-bookworm"}
    pins = (sources.ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line for line in pins if line and not line.startswith("#"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_declare_what_they_import(package: str) -> None:
    """A7, Q33: what a package imports it or a package of ours below it declares, so that an image or a bare install has it."""
    [directory] = [
        path for path in (sources.ROOT / "libs" / package, sources.ROOT / "services" / package) if path.exists()
    ]
    declared = {name for path in needed(directory) for name in [project(path)["name"], *dependencies(path)]}
    declared |= (
        {"googleapis-common-protos"} if "grpcio-status" in declared else set()
    )  # grpcio-status stands on it and shows it in its own interface
    declared |= {name for names in project(directory).get("optional-dependencies", {}).values() for name in names}
    undeclared = {name for name in imported(directory / "src") if not distributions(name) & declared}
    assert undeclared == set()


def imported(directory: pathlib.Path) -> set[str]:
    """What the modules below a directory import from elsewhere: top names, and the second ones of `google`."""
    found: set[str] = set()
    for path in sources.modules(f"{sources.name(directory)}/"):
        for node in ast.walk(sources.tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {
                ".".join(name.split(".")[:2]) if name.startswith("google.") else name.split(".")[0] for name in names
            }
    return found - sys.stdlib_module_names - {path.name for path in directory.iterdir()} - {"__future__"}


def distributions(name: str) -> set[str]:
    """The distributions that bring a package."""
    known = {"google.protobuf": "protobuf", "google.rpc": "googleapis-common-protos", "pydantic_core": "pydantic"}
    ours = {module: f"tierflow-{package}" for package, module in PACKAGES.items()}
    if name in known or name in ours:
        return {known.get(name) or ours[name]}
    return {
        re.sub(r"[-_.]+", "-", owner).lower() for owner in importlib.metadata.packages_distributions().get(name, [])
    }
