"""A block of steps on its way from normal form to compiled: its templates, what waits for what, the blocks within it.

The flow's own steps are the outermost block. What a step within a block reads from outside, the step that holds the block waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tierflow_expressions.needs import Needs, branches_of_switches, cycles, dependants
from tierflow_expressions.templates import CompiledTemplate, ConditionTemplate
from tierflow_runtime.values import RetryPolicy

from tierflow_flow.checking import Checker, View
from tierflow_flow.definition import Block, Join, Rescue, StepSpec
from tierflow_flow.flow_keys import HANDLER_PREFIX
from tierflow_flow.graph import NAVIGATORS
from tierflow_flow.joining import check_grows, check_join
from tierflow_flow.problems import Problems
from tierflow_flow.reading import BlockParts, StepParts
from tierflow_flow.step_extras import compile_extras, extras_of, secrets_in

_AGAIN = ("call", "map", "group", "map_block")
"""Kinds of steps with `retry`."""
_NO_RESCUE_RETRY = ("map", "map_block", "loop")
"""Kinds that a handler step cannot have begin again."""
_WITHIN: Mapping[str, tuple[str, ...]] = {"map_block": ("item", "index"), "loop": ("loop", "index")}
"""By kind: the names that the steps within have besides."""


class Level:
    """Steps that stand beside each other."""

    def __init__(
        self, parts: BlockParts, checker: Checker, *, holder: StepParts | None = None, outer: Level | None = None
    ) -> None:
        self.parts = parts
        self.checker = checker
        self.problems: Problems = checker.problems
        self.holder = holder
        self.outer = outer
        self.prefix: str = "" if outer is None or holder is None else f"{outer.prefix}{holder.id}/"
        self.by_id = {step.id: step for step in parts.steps}
        self.chosen: dict[str, str] = {}
        """For the steps that a switch may choose: the switch."""
        self.callers: dict[str, list[str]] = {}
        """For the steps that handle errors: whose."""
        self.inner: dict[str, Level] = {}
        self.templates: dict[str, dict[str, CompiledTemplate]] = {}
        self.needs: Needs = {}
        self.output: CompiledTemplate | None = None
        self.until: CompiledTemplate | None = None

    def compile(self, names: frozenset[str] = frozenset()) -> None:
        """Compiles what is in it; `names` are those that its place has besides the flow's own."""
        self._find_callers()
        self._choices()
        view = View(self.problem_of, names)
        for step in self.parts.steps:
            own = view.with_names("last_error") if step.id in self.callers else view
            self.templates[step.id] = self._templates(step, own)
            if step.block is not None:
                self.inner[step.id] = level = Level(step.block, self.checker, holder=step, outer=self)
                level.compile(own.names | _names_within(step))
        if self.holder is not None:
            self._ends(self.holder, view)
        self._find_needs()

    def problem_of(self, id_: str) -> str:
        """What is wrong with reading the step of this id from here; empty where nothing is."""
        if id_ in self.callers:
            return f"{id_} handles errors; what it returns is the output of the step that called for it"
        if id_ in self.parts.ids:
            return ""
        if self.outer is None or self.holder is None:
            return f"unknown step {id_!r}{self.problems.hint(id_, self.parts.ids)}"
        if id_ == self.holder.id:
            return f"step {id_!r} has not ended here: this is within it"
        return self.outer.problem_of(id_)

    def _find_callers(self) -> None:
        for step in self.parts.steps:
            on_error = step.keys.get("on_error")
            if isinstance(on_error, dict) and "goto" in on_error:
                self._caller(step, on_error)
            elif on_error == "retry" and step.kind.name not in _AGAIN:
                self.problems.add((*step.place, "on_error"), f"steps of kind {step.kind.name} are never retried")
        for name in self.callers:
            if name in self.by_id:
                self._check_handler(self.by_id[name])

    def _caller(self, step: StepParts, on_error: Mapping[str, Any]) -> None:
        """A step names the one that handles its error."""
        name, place = on_error["goto"], (*step.place, "on_error")
        if name not in self.parts.ids:
            hint = self.problems.hint(name, self.parts.ids)
            self.problems.add((*place, "goto"), f"unknown step {name!r}{hint}; it stands beside this one")
        elif name == step.id:
            self.problems.add((*place, "goto"), "a step does not handle its own error")
        else:
            self.callers.setdefault(name, []).append(step.id)
        if on_error["then"] == "retry" and step.kind.name in _NO_RESCUE_RETRY:
            what = (
                f"a step of kind {step.kind.name} does not begin again; give its steps a handler, or put it in a group"
            )
            self.problems.add((*place, "then"), what)

    def _check_handler(self, step: StepParts) -> None:
        if step.keys.get("needs"):
            self.problems.add(
                (*step.place, "needs"), "it handles errors and begins when it is called for; it waits for nothing"
            )
        if isinstance(step.keys.get("on_error"), dict):
            self.problems.add((*step.place, "on_error"), "it handles errors; its own are not handled by another step")

    def _templates(self, step: StepParts, view: View) -> dict[str, CompiledTemplate]:
        """The compiled templates of a step by key."""
        compiled = {}
        keys, place, check = step.keys, step.place, self.checker.template
        if "if" in keys:
            compiled["if"] = check(
                keys["if"], (*place, "if"), view=view, as_=ConditionTemplate, whole=True, status=True
            )
        for source in step.kind.sources(keys):
            options = dict(source.options)
            seen = view.with_names(*options.pop("names", ()))
            compiled[source.name] = check(source.value, (*place, *source.path), view=seen, **options)
        with_item = view.with_names("item", "index") if step.kind.name == "map" else view
        given = with_item.with_names("secrets") if "call" in keys else with_item
        compiled["with"] = check(keys.get("with", {}), (*place, "with"), view=given, whole=True)
        if "call" in keys.get("compensate", {}):
            self._undo(step, with_item, compiled)
        compiled |= compile_extras(step, self.checker, with_item, inner=self.outer is not None)
        if isinstance(keys.get("on_error"), dict) and "goto" in keys["on_error"]:
            compiled["then"] = check(
                keys["on_error"]["then"], (*place, "on_error", "then"), view=self._then_view(step, view), whole=True
            )
        return compiled

    def _undo(self, step: StepParts, view: View, compiled: dict[str, CompiledTemplate]) -> None:
        seen = view.with_names("output", "secrets")
        if step.kind.name == "map_block":
            seen = seen.with_names("item", "index")
        source, place = step.keys["compensate"].get("with", {}), (*step.place, "compensate", "with")
        compiled["undo"] = self.checker.template(source, place, view=seen, whole=True)

    def _then_view(self, step: StepParts, view: View) -> View:
        """`then` sees the handler step beside all else."""
        goto = step.keys["on_error"]["goto"]
        names = view.with_names("last_error").names
        return View(lambda id_: "" if id_ == goto else self.problem_of(id_), names)

    def _ends(self, holder: StepParts, view: View) -> None:
        """What is evaluated within the block when its steps have ended."""
        if "output" in holder.keys:
            self.output = self.checker.template(holder.keys["output"], (*holder.place, "output"), view=view)
        loop = holder.keys.get("loop", {})
        if "until" in loop:
            self.until = self.checker.template(
                loop["until"], (*holder.place, "loop", "until"), view=view, as_=ConditionTemplate, whole=True
            )

    def _choices(self) -> None:
        """Which switch decides about which steps: of a step, one at most."""
        for step in self.parts.steps:
            if step.kind.name != "switch":
                continue
            listed = [(("switch", i, "then"), case["then"]) for i, case in enumerate(step.keys.get("switch", ()))]
            for path, names in (*listed, (("default",), step.keys.get("default", ()))):
                for index, name in enumerate(names):
                    self._choice(step, (*step.place, *path, index), name)

    def _choice(self, step: StepParts, place: tuple[str | int, ...], name: str) -> None:
        if name not in self.parts.ids:
            self.problems.add(place, f"unknown step {name!r}{self.problems.hint(name, self.parts.ids)}")
        elif name in self.callers:
            self.problems.add(place, f"{name} handles errors; it runs only when it is called for")
        elif self.chosen.setdefault(name, step.id) != step.id:
            self.problems.add(place, f"switch {self.chosen[name]} decides about {name} already")

    # What waits for what.

    def _find_needs(self) -> None:
        """What each step waits for: written, read by its expressions or within it, or added by the navigator."""
        for step in self.parts.steps:
            check_join(step, self.chosen.get(step.id, ""), self.problems)
            check_grows(step, self.problems, within=self.outer is not None)
        direct = self._all_direct()
        ordinary = [step.id for step in self.parts.steps if step.id not in self.callers]
        navigate = NAVIGATORS[self.checker.navigator]
        handlers = self.callers.keys()
        needs = navigate(ordinary, {id_: direct[id_] - handlers for id_ in ordinary})
        for cycle in cycles(needs):
            self.problems.add(self.by_id[cycle[0]].place, f"cycle: {_shown(cycle)}")
        self.needs = {**needs, **dict.fromkeys(self.callers, ())}

    def _all_direct(self) -> dict[str, frozenset[str]]:
        """For each step, what it waits for by itself, for its handler, or because a switch decides about it."""
        direct = {step.id: self._direct(step) for step in self.parts.steps}
        for handler, callers in self.callers.items():
            for caller in callers:
                direct[caller] |= direct.get(handler, frozenset()) - {caller}
        for chosen, switch in self.chosen.items():
            if chosen in direct:
                direct[chosen] |= {switch}
        return direct

    def _direct(self, step: StepParts) -> frozenset[str]:
        """The steps beside it that a step waits for by itself."""
        known = self.parts.ids
        needed = set()
        for index, other in enumerate(step.keys.get("needs", ())):
            needed.add(other)
            place = (*step.place, "needs", index)
            if other not in known:
                hint = self.problems.hint(other, known)
                where = " beside it" if self.outer is not None else ""
                self.problems.add(place, f"unknown step {other!r}{where}{hint}")
            elif other in self.callers:
                self.problems.add(place, f"{other} handles errors; it runs only when it is called for")
        reads = needed | self._reads(step)
        own = reads - {step.id} if step.id in reads else reads
        return frozenset(id_ for id_ in own if id_ in self.by_id) | self._itself(step, needed)

    def _itself(self, step: StepParts, needed: set[str]) -> frozenset[str]:
        """The step itself where it says that it needs itself: a cycle."""
        own = [template for name, template in self.templates[step.id].items() if name not in ("undo", "then")]
        needs_itself = step.id in needed or any(step.id in template.steps for template in own)
        return frozenset((step.id,)) if needs_itself else frozenset()

    def _reads(self, step: StepParts) -> set[str]:
        reads: set[str] = set()
        for template in self.templates[step.id].values():
            reads |= template.steps
        if step.id in self.inner:
            reads |= self.inner[step.id].outward()
        return reads

    def outward(self) -> set[str]:
        """Ids of the steps around it that are read within."""
        reads: set[str] = set()
        for step in self.parts.steps:
            reads |= self._reads(step)
        for template in (self.output, self.until):
            reads |= template.steps if template is not None else set()
        return reads - self.parts.ids

    def all_needs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """By the path of each step, those within blocks included: the ids of those beside it that it waits for."""
        for id_, needed in self.needs.items():
            yield self.prefix + id_, needed
        for level in self.inner.values():
            yield from level.all_needs()

    # Compiled.

    @property
    def ordinary(self) -> list[StepParts]:
        """The steps that are begun with the block."""
        return [step for step in self.parts.steps if step.id not in self.callers]

    @property
    def leaves(self) -> tuple[str, ...]:
        """Paths of the steps that nothing needs."""
        needed = {other for others in self.needs.values() for other in others}
        return tuple(self.prefix + step.id for step in self.ordinary if step.id not in needed)

    def specs(self, made: dict[str, StepSpec]) -> None:
        """Adds the compiled steps to `made`, by path: those within a block before the step that holds it."""
        for step in self.parts.steps:
            if step.id in self.inner:
                self.inner[step.id].specs(made)
            spec = self._spec(step, made)
            made[spec.id] = spec
            if spec.undo is not None:
                made[spec.undo.id] = spec.undo

    def block(self, made: Mapping[str, StepSpec]) -> Block:
        """The compiled block."""
        steps = tuple(made[self.prefix + step.id] for step in self.ordinary)
        return Block(steps, self.leaves, self.output, self.until)

    def following(self) -> dict[str, tuple[str, ...]]:
        """For the path of each step, those within blocks included: the paths of those that wait for it."""
        here = dependants(self.needs)
        found = {self.prefix + id_: tuple(self.prefix + other for other in others) for id_, others in here.items()}
        for level in self.inner.values():
            found |= level.following()
        return found

    def _spec(self, step: StepParts, made: Mapping[str, StepSpec]) -> StepSpec:
        keys, templates = step.keys, self.templates[step.id]
        condition = templates.get("if")
        inner = self.inner.get(step.id)
        on_error = keys.get("on_error", "stop")
        return StepSpec(
            id=self.prefix + step.id,
            kind=step.kind.name,
            needs=tuple(self.prefix + other for other in self.needs[step.id]),
            with_=templates["with"],
            condition=condition,
            always=condition is not None and any(expression.status for expression in condition.expressions),
            items=templates.get("map"),
            **_as_written(keys),
            **_of_kind(step, templates),
            heartbeat_timeout=keys.get("heartbeat_timeout", self.checker.heartbeat_timeout),
            on_error=on_error if isinstance(on_error, str) else "goto",
            on_lost=keys.get("on_lost", "").upper(),
            line=self.problems.line(step.place),
            join=None if "join" not in keys else self._join(keys["join"]),
            **extras_of(keys, templates, self.checker.allocation),
            chosen_by=self.prefix + self.chosen[step.id] if step.id in self.chosen else "",
            block=None if inner is None else inner.block(made),
            rescue=None if isinstance(on_error, str) else self._rescue(on_error, templates["then"]),
            undo=self._undo_spec(step, templates["undo"]) if "undo" in templates else None,
        )

    def _join(self, join: Mapping[str, Any]) -> Join:
        return Join(join["at_least"], tuple(self.prefix + name for name in join["of"]))

    def lanes(self) -> tuple[dict[str, int], dict[str, int]]:
        """By the path of a switch its bit, and by the path of each step the bits of the switches that it is behind; those within blocks included."""
        bits, lanes = branches_of_switches(self.needs, self.chosen)
        here = ({self.prefix + id_: bit for id_, bit in found.items()} for found in (bits, lanes))
        lane_of, lane = next(here), next(here)
        for level in self.inner.values():
            inner_bits, inner_lanes = level.lanes()
            lane_of |= inner_bits
            lane |= inner_lanes
        return lane_of, lane

    def _rescue(self, on_error: Mapping[str, Any], then: CompiledTemplate) -> Rescue:
        return Rescue(self.prefix + on_error["goto"], then, on_error["calls"])

    def _undo_spec(self, step: StepParts, with_: CompiledTemplate) -> StepSpec:
        keys = step.keys["compensate"]
        return StepSpec(
            id=f"{self.prefix}{step.id}!compensate",
            kind="call",
            needs=(),
            with_=with_,
            secrets=secrets_in(with_),
            **_as_written(keys),
            on_lost="RETRY",
            line=self.problems.line((*step.place, "compensate")),
        )

    def path_of(self, id_: str) -> str:
        """The path of the step that is meant by this id here."""
        level: Level | None = self
        while level is not None:
            if id_ in level.parts.ids:
                return level.prefix + id_
            level = level.outer
        return id_


