"""The handlers that every executor offers."""

MODULES = (
    "tierflow_executor.handlers.basic",
    "tierflow_executor.handlers.blackboard",
    "tierflow_executor.handlers.http",
    "tierflow_executor.handlers.openapi",
    "tierflow_executor.handlers.shell",
    "tierflow_executor.handlers.values",
)
"""Modules that declare them."""
