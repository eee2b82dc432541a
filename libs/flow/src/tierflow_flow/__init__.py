"""The flow language: definitions, parsing, checking, expressions."""

from tierflow_flow.definition import ExpressionError, Flow, FlowError, Problem, Scope, StepSpec, Template
from tierflow_flow.parsing import from_canonical, parse
from tierflow_flow.schemas import fill_defaults
from tierflow_flow.scope import PlainScope, walk

__all__ = [
    "ExpressionError",
    "Flow",
    "FlowError",
    "PlainScope",
    "Problem",
    "Scope",
    "StepSpec",
    "Template",
    "fill_defaults",
    "from_canonical",
    "parse",
    "walk",
]
