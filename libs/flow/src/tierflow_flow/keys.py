"""Every key of a flow, in one table: what it is for, what shape its value has. Reading, checking, docs and the published schema follow from it."""

from __future__ import annotations

from typing import Any

from tierflow_expressions.lexer import STEP_ID

from tierflow_flow.flow_keys import ATTEMPT_GRANT, GRANT, FlowReference
from tierflow_flow.kind_shapes import Cases, CountOrItems, Grows, JoinRule, OnError, Rules, ValueMap, WaitFor
from tierflow_flow.limits import (
    DEFAULT_ITERATIONS,
    MAX_ATTEMPTS,
    MAX_CONCURRENCY,
    MAX_CREDITS,
    MAX_DELAY,
    MAX_DESCRIPTION,
    MAX_FACTOR,
    MAX_HANDLER,
    MAX_ITERATIONS,
    MAX_NAME,
    MAX_RUN_TIMEOUT,
    MAX_TIMEOUT,
    MAX_VERSION,
)
from tierflow_flow.norm_keys import APPROVAL, Norms
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, Section, section
from tierflow_flow.shapes import (
    Anything,
    AsIs,
    Choice,
    Condition,
    Duration,
    Flag,
    JsonSchema,
    Number,
    Text,
    TextMap,
    Texts,
)

