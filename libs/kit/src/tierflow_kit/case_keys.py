"""Every key of a test file, in one table: reading, the published schema for editors and the reference follow from it."""

from __future__ import annotations

import json
import sys
from typing import Any

from tierflow_flow.keys import CODE, ENV_NAME, HANDLER_NAME
from tierflow_flow.limits import MAX_DESCRIPTION, MAX_RUN_TIMEOUT, MAX_TEXT
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, Section, section
from tierflow_flow.shapes import Anything, AsIs, Choice, Condition, Duration, Flag, Number, Text, TextMap, Texts

from tierflow_kit.shapes import Each, Moment, Several, Short

ID = "https://tierflow.dev/schema/flow-test.schema.json"
NAME = Text(200, 1)
SPAN = Duration(0, MAX_RUN_TIMEOUT)
STATES = (
    "QUEUED",
    "RUNNING",
    "SUSPENDED",
    "PAUSING",
    "PAUSED",
    "CANCELLING",
    "COMPENSATING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
)

FAILURE = Short(
    section(
        Key("code", CODE, "The failure's code.", required=True),
        Key("message", Text(MAX_DESCRIPTION), "What it says."),
        Key(
            "retryable",
            Flag(),
            "Whether trying again helps; without it, as the catalogue says of the code, of other codes: yes.",
        ),
        Key("retry_after", SPAN, "The least time to wait before another attempt."),
    ),
    str,
    lambda code: {"code": code},
    {"type": "string"},
)

_ANSWERS = ("output", "fail", "lost", "silent")


def _one_answer(read: dict[str, Any], place: Place, problems: Problems) -> None:
    given = [name for name in _ANSWERS if name in read]
    if len(given) > 1:
        problems.add(place, f"{' and '.join(given)} exclude each other")


FAKE = section(
    Key("output", Anything(), "What the handler returns; expressions may read input, run.step and run.attempt."),
    Key("fail", FAILURE, "The attempt fails: a code, or code, message, retryable, retry_after."),
    Key("lost", Flag(), "The executor is gone, and nobody knows how the attempt ended."),
    Key("silent", Flag(), "It never answers: its timeout ends it, or a cancel."),
    Key("after", SPAN, "How long the attempt takes.", default="0s"),
    Key("times", Number(1, 1_000_000, whole=True), "How many attempts it answers; without it, all."),
    Key("when", Condition(), "Which attempts it answers: an expression over input, run.step and run.attempt."),
    Key("degraded", Flag(), "The output is that of a fallback."),
    Key("credits", Number(0, 1e15, whole=True), "Micro-credits that the attempt spends."),
    finish=_one_answer,
)
FAKES = Each(Several(FAKE, alone=True))

ACTIONS = ("signal", "approve", "reject", "delegate", "skip", "retry", "migrate", "cancel", "pause", "resume")


def _one_action(read: dict[str, Any], place: Place, problems: Problems) -> None:
    given = [name for name in ACTIONS if name in read]
    if len(given) != 1:
        problems.add(place, f"expected one of {', '.join(ACTIONS)}, found {' and '.join(given) or 'none'}")


ACTION = section(
    Key("at", SPAN, "When, after the start.", required=True),
    Key("signal", HANDLER_NAME, "A message of this name for the run; its payload is under with."),
    Key("with", AsIs(), "The payload of a signal."),
    Key("approve", NAME, "Somebody approves what the step of this id asks."),
    Key("reject", NAME, "Somebody rejects it."),
    Key("delegate", NAME, "Somebody hands the say on, to the user under to."),
    Key("by", NAME, "Who does it.", default="test"),
    Key("roles", Texts(NAME), "The roles of who does it."),
    Key("to", NAME, "Of delegate: to whom."),
    Key("reason", Text(MAX_DESCRIPTION), "Of approve, reject, skip and migrate: why."),
    Key("skip", NAME, "Ends the step of this id as SKIPPED; what needs it goes on."),
    Key("output", AsIs(), "Of skip: what stands for its output."),
    Key(
        "retry",
        Text(MAX_DESCRIPTION),
        "From FAILED: what failed and what depends on it runs again; the value is the reason.",
    ),
    Key(
        "migrate",
        Text(1_000, 1),
        "From PAUSED: goes on with another version of the flow; the value is its file, from here.",
    ),
    Key("cancel", Text(MAX_DESCRIPTION), "Stops everything; the value is the reason."),
    Key("pause", Text(MAX_DESCRIPTION), "Starts nothing new; the value is the reason."),
    Key("interrupt", Flag(), "Of pause: stop what runs."),
    Key("resume", Text(MAX_DESCRIPTION), "Goes on; the value is the reason."),
    Key("refused", Flag(), "Whether it is expected to be refused.", default=False),
    finish=_one_action,
)

