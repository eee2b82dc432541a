"""The flow language: definitions, parsing, checking."""

from tierflow_flow.definition import Flow, FlowError, Problem, StepSpec, Template
from tierflow_flow.parsing import from_canonical, parse
from tierflow_flow.schemas import fill_defaults

__all__ = [
    "Flow",
    "FlowError",
    "Problem",
    "StepSpec",
    "Template",
    "fill_defaults",
    "from_canonical",
    "parse",
]
