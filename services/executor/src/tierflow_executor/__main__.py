"""`python -m tierflow_executor`."""

import sys

from tierflow_runtime.serving import run_service

from tierflow_executor.app import main
from tierflow_executor.settings import ExecutorSettings

if __name__ == "__main__":
    if sys.argv[1:]:
        print("usage: python -m tierflow_executor; settings are variables, see docs/settings.md", file=sys.stderr)
        sys.exit(2)
    sys.exit(run_service(main, ExecutorSettings, service="executor"))