EXPECTED_FAILURE = Short(
    section(
        Key("code", CODE, "The failure's code."),
        Key("message", Text(MAX_DESCRIPTION), "Words that its message holds."),
        Key("step", NAME, "The step that it is about."),
    ),
    str,
    lambda code: {"code": code},
    {"type": "string"},
)
EXPECTED_STEP = Short(
    section(
        Key("state", NAME, "Its state, such as COMPLETED, SKIPPED, FAILED."),
        Key("attempts", Number(0, 1_000_000, whole=True), "How many attempts it took."),
        Key("input", AsIs(), "The input of its last attempt, exactly."),
        Key("input_has", AsIs(), "What that input has among other things."),
        Key("output", AsIs(), "Its output, exactly."),
        Key("output_has", AsIs(), "What its output has among other things."),
        Key("failure", EXPECTED_FAILURE, "Its last failure: a code, or code and words of the message."),
        Key("reason", Text(MAX_DESCRIPTION), "Words that its reason holds, such as why it was skipped."),
        Key("outcome", NAME, "SUCCESS, PARTIAL or DEGRADED."),
        Key("started", SPAN, "When it started, after the start of the run."),
        Key("ended", SPAN, "When it ended, after the start of the run."),
    ),
    str,
    lambda state: {"state": state},
    {"type": "string"},
)
EXPECTED_SPAN = Short(
    section(Key("least", SPAN, "At least."), Key("most", SPAN, "At most.")),
    str,
    lambda span: {"least": span, "most": span},
    SPAN.schema,
)
EXPECTED_EVENT = Short(
    section(
        Key("name", HANDLER_NAME, "The event's name.", required=True),
        Key("with", AsIs(), "Its payload, exactly."),
    ),
    str,
    lambda name: {"name": name},
    {"type": "string"},
)
EXPECT = section(
    Key("state", Choice(STATES), "The run's state once nothing happens by itself any more."),
    Key("outcome", NAME, "SUCCESS, PARTIAL, DEGRADED, FAILURE or CANCELLED."),
    Key("output", AsIs(), "The run's output, exactly."),
    Key("output_has", AsIs(), "What the output has among other things."),
    Key("failure", EXPECTED_FAILURE, "Why it failed: a code, or code, step and words of the message."),
    Key("steps", Each(EXPECTED_STEP), "Steps by id (items as search[2]): a state, or more of it."),
    Key("calls", Each(Number(0, 1_000_000, whole=True)), "How many attempts each handler was asked for."),
    Key("order", Texts(NAME), "Steps that end one after the other in this order."),
    Key("emitted", Several(EXPECTED_EVENT), "The events that the flow publishes, in order, all of them."),
    Key("duration", EXPECTED_SPAN, "How long the run takes on the virtual clock: exactly, or least and most."),
    Key("credits", Number(0, 1e15, whole=True), "Micro-credits that were spent."),
)
LIMITS = section(
    Key("credits", Number(0, 1e15, whole=True), "Micro-credits."),
    Key("steps", Number(1, 1_000_000, whole=True), "Attempts."),
    Key("concurrent_steps", Number(1, 1_000_000, whole=True), "Attempts at once."),
    Key("wall_time", SPAN, "From its start to its end."),
)
CASE = section(
    Key("name", NAME, "What the case shows, in words.", required=True),
    Key("input", AsIs(), "The run's input.", default={}),
    Key("start", Moment(), "The moment at which the run starts.", default="2030-01-01T00:00:00Z"),
    Key("env", TextMap(ENV_NAME, Text(MAX_TEXT)), "Environment variables that the flow may read."),
    Key("labels", TextMap(NAME, NAME), "Labels of the run."),
    Key("limits", LIMITS, "What the run is granted."),
    Key("handlers", FAKES, "Fakes by handler, before those of the file; the first that takes an attempt answers it."),
    Key("steps", FAKES, "Fakes of single steps by id; they come before those of handlers."),
    Key("do", Several(ACTION), "What others do from outside, and when."),
    Key("until", SPAN, "Look at it then; without it, once nothing happens by itself any more."),
    Key("expect", EXPECT, "What must be so at the end.", required=True),
)
TESTS: Section = section(
    Key("flow", Text(1_000, 1), "The flow's file, from here; without it, the file of the same name without .test."),
    Key("handlers", FAKES, "Fakes by handler, for all cases."),
    Key("steps", FAKES, "Fakes of single steps, for all cases."),
    Key("env", TextMap(ENV_NAME, Text(MAX_TEXT)), "Environment variables, for all cases."),
    Key(
        "flows",
        TextMap(NAME, NAME),
        "Files of other flows that this one runs, by the name that it has for them; those that are not here are faked as flow:NAME.",
    ),
    Key("cases", Several(CASE), "The cases.", required=True),
)


def schema_text() -> str:
    """The published JSON Schema of test files: `python -m tierflow_kit.case_keys > schema/flow-test.schema.json`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, "title": "Tierflow flow test"}
    return json.dumps({**schema, **TESTS.schema}, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
