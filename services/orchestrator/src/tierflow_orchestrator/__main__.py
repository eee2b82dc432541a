"""`python -m tierflow_orchestrator` serves; `python -m tierflow_orchestrator migrate` creates or upgrades the schema."""

from __future__ import annotations

import sys

from tierflow_durable.migrating import migrate_command
from tierflow_runtime.serving import run_service

from tierflow_orchestrator.app import PACKAGES, SCHEMA, main
from tierflow_orchestrator.settings import OrchestratorSettings

if __name__ == "__main__":
    if sys.argv[1:] == ["migrate"]:
        sys.exit(migrate_command(SCHEMA, *PACKAGES))
    sys.exit(run_service(main, OrchestratorSettings, service="orchestrator"))