_NOT_SET = frozenset(("steps", "output", "retry", "compensate", "set"))
"""Keys of kinds that call nothing that are not settings of theirs: the compiled step has them elsewhere."""
_APART = ("if", "with", "then", "undo", "map", "set")
_SAME = ("concurrency", "tolerate", "timeout", "side_effecting", "output_schema", "labels", "name")
"""Keys that a compiled step has as they are written."""


def _as_written(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a compiled step, or of what undoes it, that its keys alone say."""
    found: dict[str, Any] = {key: keys[key] for key in _SAME if key in keys}
    found["handler"] = HANDLER_PREFIX + keys["flow"] if "flow" in keys else keys.get("call", "")
    found["retry"] = retry_policy(keys["retry"]) if "retry" in keys else None
    if "grows" in keys:
        found["grows"] = tuple(keys["grows"]) if isinstance(keys["grows"], list) else ()
    return found


def _of_kind(step: StepParts, templates: Mapping[str, CompiledTemplate]) -> dict[str, Any]:
    """The settings and templates of a step of a kind that calls nothing, as fields of the compiled step."""
    if "call" in step.keys:
        return {}
    settings = {key: step.keys[key] for key in sorted(step.kind.own_keys & step.keys.keys() - _NOT_SET)}
    return {"settings": settings, "templates": {key: templates[key] for key in templates if key not in _APART}}


def _names_within(step: StepParts) -> frozenset[str]:
    """The names that the steps within a step have besides those that it has itself."""
    names = set(_WITHIN.get(step.kind.name, ()))
    if "for" in step.keys.get("loop", {}):
        names.add("item")
    return frozenset(names)


def _shown(cycle: tuple[str, ...]) -> str:
    shown = cycle if len(cycle) <= 12 else (*cycle[:6], "...", *cycle[-5:])
    return " -> ".join(shown)


def retry_policy(keys: Mapping[str, Any]) -> RetryPolicy:
    """The policy of a step's `retry` in normal form."""
    return RetryPolicy(**{**keys, "retry_on": tuple(keys["retry_on"]), "never_retry_on": tuple(keys["never_retry_on"])})
