"""The CNCF Serverless Workflow DSL 1.0: documents, checked and compiled. docs/serverless-workflow.md says what is supported."""

from tierflow_flow.serverless.parsing import NAVIGATOR, ROOT, compile_document, is_document
from tierflow_flow.serverless.program import Program, Task

__all__ = ["NAVIGATOR", "ROOT", "Program", "Task", "compile_document", "is_document"]
