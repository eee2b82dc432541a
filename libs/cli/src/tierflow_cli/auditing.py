"""What the auditor finds, as a command prints it."""

from __future__ import annotations

import importlib
from typing import Any

from tierflow_cli.connection import UNREACHABLE, refuse


async def audited(database_url: str, nats_url: str, *, settled: bool, as_json: bool) -> bool:
    """Checks what is stored, prints what was found and returns whether all of it holds."""
    report = await audit(database_url, nats_url, settled=settled)
    if as_json:
        from tierflow_cli import text

        text.print_json(report.as_dict())
    else:
        print(report)
    return bool(report.ok)


async def audit(database_url: str, nats_url: str, *, settled: bool) -> Any:
    """The auditor's report. Ends the command where this installation has no auditor."""
    try:
        auditor = importlib.import_module("tierflow_testing.auditor")
    except ModuleNotFoundError:
        refuse("This installation has no auditor; it comes with the package tierflow-testing.", UNREACHABLE)
    return await auditor.audit(database_url, nats_url, settled=settled)
