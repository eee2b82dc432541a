"""Plans of several runs, built in Python or written as a dict: which flow comes next is chosen from what earlier ones gave.

p = plan("answer a question")
triage = p.run("triage", "triage@1")
collect = p.run("collect", "collect", if_=triage.output.verdict == "insufficient data")
p.run("answer", "answer", {"facts": collect.output}, if_=fn.always())
await client.submit(p, {"question": "why?"})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from tierflow_contracts.common.v1.plan_pb2 import PlannedCase, PlannedRun
from tierflow_contracts.coordinator.v1.swarm_pb2 import FixedPlan

from tierflow.documents import plain
from tierflow.errors import invalid
from tierflow.expressions import Expression
from tierflow.submission import FlowLike, encode, flow_ref

Names: TypeAlias = "str | Expression | Iterable[str | Expression]"

_RUN_KEYS = ("flow", "among", "input", "needs", "if", "switch", "default", "on_error")
_PLAN_KEYS = ("name", "runs", "output")


class PlanBuilder:
    """A plan in the making. What `run` and `switch` return stands for the run in later expressions: `.output`, `.state`, `.outcome`, `.failure`, `.flow`."""

    input = Expression("input", simple=True)
    """The plan's input, in expressions."""
    board = Expression("board", simple=True)
    """The swarm's blackboard: `p.board.verdict == "go"`."""
    swarm = Expression("swarm", simple=True)
    """The swarm: `id`, `goal`, `labels` and more."""

    def __init__(self, name: str = "", *, output: Any = None) -> None:
        self.name = name
        self.output = output
        """The swarm's output, with expressions; None: the outputs of the runs that no other needs."""
        self._runs: dict[str, dict[str, Any]] = {}

    def run(
        self,
        id: str,  # noqa: A002 - the word of the plan
        flow: FlowLike | Expression,
        input: Any = None,  # noqa: A002 - it is called so everywhere else
        *,
        needs: Names = (),
        if_: str | Expression | None = None,
        among: Sequence[FlowLike] = (),
        on_error: str = "",
    ) -> Expression:
        """A run of a flow.

        Args:
            id: Its id in the plan.
            flow: A flow as `Client.submit` takes it; or, with `among`, an expression that names one of those.
            input: Its input, with expressions; None: the plan's input.
            needs: Runs that it waits for. Those that its expressions read, it waits for anyway.
            if_: Its condition; where it is false, the run is skipped.
            among: The flows that may be chosen.
            on_error: `continue`: the swarm does not fail by its failure.
        """
        keys = {"flow": flow, "among": among, "input": input, "needs": needs, "if": if_, "on_error": on_error}
        return self._add(id, keys)

    def switch(
        self,
        id: str,  # noqa: A002 - the word of the plan
        *cases: tuple[str | Expression, Names],
        default: Names = (),
        needs: Names = (),
        if_: str | Expression | None = None,
    ) -> Expression:
        """A choice: the runs of the first case that is true go on, all others that it names are skipped."""
        listed = [{"if": condition, "then": then} for condition, then in cases]
        return self._add(id, {"switch": listed, "default": default, "needs": needs, "if": if_})

    def _add(self, planned_id: str, keys: dict[str, Any]) -> Expression:
        if planned_id in self._runs:
            raise invalid(f"input.fixed.runs.{planned_id}", "is there twice")
        self._runs[planned_id] = {name: value for name, value in keys.items() if _is_said(value)}
        return Expression(f"runs.{planned_id}", simple=True)

    def to_dict(self) -> dict[str, Any]:
        """The plan as it would be written in a file."""
        said = {"name": self.name, "runs": self._runs, "output": self.output}
        return {name: value for name, value in said.items() if _is_said(value)}


def _is_said(value: Any) -> bool:
    """Whether somebody gave it. An expression is not compared with anything: that would be another expression."""
    return isinstance(value, Expression) or (value is not None and value != "" and value != ())


def plan(name: str = "", *, output: Any = None) -> PlanBuilder:
    """Begins a plan. `name` is what lists show."""
    return PlanBuilder(name, output=output)


def plan_message(given: PlanBuilder | Mapping[str, Any]) -> FixedPlan:
    """The plan for a request.

    As a dict it has `runs` (by id, or a list of objects with `id`), and may have `name` and `output`.

    Raises:
        InvalidRequest: A key that there is not, or something that is no flow.
        NotFound: A path at which there is no file.
    """
    keys = given.to_dict() if isinstance(given, PlanBuilder) else given
    _check_keys("input.fixed", keys, _PLAN_KEYS)
    message = FixedPlan(name=keys.get("name", ""))
    if "output" in keys:
        message.output.json = encode(plain(keys["output"]), "input.fixed.output")
    runs = keys["runs"]
    items = runs.items() if isinstance(runs, Mapping) else [(each.get("id", ""), each) for each in runs]
    for place, (planned_id, run) in enumerate(items):
        message.runs.append(_run(f"input.fixed.runs[{place}]", str(planned_id), run))
    return message


def _run(at: str, planned_id: str, run: Any) -> PlannedRun:
    if not isinstance(run, Mapping):
        raise invalid(at, "expected an object with a flow or a switch")
    _check_keys(at, run, ("id", *_RUN_KEYS))
    message = PlannedRun(id=planned_id, needs=_names(run.get("needs", ())), default=_names(run.get("default", ())))
    setattr(message, "if", _text(run.get("if")))
    message.on_error = run.get("on_error", "")
    for place, case in enumerate(run.get("switch", ())):
        if not isinstance(case, Mapping):
            raise invalid(f"{at}.switch[{place}]", "expected an object with if and then")
        _check_keys(f"{at}.switch[{place}]", case, ("if", "then"))
        made = PlannedCase(then=_names(case.get("then", ())))
        setattr(made, "if", _text(case.get("if")))
        message.switch.append(made)
    message.among.extend(flow_ref(flow) for flow in run.get("among", ()))
    if "flow" in run and message.among:
        message.flow.name = str(run["flow"])
    elif "flow" in run:
        message.flow.CopyFrom(flow_ref(run["flow"]))
    if "input" in run:
        message.input.json = encode(plain(run["input"]), f"{at}.input")
    return message


def _check_keys(at: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        raise invalid(f"{at}.{unknown[0]}", f"is no key here; there are: {', '.join(known)}")


def _text(condition: Any) -> str:
    """A condition as text; YAML has words for true and false of its own."""
    if condition is None:
        return ""
    return str(condition).lower() if isinstance(condition, bool) else str(condition)


def _names(given: Any) -> list[str]:
    """Ids of runs: texts, or what stands for the runs in expressions."""
    if isinstance(given, str | Expression):
        given = (given,)
    return [str(each).removeprefix("${{ runs.").removesuffix(" }}") for each in given]
