"""What a step may have beside its call: checks of its output, stored results, variables, secrets, limits in time, priority."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierflow_expressions.templates import CompiledTemplate, ConditionTemplate

from tierflow_flow.checking import Checker, View
from tierflow_flow.definition import Cache, Rule
from tierflow_flow.reading import StepParts


def compile_extras(step: StepParts, checker: Checker, view: View, *, inner: bool) -> dict[str, CompiledTemplate]:
    """The compiled templates of these keys; `inner` where the step is within a block."""
    compiled = {}
    keys, place = step.keys, step.place
    with_output = view.with_names("output")
    for index, rule in enumerate(keys.get("validate", ())):
        where = (*place, "validate", index, "rule")
        compiled[f"rule{index}"] = checker.template(
            rule["rule"], where, view=with_output, as_=ConditionTemplate, whole=True
        )
    if "cache" in keys:
        if keys.get("side_effecting"):
            what = "a step that has side effects must run; no stored result stands for it"
            checker.problems.add((*place, "cache"), what)
        compiled["cache"] = checker.template(keys["cache"].get("key"), (*place, "cache", "key"), view=view)
    if "set" in keys:
        if inner:
            what = "belongs to steps of the flow itself; the steps of a block return what is to be set"
            checker.problems.add((*place, "set"), what)
        compiled["set"] = checker.template(keys["set"], (*place, "set"), view=with_output)
    return compiled


def extras_of(
    keys: Mapping[str, Any], templates: Mapping[str, CompiledTemplate], allocation: Mapping[str, int]
) -> dict[str, Any]:
    """The fields of a compiled step for these keys; `allocation` is what the flow says for all of them."""
    return {
        "start_timeout": keys.get("start_timeout"),
        "total_timeout": keys.get("total_timeout"),
        "priority": keys.get("priority", 0),
        "cost_estimate": keys.get("cost_estimate"),
        "allocation": {**allocation, **keys.get("allocation", {})} if "call" in keys else {},
        "sets": templates.get("set"),
        "secrets": secrets_in(templates["with"]) if "call" in keys else (),
        "cache": _cache(keys["cache"], templates["cache"]) if "cache" in keys else None,
        "rules": tuple(
            Rule(templates[f"rule{index}"], rule["message"], rule["on_fail"])
            for index, rule in enumerate(keys.get("validate", ()))
        ),
    }


def secrets_in(template: CompiledTemplate) -> tuple[str, ...]:
    """The secrets of which handles are in a template, each as often as it is there."""
    references = (expression.plain for expression in template.expressions)
    return tuple(
        str(found.path[0]) for found in references if found is not None and found.name == "secrets" and found.path
    )


def _cache(keys: Mapping[str, Any], key: CompiledTemplate) -> Cache:
    return Cache(key, keys["ttl"], keys["scope"], keys["version"])
