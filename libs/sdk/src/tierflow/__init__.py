"""What users import: `Client` to submit and follow, `flow` to build, `handler` and `Context` to perform steps.

Names are loaded when they are first used, so that a handler does not pay for the client nor the command line for either.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierflow.budget import Budget as Budget
    from tierflow.client import Client as Client
    from tierflow.context import Blob as Blob
    from tierflow.context import Context as Context
    from tierflow.errors import Conflict as Conflict
    from tierflow.errors import ExecutionFailed as ExecutionFailed
    from tierflow.errors import InvalidRequest as InvalidRequest
    from tierflow.errors import NotFound as NotFound
    from tierflow.errors import PermissionDenied as PermissionDenied
    from tierflow.errors import ResourceExhausted as ResourceExhausted
    from tierflow.errors import TierflowError as TierflowError
    from tierflow.errors import Unavailable as Unavailable
    from tierflow.flow import FlowBuilder as FlowBuilder
    from tierflow.flow import expr as expr
    from tierflow.flow import flow as flow
    from tierflow.flow import fn as fn
    from tierflow.flow import goto as goto
    from tierflow.flow import undo as undo
    from tierflow.handle import Handle as Handle
    from tierflow.handler import handler as handler
    from tierflow.outcomes import BudgetExhausted as BudgetExhausted
    from tierflow.outcomes import Cancelled as Cancelled
    from tierflow.outcomes import Degraded as Degraded
    from tierflow.outcomes import HandlerFailed as HandlerFailed
    from tierflow.outcomes import Rejected as Rejected
    from tierflow.plan import PlanBuilder as PlanBuilder
    from tierflow.plan import plan as plan
    from tierflow.results import Result as Result
    from tierflow.watching import Event as Event
    from tierflow.watching import Gap as Gap

_EXPORTS = {
    "Blob": "tierflow.context",
    "Budget": "tierflow.budget",
    "BudgetExhausted": "tierflow.outcomes",
    "Cancelled": "tierflow.outcomes",
    "Client": "tierflow.client",
    "Conflict": "tierflow.errors",
    "Context": "tierflow.context",
    "Degraded": "tierflow.outcomes",
    "Event": "tierflow.watching",
    "ExecutionFailed": "tierflow.errors",
    "FlowBuilder": "tierflow.flow",
    "Gap": "tierflow.watching",
    "Handle": "tierflow.handle",
    "HandlerFailed": "tierflow.outcomes",
    "InvalidRequest": "tierflow.errors",
    "NotFound": "tierflow.errors",
    "PermissionDenied": "tierflow.errors",
    "PlanBuilder": "tierflow.plan",
    "Rejected": "tierflow.outcomes",
    "ResourceExhausted": "tierflow.errors",
    "Result": "tierflow.results",
    "TierflowError": "tierflow.errors",
    "Unavailable": "tierflow.errors",
    "expr": "tierflow.flow",
    "flow": "tierflow.flow",
    "fn": "tierflow.flow",
    "goto": "tierflow.flow",
    "handler": "tierflow.handler",
    "plan": "tierflow.plan",
    "undo": "tierflow.flow",
}
"""Each name and the module it comes from; a further one is a line here and a line above."""

__version__ = "0.1.0"
__all__ = sorted(_EXPORTS)


class _Package(ModuleType):
    """This package: importing its module `handler` must not hide the function `handler` that users import from here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _EXPORTS and isinstance(value, ModuleType) and _EXPORTS[name] == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tierflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
