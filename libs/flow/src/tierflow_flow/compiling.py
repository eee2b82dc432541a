"""Documents to `Flow`s: what `parsing` does once the text is read. Nothing here remembers anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tierflow_expressions.templates import CompiledTemplate

from tierflow_flow.checking import Checker, View
from tierflow_flow.contents import contents
from tierflow_flow.definition import Flow, Norm, StepSpec
from tierflow_flow.flow_keys import reference_parts
from tierflow_flow.keys import COMPENSATE_ON
from tierflow_flow.levels import Level, retry_policy
from tierflow_flow.limits import MAX_CANONICAL
from tierflow_flow.norms import compile_norms
from tierflow_flow.problems import Problems
from tierflow_flow.reading import FlowParts, canonical_text, content_hash, read_flow
from tierflow_flow.serverless import compile_document, is_document
from tierflow_flow.source import Document


def compile_plain(document: dict[str, Any]) -> Flow:
    """Compile a flow that is a plain value already. Raises `FlowError`."""
    return compile_flow(Document(document, {}, ()), None)


def compile_flow(document: Document, canonical: str | None) -> Flow:
    """Check and compile a document; `canonical` is its text where it is a stored definition. Raises `FlowError`."""
    problems = Problems(document.lines)
    for place, description in document.problems:
        problems.add(place, description)
    if is_document(document.value):
        return compile_document(document, problems, canonical)
    parts = read_flow(document.value, problems)
    if parts is None:
        problems.raise_if_any()
        raise AssertionError("a flow without parts has a problem")
    return _Compilation(parts, problems).flow(canonical)


class _Compilation:
    """The way of one flow from its normal form to its compiled one."""

    def __init__(self, parts: FlowParts, problems: Problems) -> None:
        self.parts = parts
        self.problems = problems
        set_ = {name for step in parts.block.steps for name in step.keys.get("set", {})}
        self.checker = Checker.of(parts.keys, problems, frozenset(set_))
        self.top = Level(parts.block, self.checker)

    def flow(self, canonical: str | None) -> Flow:
        self.check_merge()
        self.top.compile()
        norms = compile_norms(self.parts.keys.get("norms", ()), self.checker, ("norms",))
        output = None
        if "output" in self.parts.keys:
            output = self.template(self.parts.keys["output"], "output")
        self.problems.raise_if_any()
        text = canonical_text(self.parts, dict(self.top.all_needs())) if canonical is None else canonical
        if canonical is None and len(text.encode()) > MAX_CANONICAL:
            self.problems.add((), f"larger than {MAX_CANONICAL} bytes when written in full")
            self.problems.raise_if_any()
        made = self.assembled(text, output, norms)
        for step in made.by_id.values():
            if step.kind == "flow" and reference_parts(step.settings["flow"])[0] == made.name:
                self.problems.add(("steps", step.id, "flow"), f"{made.name} would run itself")
        self.problems.raise_if_any()
        return made

    def check_merge(self) -> None:
        """What is merged is set somewhere."""
        known = self.checker.around.set
        for name in self.parts.keys.get("merge", {}):
            if name not in known:
                self.problems.add(("merge", name), f"no step sets {name}{self.problems.hint(name, known)}")
            elif self.parts.keys["merge"][name] == "append" and not isinstance(
                self.parts.keys.get("vars", {}).get(name, []), list
            ):
                self.problems.add(("vars", name), f"{name} is appended to; its first value is a list")

    def template(self, source: Any, key: str) -> CompiledTemplate:
        """A template of the flow's own."""
        return self.checker.template(source, (key,), view=View(self.top.problem_of))

    def vars(self) -> Mapping[str, Any]:
        """The constants; `$${{` in them is `${{` as everywhere."""
        constants: Mapping[str, Any] = self.template(self.parts.keys.get("vars", {}), "vars").tree
        return constants

    def assembled(self, canonical: str, output: CompiledTemplate | None, norms: tuple[Norm, ...]) -> Flow:
        """The whole."""
        keys = self.parts.keys
        by_id: dict[str, StepSpec] = {}
        self.top.specs(by_id)
        top = self.top.block(by_id)
        looked_into = frozenset() if output is None else output.steps - output.whole_steps
        lane_of, lanes = self.top.lanes()
        return Flow(
            name=keys["name"],
            version=keys["version"],
            hash=content_hash(canonical),
            description=keys.get("description", ""),
            steps=top.steps,
            by_id=by_id,
            dependants=self.top.following(),
            roots=tuple(step.id for step in top.steps if not step.needs),
            leaves=top.leaves,
            **_said_by_steps(by_id.values()),
            content_steps=frozenset(contents(self.top)) | looked_into,
            input_schema=keys.get("input"),
            output=output,
            output_schema=keys.get("output_schema"),
            retry=retry_policy(keys["defaults"]["retry"]),
            timeout=keys["defaults"].get("timeout"),
            run_timeout=keys.get("timeout"),
            failure_policy=keys["on_failure"].upper(),
            concurrency=keys.get("concurrency"),
            vars=self.vars(),
            env=tuple(keys.get("env", ())),
            canonical=canonical,
            compensate_on=_compensate_on(keys, by_id.values()),
            dead_letter=bool(keys.get("dead_letter")),
            setters=frozenset(step.id for step in top.steps if step.sets is not None),
            merge={name: rule for name, rule in keys.get("merge", {}).items() if rule != "error"},
            lanes=lanes,
            lane_of=lane_of,
            norms=norms,
            navigator=keys["navigator"],
        )


def _said_by_steps(steps: Collection[StepSpec]) -> dict[str, Any]:
    """The fields of a compiled flow that sum up its steps, those within blocks included."""
    return {
        "handlers": tuple(sorted(_handlers(steps))),
        "joins": {step.id: step.join for step in steps if step.join is not None},
        "cached": frozenset(step.id for step in steps if step.cache is not None),
        "prioritised": any(step.priority for step in steps),
        "subflows": any(step.kind == "flow" for step in steps),
    }


def _compensate_on(keys: Mapping[str, Any], steps: Collection[StepSpec]) -> frozenset[str]:
    """The ends of a run after which its steps are undone: none where no step can be."""
    if any(step.undo is not None for step in steps):
        return frozenset(keys.get("compensate_on", COMPENSATE_ON))
    return frozenset()


def _handlers(steps: Collection[StepSpec]) -> set[str]:
    """The handlers that steps call, and that those which grow below them may call."""
    called = {step.handler for step in steps if step.handler and step.kind != "flow"}
    return called.union(*(step.grows or () for step in steps))
