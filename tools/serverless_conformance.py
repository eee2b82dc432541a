"""Runs the conformance kit of the CNCF Serverless Workflow specification against the navigator `serverless`.

Usage: serverless_conformance.py KIT [-v]   (`make conformance KIT=path`)

KIT is a folder with `ctk/features/*.feature` and `examples/*.yaml`, such as a checkout of the specification. Every document is decided by the real core of Tier 2 on a
virtual clock. What is outside is faked: the pet shop and httpbin answer as the features expect them to, OpenAPI descriptions are the shop's, every other URL
answers 200 with what it was sent; commands are not run, but answer with their arguments. Nothing of the kit is copied or kept.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from tierflow import Rejected
from tierflow_executor.handlers.openapi import request_for
from tierflow_expressions.values import dumps, loads
from tierflow_flow import FlowError, parse
from tierflow_flow.serverless.reader import UNSUPPORTED
from tierflow_kit.fakes import Answer, Attempt, Fakes, failure
from tierflow_kit.rehearsal import Rehearsal, Setting
from tierflow_orchestrator.core import commands, events
from tierflow_orchestrator.core.serverless.errors import error_of

_YAML: Final = re.compile(r'"""yaml\n(.*?)"""', re.DOTALL)
_STEP: Final = re.compile(r"\s*(Given|When|Then|And)\s+(.*)")


@dataclass
class Scenario:
    """One scenario of a feature, or one example: a document, its input, what is sent to it, what is expected."""

    name: str
    text: str
    input: Any = None
    checks: list[tuple[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """How a scenario went: passed, failed or unsupported, and why."""

    name: str
    result: str
    reason: str = ""


# Reading features.


def scenarios(text: str) -> Iterator[Scenario]:
    """The scenarios of a feature file."""
    for part in re.split(r"(?m)^\s*Scenario:\s*", text)[1:]:
        name, _, body = part.partition("\n")
        blocks: list[str] = []

        def keep(match: re.Match[str], blocks: list[str] = blocks) -> str:
            blocks.append(_dedented(match[1]))
            return f"<{len(blocks) - 1}>"

        lines = _YAML.sub(keep, body).splitlines()
        scenario = Scenario(name.strip(), "")
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            block = re.fullmatch(r"\s*<(\d+)>\s*", after)
            match = _STEP.match(line)
            if match:
                _read(scenario, match[2].strip().rstrip(":"), blocks[int(block[1])] if block else "")
        yield scenario


def _dedented(block: str) -> str:
    lines = block.rstrip().splitlines()
    width = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[width:] for line in lines) + "\n"


def _read(scenario: Scenario, step: str, block: str) -> None:
    if step == "a workflow with definition":
        scenario.text = block
    elif step == "given the workflow input is":
        scenario.input = yaml.safe_load(block)
    elif step != "the workflow is executed":
        scenario.checks.append((step, yaml.safe_load(block) if block else None))


# The outside.


def answer(attempt: Attempt) -> Answer:
    """What a handler answers that is faked."""
    asked = attempt.input
    if attempt.handler == "shell.run":
        return Answer(output={"exit_code": 0, "stdout": dumps(asked["command"][-2:]), "stderr": ""})
    request = {}
    if attempt.handler == "openapi.call":
        try:
            asked = request_for(_SHOP, asked["document"], asked["operation"], asked["parameters"])
        except Rejected as error:
            return Answer(failure=failure("HANDLER_REJECTED", str(error)))
        request = {"request": {"method": asked["method"], "url": asked["url"]}}
    elif attempt.handler != "http.request":
        return Answer(output=asked)
    status, body = _http(asked)
    headers = {"content-type": "application/json"}
    return Answer(output={"status": status, "headers": headers, "body": body, **request})


_SHOP: Final = {
    "swagger": "2.0",
    "basePath": "/v2",
    "paths": {
        "/pet/findByStatus": {
            "get": {
                "operationId": "findPetsByStatus",
                "parameters": [{"name": "status", "in": "query", "required": True}],
            }
        },
        "/pet/{petId}": {
            "get": {"operationId": "getPetById", "parameters": [{"name": "petId", "in": "path", "required": True}]}
        },
    },
}
"""The description of every API that is asked for."""


def _http(asked: dict[str, Any]) -> tuple[int, Any]:
    url = urlsplit(asked["url"])
    pet = {"id": 1, "name": "Milou", "status": "available"}
    if "/v2/pet/findByStatus" in url.path:
        return 200, [{**pet, "status": url.query.partition("=")[2]}]
    if found := re.fullmatch(r"/v2/pet/(\d+)", url.path):
        return 200, {**pet, "id": int(found[1])}
    if "/v2/pet/" in url.path:
        return 404, {"message": "not found"}
    if found := re.fullmatch(r"/basic-auth/([^/]+)/([^/]+)", url.path):
        wanted = "Basic " + base64.b64encode(f"{found[1]}:{found[2]}".encode()).decode()
        return (200, {}) if asked.get("headers", {}).get("Authorization") == wanted else (401, {})
    if url.path.startswith("/api/people/"):
        return 200, {"name": "Luke", "homeworld": "https://swapi.dev/api/planets/1/"}
    return 200, asked.get("body")


class Everything(Fakes):
    """Answers whatever is asked."""

    def __init__(self) -> None:
        super().__init__()

    def answer(self, attempt: Attempt, definition: str) -> Answer:
        """See `answer`."""
        return answer(attempt)


# Running and checking.


def run(scenario: Scenario) -> Verdict:
    """Runs a scenario."""
    try:
        flow = parse(scenario.text)
    except FlowError as error:
        unsupported = [
            p.description.removeprefix(UNSUPPORTED) for p in error.problems if p.description.startswith(UNSUPPORTED)
        ]
        if len(unsupported) == len(error.problems):
            return Verdict(scenario.name, "unsupported", "; ".join(dict.fromkeys(unsupported)))
        return Verdict(scenario.name, "failed", f"{error.problems[0].path}: {error.problems[0].description}")
    secrets = dict.fromkeys(flow.env, '{"token":"secret","username":"u","password":"p"}')
    rehearsal = Rehearsal(
        flow, scenario.input if scenario.input is not None else {}, Everything(), Setting(env=secrets)
    )
    for number, event in enumerate(scenario.sent):
        rehearsal.advance(rehearsal.elapsed + 1_000_000)
        rehearsal.tell(commands.Signal(command_id=f"event-{number}", name=event["type"], payload=dumps(event)))
    rehearsal.finish()
    for step, expected in scenario.checks:
        problem = _check(rehearsal, step, expected)
        if problem:
            return Verdict(scenario.name, "failed", problem)
    return Verdict(scenario.name, "passed")


def _output(rehearsal: Rehearsal) -> Any:
    return loads(rehearsal.text(rehearsal.run.output))


def _order(rehearsal: Rehearsal) -> list[str]:
    """The names of the tasks in the order in which they began, the document's own left out."""
    entered = [event.definition for _, event in rehearsal.journal if isinstance(event, events.StepEntered)]
    return [pointer.rpartition("/")[2] for pointer in entered[1:]]