FLOW_NAME = Text(
    MAX_NAME, 1, r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, '.', '_' and '-', beginning with a letter or digit"
)
VARIABLE = Text(MAX_NAME, 1, r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and '_', beginning with a letter or '_'")
STEP_NAME = Text(MAX_NAME, 1, STEP_ID, "letters, digits, '_' and '-', beginning with a letter or '_'")
HANDLER_NAME = Text(
    MAX_HANDLER,
    1,
    r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*",
    "words joined by dots, such as billing.charge",
)
VERSION = Text(MAX_VERSION, 1, r"[A-Za-z0-9][A-Za-z0-9._+-]*", "letters, digits, '.', '_', '+' and '-'")
CODE = Text(64, 1, r"[A-Z][A-Z0-9_]*", "a failure code such as RATE_LIMITED")
LABEL = Text(MAX_NAME, 1, r"[A-Za-z0-9][A-Za-z0-9._/-]*", "letters, digits, '.', '_', '/' and '-'")
ENV_NAME = Text(MAX_NAME, 1, r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")

COMPENSATE_ON = ("failure", "cancel")
DEFAULT_RETRY: dict[str, Any] = {
    "max_attempts": 3,
    "initial_delay": 1_000_000,
    "factor": 2.0,
    "max_delay": 60_000_000,
    "jitter": 0.2,
    "retry_on": [],
    "never_retry_on": [],
}


def _check_retry(read: dict[str, Any], place: Place, problems: Problems) -> None:
    both = set(read.get("retry_on", ())) & set(read.get("never_retry_on", ()))
    if both:
        problems.add(place, f"{', '.join(sorted(both))} is in retry_on and in never_retry_on")


RETRY = section(
    Key("max_attempts", Number(1, MAX_ATTEMPTS, whole=True), "Attempts altogether, the first included.", default=3),
    Key("initial_delay", Duration(0, MAX_DELAY), "Delay before the second attempt.", default="1s"),
    Key("factor", Number(1, MAX_FACTOR), "What each further delay is multiplied by.", default=2),
    Key("max_delay", Duration(0, MAX_DELAY), "Longest delay.", default="60s"),
    Key("jitter", Number(0, 1), "Share of the delay by which it varies, either way.", default=0.2),
    Key(
        "retry_on", Texts(CODE), "Failure codes that are retried; empty: those that say of themselves that they can be."
    ),
    Key("never_retry_on", Texts(CODE), "Failure codes that are never retried."),
    finish=_check_retry,
)
TIMEOUT = Duration(1_000, MAX_TIMEOUT)
DEFAULTS = section(
    Key("retry", RETRY, "How failed attempts are retried, where a step does not say."),
    Key(
        "timeout",
        TIMEOUT,
        "Timeout of an attempt, where a step does not say; where both do not: the handler's own, else 30s.",
    ),
    Key("heartbeat_timeout", TIMEOUT, "Longest silence of an attempt, where a step does not say."),
    Key("allocation", ATTEMPT_GRANT, "Most that an attempt may spend, where a step does not say."),
)

STEP_KEYS = (
    Key("name", Text(MAX_NAME, 1), "What people see; the id where it is absent."),
    Key("needs", Texts(STEP_NAME), "Steps to wait for. Steps that an expression reads are waited for anyway."),
    Key(
        "join",
        JoinRule(STEP_NAME),
        "How many of the steps under needs must complete: all, any, majority or {at_least: n}; the rest is cancelled then.",
        default="all",
    ),
    Key("if", Condition(), "Whether the step runs; without it, it runs when everything it needs has completed."),
    Key(
        "on_error",
        OnError(STEP_NAME),
        "stop: the flow's on_failure decides. continue: the failure is tolerated. retry: whatever it was, as often as retry allows. "
        "A mapping with goto: the step that handles it.",
        default="stop",
    ),
)
"""Keys of steps of all kinds."""
SET = Key("set", ValueMap(VARIABLE), "Variables that the step sets once it has completed; output is its result.")
CACHE = section(
    Key("key", Anything(), "What the result depends on; equal keys have equal results.", required=True),
    Key("ttl", Duration(1_000_000, MAX_RUN_TIMEOUT), "How long a result may be used.", default="1d"),
    Key("scope", Choice(("tenant", "flow", "run")), "Who shares results.", default="flow"),
    Key("version", VERSION, "Another one where equal keys have other results than before.", default="1"),
)
COMPENSATE = section(
    Key("call", HANDLER_NAME, "The handler that undoes what the step did.", required=True),
    Key("with", Anything(kind="object"), "Its input; output is what the step returned."),
    Key("retry", RETRY, "How failed attempts are retried."),
    Key("timeout", TIMEOUT, "Timeout of an attempt."),
    Key("labels", TextMap(LABEL, Text(MAX_NAME)), "Labels that the executor must have."),
)
COMPENSATE_KEY = Key("compensate", COMPENSATE, "What undoes the step where the run fails or is cancelled.")
CALL_KEYS = (
    Key("call", HANDLER_NAME, "The handler to call.", required=True),
    COMPENSATE_KEY,
    Key("with", Anything(kind="object"), "The handler's input."),
    Key("retry", RETRY, "How failed attempts are retried; what is absent is as in the flow's defaults."),
    Key("timeout", TIMEOUT, "Timeout of an attempt."),
    Key("heartbeat_timeout", TIMEOUT, "Longest silence of an attempt."),
    Key("start_timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest wait for a slot of an executor, for each attempt."),
    Key(
        "total_timeout",
        Duration(1_000, MAX_RUN_TIMEOUT),
        "Longest time for all attempts, with the delays between them.",
    ),
    Key(
        "on_lost",
        Choice(("retry", "fail", "ask")),
        "What to do when the executor is lost and nobody knows how the attempt ended.",
    ),
    Key(
        "side_effecting",
        Flag(),
        "Whether repeating it does harm; then on_lost is ask where it is not given.",
        default=False,
    ),
    Key("output_schema", JsonSchema(), "What the output must look like."),
    Key("validate", Rules(), "Rules that the output must keep."),
    Key("cache", CACHE, "Whether a stored result may stand for an attempt."),
    Key("labels", TextMap(LABEL, Text(MAX_NAME)), "Labels that the executor must have."),
    Key(
        "priority",
        Number(-100, 100, whole=True),
        "Of the steps that wait for a slot for the same handler, those of the highest priority get one first.",
        default=0,
    ),
    Key("cost_estimate", Number(0, MAX_CREDITS, whole=True), "What an attempt is expected to cost, in micro-credits."),
    Key(
        "allocation",
        ATTEMPT_GRANT,
        "Most that an attempt may spend; where the run has a budget it is held for it. Without it, all that is left.",
    ),
)
GROWS = Key(
    "grows",
    Grows(HANDLER_NAME),
    "Whether it may return {steps: ...}, which then run below it: true, or the handlers that they may call.",
    default=False,
)
MAP_KEYS = (
    Key(
        "map",
        Anything(kind="array"),
        "The array whose items the handler is called with; item and index are in scope under with.",
        required=True,
    ),
    *CALL_KEYS,
    Key("concurrency", Number(1, MAX_CONCURRENCY, whole=True), "Most items at once."),
    Key("tolerate", Number(0, MAX_CONCURRENCY, whole=True), "Failed items that do not make the step fail.", default=0),
)
BLOCK_KEYS = (
    Key("steps", AsIs(), "The steps within, as those of the flow.", required=True),
    Key(
        "output",
        Anything(),
        "What the steps within yield; without it, an object of the outputs of those that no other needs.",
    ),
)
BOUNDS = (
    Key("retry", RETRY, "How often the whole block is run again; without it, never."),
    Key("timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest time that the block may take."),
    COMPENSATE_KEY,
)
GROUP_KEYS = (*BLOCK_KEYS, *BOUNDS)
MAP_BLOCK_KEYS = (*(key for key in MAP_KEYS if key.name in ("map", "concurrency", "tolerate")), *BLOCK_KEYS, *BOUNDS)


def _check_loop(read: dict[str, Any], place: Place, problems: Problems) -> None:
    if not read.keys() & {"while", "until", "for"}:
        problems.add(place, "a loop has while, until or for")


LOOP = section(
    Key("while", Condition(), "Looked at before each iteration: whether there is one."),
    Key("until", Condition(), "Looked at after each iteration, where its steps can be read: whether it was the last."),
    Key("for", CountOrItems(MAX_ITERATIONS), "How many iterations, or an array: one for each item."),
    Key("max", Number(1, MAX_ITERATIONS, whole=True), "Most iterations.", default=DEFAULT_ITERATIONS),
    Key("delay", Duration(0, MAX_RUN_TIMEOUT), "Delay between iterations; a timer that survives restarts."),
    Key("factor", Number(1, MAX_FACTOR), "What each further delay is multiplied by.", default=1),
    Key("max_delay", Duration(0, MAX_RUN_TIMEOUT), "Longest delay."),
    finish=_check_loop,
)
LOOP_KEYS = (
    Key("loop", LOOP, "When another iteration follows.", required=True),
    *BLOCK_KEYS,
    Key("timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest time that all iterations may take."),
)
WAIT_KEYS = (
    Key("wait", WaitFor(), "How long to wait, or {until: moment}; a timer that survives restarts.", required=True),
)
EMIT_KEYS = (
    Key("emit", HANDLER_NAME, "The name of the event to publish.", required=True),
    Key("with", Anything(kind="object"), "The event's payload."),
    Key("answer", STEP_NAME, "A signal step: whoever has asked with its signal is answered with the payload."),
)
FAIL = section(
    Key("code", CODE, "The failure's code.", required=True),
    Key("message", Text(MAX_DESCRIPTION), "What went wrong, in words, with expressions."),
    Key("retryable", Flag(), "Whether whoever asked for the run may try again.", default=False),
)
FAIL_KEYS = (Key("fail", FAIL, "The failure with which the step ends.", required=True),)
SWITCH_KEYS = (
    Key("switch", Cases(STEP_NAME), "Cases; the first whose if is true says which steps run.", required=True),
    Key("default", Texts(STEP_NAME), "The steps that run where no case is true."),
)
SIGNAL_KEYS = (
    Key("signal", HANDLER_NAME, "The name of the message to wait for.", required=True),
    Key("schema", JsonSchema(), "What the message must look like; others are refused."),
    Key("timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest wait; then the step fails."),
)
FLOW_KEYS = (
    Key("flow", FlowReference(), "The flow to run: name, name@version, or sha256: and its hash.", required=True),
    Key("with", Anything(kind="object"), "The flow's input."),
    Key("retry", RETRY, "How failed runs of it are retried; what is absent is as in the flow's defaults."),
    Key("timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest time for a run of it."),
    Key("output_schema", JsonSchema(), "What its output must look like."),
    Key(
        "on_parent_close",
        Choice(("cancel", "wait", "abandon")),
        "What becomes of it when this run is stopped: it is cancelled, waited for, or left to itself.",
        default="cancel",
    ),
    Key("allocation", GRANT, "Its share of what this run may spend; without it, all that is left, until it ends."),
)
APPROVAL_KEYS = (Key("approval", APPROVAL, "What people are asked, and who they are.", required=True),)

FLOW: Section = section(
    Key("name", FLOW_NAME, "The flow's name.", required=True),
    Key("version", VERSION, "The flow's version.", default="1"),
    Key("description", Text(MAX_DESCRIPTION), "What the flow is for."),
    Key(
        "input",
        JsonSchema(shorthand=True),
        "The input: a JSON Schema of an object, or for short its properties (without a default they are required).",
    ),
    Key("defaults", DEFAULTS, "What holds for all steps that do not say otherwise."),
    Key(
        "on_failure",
        Choice(("fail_fast", "continue", "pause")),
        "What a failed step means for the run.",
        default="fail_fast",
    ),
    Key(
        "compensate_on",
        Texts(Choice(COMPENSATE_ON)),
        "When completed steps with compensate are compensated.",
        default=list(COMPENSATE_ON),
    ),
    Key("dead_letter", Flag(), "Whether a run that ends FAILED is kept as a dead letter, for somebody to deal with."),
    Key("timeout", Duration(1_000, MAX_RUN_TIMEOUT), "Longest time that a run may take."),
    Key("concurrency", Number(1, MAX_CONCURRENCY, whole=True), "Most steps of a run at once."),
    Key("vars", Anything(holes=False, kind="object"), "Constants, and first values of variables, read as vars.name."),
    Key(
        "merge",
        TextMap(VARIABLE, Text(10, 1, "(error|first|last|append)", "error, first, last or append")),
        "By variable: what counts where branches meet that have both set it; error where it does not say.",
    ),
    Key("secrets", Texts(ENV_NAME), "Secrets of the executors that inputs of handlers may hold, as secrets.NAME."),
    Key("env", Texts(ENV_NAME), "Environment variables of the orchestrator that expressions may read as env.NAME."),
    Key(
        "navigator",
        Choice(("graph", "sequence")),
        "graph: steps run when what they need is done. sequence: each step also needs the one before.",
        default="graph",
    ),
    Key("norms", Norms(), "What may be called, what may not, and what must come first."),
    Key("steps", AsIs(), "The steps: a mapping from id to step, or a list of steps with an id each.", required=True),
    Key(
        "output", Anything(), "The output; without it, an object of the outputs of the steps that no other step needs."
    ),
    Key("output_schema", JsonSchema(), "What the output must look like."),
)
"""`steps` is read by kind, see `kinds`."""
