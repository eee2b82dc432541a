"""The handlers that every executor offers."""

MODULES = ("tierflow_executor.handlers.basic",)
"""Modules that declare them."""