def _check(rehearsal: Rehearsal, step: str, expected: Any) -> str:
    """What is wrong; empty where nothing is. Raises ValueError for a step that is not known."""
    state = rehearsal.run.state
    if step == "the workflow should fault":
        return "" if state == "FAILED" else f"it is {state}"
    if step == "the workflow should fault with error":
        error = _error(rehearsal)
        return "" if state == "FAILED" and error == expected else f"it is {state} with {error}"
    if match := re.fullmatch(r"(\w+) should run (first|last|after (\w+))", step):
        return _check_order(_order(rehearsal), match)
    if state != "COMPLETED":
        return f"it is {state}: {_error(rehearsal)}"
    return _check_output(_output(rehearsal), step, expected)


def _check_order(order: list[str], match: re.Match[str]) -> str:
    name, where, other = match[1], match[2], match[3]
    fine = {"first": order[:1] == [name], "last": order[-1:] == [name]}.get(where)
    if fine is None:
        fine = name in order and other in order and order.index(name) == order.index(other) + 1
    return "" if fine else f"the order was {order}"


def _check_output(output: Any, step: str, expected: Any) -> str:
    said = step.removeprefix("the workflow ")
    if said in ("should complete", "should complete with output"):
        return "" if said == "should complete" or output == expected else f"the output is {output}"
    if said.startswith("output should have properties"):
        return _lacking(output, re.findall(r"'([^']+)'", said))
    match = re.fullmatch(r"output should have a '([^']+)' property (?:with value|containing (\d+) items)", said)
    if match is None:
        raise ValueError(f"a step that is not known: {step}")
    found = _at(output, match[1])
    fine = found == expected if match[2] is None else isinstance(found, list) and len(found) == int(match[2])
    return "" if fine else f"{match[1]} is {found}"


def _lacking(output: Any, names: list[str]) -> str:
    missing = [name for name in names if _at(output, name) is None]
    return f"the output lacks {', '.join(missing)}: {output}" if missing else ""


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _error(rehearsal: Rehearsal) -> Any:
    failure = rehearsal.run.failure
    while failure is not None and failure.cause is not None:
        failure = failure.cause
    return None if failure is None else error_of(failure, "")


