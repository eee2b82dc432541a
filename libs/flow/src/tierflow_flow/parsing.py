"""Text to `Flow`: the only way to get one. Everything that is wrong is told at once, and nothing but `FlowError` is raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierflow_runtime.values import RetryPolicy

from tierflow_flow.cache import FlowCache
from tierflow_flow.checking import Checker, Surroundings
from tierflow_flow.definition import Flow, Join, Norm, StepSpec
from tierflow_flow.graph import NAVIGATORS, Needs, branches_of_switches, cycles, dependants
from tierflow_flow.joining import check_join
from tierflow_flow.limits import MAX_CANONICAL
from tierflow_flow.norms import compile_norms
from tierflow_flow.problems import Problems
from tierflow_flow.reading import FlowParts, StepParts, canonical_text, content_hash, read_flow
from tierflow_flow.source import Document, fatal, read_document
from tierflow_flow.templates import CompiledTemplate, ConditionTemplate
from tierflow_flow.values import loads

_cache = FlowCache(max_bytes=64 << 20)


def parse(source_text: str, form: str = "yaml") -> Flow:
    """Check and compile the text of a flow; `form` is `yaml` or `json`. Raises `FlowError` with everything that is wrong."""
    return _compile(read_document(source_text, form), None)


def from_canonical(canonical: str) -> Flow:
    """Compile a canonical definition, as Tier 2 stores it; flows used lately are kept compiled, by hash. Raises `FlowError`.

    Hash and definition stay what they were, even where this version would write them otherwise.
    """
    try:
        digest = content_hash(canonical)
    except UnicodeEncodeError:
        raise fatal("holds half of a surrogate pair") from None
    flow = _cache.get(digest)
    if flow is None:
        try:
            flow = _compile(_plain(canonical), canonical)
        except RecursionError:
            raise fatal("nested too deeply") from None
        _cache.put(flow)
    return flow


def _plain(canonical: str) -> Document:
    try:
        return Document(loads(canonical), {}, ())
    except ValueError as error:
        raise fatal(f"not JSON: {error}") from None


def _compile(document: Document, canonical: str | None) -> Flow:
    problems = Problems(document.lines)
    for place, description in document.problems:
        problems.add(place, description)
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
        self.ids = [step.id for step in parts.steps]
        self.chosen: dict[str, str] = {}
        """For the steps that a switch may choose: the switch."""
        self.checker = Checker(Surroundings.of(parts.keys, parts.ids), problems)

    def flow(self, canonical: str | None) -> Flow:
        templates = {step.id: self.templates(step) for step in self.parts.steps}
        norms = compile_norms(self.parts.keys.get("norms", ()), self.checker, ("norms",))
        output = None
        if "output" in self.parts.keys:
            output = self.checker.template(self.parts.keys["output"], ("output",))
        needs = self.needs(templates)
        self.problems.raise_if_any()
        text = canonical_text(self.parts, needs) if canonical is None else canonical
        if canonical is None and len(text.encode()) > MAX_CANONICAL:
            self.problems.add((), f"larger than {MAX_CANONICAL} bytes when written in full")
            self.problems.raise_if_any()
        steps = tuple(self.step(step, templates[step.id], needs[step.id]) for step in self.parts.steps)
        return self.assembled(text, steps, needs, output, norms)

    def templates(self, step: StepParts) -> dict[str, CompiledTemplate]:
        """The compiled templates of a step by key."""
        compiled = {}
        keys, place, check = step.keys, step.place, self.checker.template
        if "if" in keys:
            compiled["if"] = check(keys["if"], (*place, "if"), as_=ConditionTemplate, whole=True, status=True)
        for source in step.kind.sources(keys):
            compiled[source.name] = check(source.value, (*place, *source.path), **source.options)
        compiled["with"] = check(keys.get("with", {}), (*place, "with"), item=step.kind.name == "map", whole=True)
        return compiled

    def needs(self, templates: Mapping[str, Mapping[str, CompiledTemplate]]) -> Needs:
        """What each step waits for: written, read by its expressions, or added by the navigator."""
        direct: dict[str, frozenset[str]] = {}
        known, readable = self.parts.ids, frozenset(self.ids)
        for step in self.parts.steps:
            needed = set()
            for index, other in enumerate(step.keys.get("needs", ())):
                needed.add(other)
                if other not in known:
                    self.problems.add(
                        (*step.place, "needs", index), f"unknown step {other!r}{self.problems.hint(other, known)}"
                    )
            for template in templates[step.id].values():
                needed |= template.steps
            direct[step.id] = readable & needed
        self.choices()
        for step in self.parts.steps:
            check_join(step, self.chosen.get(step.id, ""), self.problems)
        for chosen, switch in self.chosen.items():
            if chosen in direct:
                direct[chosen] |= {switch}
        needs = NAVIGATORS[self.parts.keys["navigator"]](self.ids, direct)
        places = {step.id: step.place for step in self.parts.steps}
        for cycle in cycles(needs):
            self.problems.add(places[cycle[0]], f"cycle: {_shown(cycle)}")
        return needs

    def choices(self) -> None:
        """Which switch decides about which steps: of a step, one at most."""
        for step in self.parts.steps:
            if step.kind.name != "switch":
                continue
            listed = [(("switch", i, "then"), case["then"]) for i, case in enumerate(step.keys.get("switch", ()))]
            for path, names in (*listed, (("default",), step.keys.get("default", ()))):
                for index, name in enumerate(names):
                    place = (*step.place, *path, index)
                    if name not in self.parts.ids:
                        hint = self.problems.hint(name, self.parts.ids)
                        self.problems.add(place, f"unknown step {name!r}{hint}")
                    elif self.chosen.setdefault(name, step.id) != step.id:
                        self.problems.add(place, f"switch {self.chosen[name]} decides about {name} already")

    def step(self, step: StepParts, templates: Mapping[str, CompiledTemplate], needs: tuple[str, ...]) -> StepSpec:
        """The compiled step."""
        keys, defaults = step.keys, self.parts.keys["defaults"]
        condition = templates.get("if")
        calls = "call" in keys
        return StepSpec(
            id=step.id,
            kind=step.kind.name,
            handler=keys.get("call", ""),
            needs=needs,
            with_=templates["with"],
            condition=condition,
            always=condition is not None and any(expression.status for expression in condition.expressions),
            items=templates.get("map"),
            concurrency=keys.get("concurrency"),
            tolerate=keys.get("tolerate", 0),
            retry=_retry(keys["retry"]) if "retry" in keys else None,
            timeout=keys.get("timeout"),
            heartbeat_timeout=keys.get("heartbeat_timeout", defaults.get("heartbeat_timeout")),
            start_timeout=keys.get("start_timeout"),
            total_timeout=keys.get("total_timeout"),
            on_error=keys.get("on_error", "stop"),
            on_lost=keys.get("on_lost", "").upper(),
            side_effecting=keys.get("side_effecting", False),
            output_schema=keys.get("output_schema"),
            labels=keys.get("labels", {}),
            name=keys.get("name", ""),
            line=self.problems.line(step.place),
            chosen_by=self.chosen.get(step.id, ""),
            join=Join(keys["join"]["at_least"], tuple(keys["join"]["of"])) if "join" in keys else None,
            settings={} if calls else {key: keys[key] for key in sorted(step.kind.own_keys & keys.keys())},
            templates={} if calls else {key: templates[key] for key in templates if key not in ("if", "with")},
        )

    def vars(self) -> Mapping[str, Any]:
        """The constants; `$${{` in them is `${{` as everywhere."""
        constants: Mapping[str, Any] = self.checker.template(self.parts.keys.get("vars", {}), ("vars",)).tree
        return constants

    def assembled(
        self,
        canonical: str,
        steps: tuple[StepSpec, ...],
        needs: Needs,
        output: CompiledTemplate | None,
        norms: tuple[Norm, ...],
    ) -> Flow:
        """The whole."""
        keys = self.parts.keys
        following = dependants(needs)
        lane_of, lanes = branches_of_switches(needs, self.chosen)
        return Flow(
            name=keys["name"],
            version=keys["version"],
            hash=content_hash(canonical),
            description=keys.get("description", ""),
            steps=steps,
            by_id={step.id: step for step in steps},
            dependants=following,
            roots=tuple(step.id for step in steps if not step.needs),
            leaves=tuple(step.id for step in steps if not following[step.id]),
            handlers=tuple(sorted({step.handler for step in steps if step.handler})),
            content_steps=_content_steps(steps, output),
            input_schema=keys.get("input"),
            output=output,
            output_schema=keys.get("output_schema"),
            retry=_retry(keys["defaults"]["retry"]),
            timeout=keys["defaults"].get("timeout"),
            run_timeout=keys.get("timeout"),
            failure_policy=keys["on_failure"].upper(),
            concurrency=keys.get("concurrency"),
            vars=self.vars(),
            env=tuple(keys.get("env", ())),
            canonical=canonical,
            navigator=keys["navigator"],
            joins={step.id: step.join for step in steps if step.join is not None},
            lanes=lanes,
            lane_of=lane_of,
            norms=norms,
        )


def _shown(cycle: tuple[str, ...]) -> str:
    shown = cycle if len(cycle) <= 12 else (*cycle[:6], "...", *cycle[-5:])
    return " -> ".join(shown)


def _content_steps(steps: tuple[StepSpec, ...], output: CompiledTemplate | None) -> frozenset[str]:
    """Steps whose outputs some template looks into."""
    found: set[str] = set()
    for template in [output, *(each for step in steps for each in (step.with_, *step.decided_by))]:
        if template is not None:
            found |= template.steps - template.whole_steps
    return frozenset(found)


def _retry(keys: Mapping[str, Any]) -> RetryPolicy:
    return RetryPolicy(**{**keys, "retry_on": tuple(keys["retry_on"]), "never_retry_on": tuple(keys["never_retry_on"])})