# Examples say nothing about their outcome: what is sent to them, and what follows from the specification, is here.

_VITALS: Final = [
    {"specversion": "1.0", "type": "com.fake-hospital.vitals.measurements.temperature", "data": {"temperature": 37}},
    {"specversion": "1.0", "type": "com.fake-hospital.vitals.measurements.bpm", "data": {"bpm": 120}},
    {"specversion": "1.0", "type": "com.fake-hospital.vitals.measurements.temperature", "data": {"temperature": 39}},
]
_CHECKED: Final = {"specversion": "1.0", "type": "com.fake.petclinic.pets.checkup.completed.v2", "data": {}}
_PEOPLE: Final = {
    "input": {"id": 1, "petId": 1, "token": "t", "searchQuery": "l", "carId": 1, "roomId": 1, "orderType": "physical"}
}
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "accumulate-room-readings": {
        "sent": [
            {
                "specversion": "1.0",
                "source": "https://my.home.com/sensor",
                "roomid": 1,
                "type": f"my.home.sensors.{kind}",
                "data": {"reading": 1},
            }
            for kind in ("temperature", "humidity")
        ]
    },
    "conditional-task": {"input": {"customer": {"age": 17}, "bet": 1}, "expect": "FAILED"},
    "for": {"input": {"pets": [{"id": 1}, {"id": 2}], "vet": "v"}, "sent": [_CHECKED, _CHECKED]},
    "fork": {"input": {"patient": {"fullName": "N"}, "room": {"number": 1}}},
    "listen-to-all": {"sent": _VITALS},
    "listen-to-all read-envelope": {"sent": _VITALS},
    "listen-to-any": {"sent": _VITALS[:1]},
    "listen-to-any-filter": {"sent": _VITALS[:2]},
    "listen-to-any-forever-foreach": {"input": {"roomId": 1}, "sent": _VITALS, "expect": "SUSPENDED"},
    "listen-to-any-until-condition": {"sent": [*_VITALS, _VITALS[0]]},
    "listen-to-any-until-consumed": {
        "sent": [*_VITALS, {"specversion": "1.0", "type": "com.fake-hospital.patient.checked-out"}]
    },
    "listen-to-one": {
        "input": {"carId": 1},
        "sent": [
            {"specversion": "1.0", "type": "com.virtual-wf-powered-race.events.race.started.v1", "data": {"carId": 1}}
        ],
    },
    "raise-inline": {"expect": "FAILED"},
    "raise-reusable": {"expect": "FAILED"},
    "try-catch": {"input": {"petId": "x"}},
    "try-catch-then": {"input": {"petId": "x"}},
    "try-catch-retry-inline": {"input": {"petId": 1}},
    "try-catch-retry-reusable": {"input": {"petId": 1}},
}


def example(path: Path) -> Verdict:
    """Runs an example: it is to end as said above, or else to complete."""
    said = EXAMPLES.get(path.stem, _PEOPLE)
    scenario = Scenario(path.stem, path.read_text(), said.get("input"), [], said.get("sent", []))
    wanted = said.get("expect", "COMPLETED")
    scenario.checks = [] if wanted != "COMPLETED" else [("the workflow should complete", None)]
    if wanted == "FAILED":
        scenario.checks = [("the workflow should fault", None)]
    return run(scenario)


def table(title: str, verdicts: list[Verdict]) -> Iterator[str]:
    """The verdicts as a table in Markdown, with their numbers."""
    yield f"| {title} | Result | Why |"
    yield "|---|---|---|"
    for each in verdicts:
        yield f"| {each.name} | {each.result} | {each.reason.replace('|', '/')} |"
    counts = {result: sum(each.result == result for each in verdicts) for result in ("passed", "failed", "unsupported")}
    yield f"\n{len(verdicts)} in all: " + ", ".join(f"{count} {result}" for result, count in counts.items()) + "\n"


def main(arguments: list[str]) -> int:
    """Prints both tables; 1 where a feature failed. Examples say nothing about their outcome, so that one of them cannot."""
    if not arguments or not (Path(arguments[0]) / "ctk" / "features").is_dir():
        print("name the kit: make conformance KIT=path, a folder with ctk/features and examples", file=sys.stderr)
        return 2
    kit = Path(arguments[0])
    features = [
        Verdict(f"{path.stem}: {verdict.name}", verdict.result, verdict.reason)
        for path in sorted((kit / "ctk" / "features").glob("*.feature"))
        for verdict in map(run, scenarios(path.read_text()))
    ]
    examples = [example(path) for path in sorted((kit / "examples").glob("*.yaml"))]
    print("\n".join((*table("Scenario", features), *table("Example", examples))))
    return int(any(each.result == "failed" for each in features))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
