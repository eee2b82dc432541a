"""Text of a CNCF Serverless Workflow document to a `Flow` whose navigator is `serverless`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tierflow_expressions.templates import CompiledTemplate
from tierflow_runtime.values import RetryPolicy

from tierflow_flow.definition import Flow, StepSpec
from tierflow_flow.keys import DEFAULT_RETRY
from tierflow_flow.limits import MAX_CANONICAL, MAX_TIMEOUT
from tierflow_flow.problems import Problems
from tierflow_flow.reading import content_hash
from tierflow_flow.serverless.compiling import Compiler
from tierflow_flow.serverless.durations import micros_of
from tierflow_flow.serverless.program import Program, Task, secrets_of
from tierflow_flow.serverless.reader import Part
from tierflow_flow.serverless.values import STANDARD
from tierflow_flow.source import Document

NAVIGATOR: Final = "serverless"
ROOT: Final = "/do"
"""The step of the whole document."""
_NAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII)
_USE: Final = ("authentications", "catalogs", "errors", "extensions", "functions", "retries", "secrets", "timeouts")
_ONCE: Final = RetryPolicy(**{**DEFAULT_RETRY, "max_attempts": 3, "retry_on": ("EXECUTOR_LOST",), "never_retry_on": ()})
"""Attempts that were lost with their executor are repeated; every other failure is an error of the document's own, for its `try`."""


def is_document(value: Any) -> bool:
    """Whether a definition is one of the DSL: it says so itself."""
    return isinstance(value, dict) and isinstance(value.get("document"), dict) and "dsl" in value["document"]


def compile_document(source: Document, problems: Problems, canonical: str | None) -> Flow:
    """The compiled document. Raises `FlowError` with everything that is wrong."""
    top = Part(source.value, (), problems, STANDARD)
    top.only(("document", "input", "use", "do", "timeout", "output", "schedule"), required=("do",))
    document = _head(top)
    if "schedule" in top:
        top.unsupported(
            "schedule",
            "schedules in documents; leave the key out, and make a schedule of Tier 1 for the flow (CreateSchedule)",
        )
    use = top.part("use")
    use.only(_USE)
    if use.source.get("catalogs"):
        use.unsupported(
            "catalogs",
            "catalogs of functions; nothing is fetched: write the functions under use.functions, or call handlers by their names",
        )
    compiler = Compiler(use, problems)
    inner = compiler.list(top.source.get("do", []), ("do",), ROOT, STANDARD)
    root = Task(ROOT, document.get("name", ""), "do", top.source, lists={"do": inner}, **_outer(compiler, top))
    timeout = _constant(compiler, top)
    problems.raise_if_any()
    tasks = {ROOT: root, **compiler.tasks}
    listens = any(task.kind == "listen" for task in tasks.values())
    text = canonical if canonical is not None else json.dumps(source.value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)  # fmt: skip
    if len(text.encode()) > MAX_CANONICAL:
        problems.add((), f"larger than {MAX_CANONICAL} bytes when written in full")
        problems.raise_if_any()
    secrets = tuple(name for name in compiler.secrets if name not in compiler.released)
    program = Program(source.value, ROOT, tasks, secrets, listens)
    return _flow(program, document, text, timeout, problems)


def _head(top: Part) -> Mapping[str, str]:
    document = top.part("document")
    known = ("dsl", "namespace", "name", "version")
    document.only((*known, "title", "summary", "tags", "metadata"), required=known)
    read = {key: document.text(key) for key in (*known, "title", "summary")}
    if "dsl" in document and not (_VERSION.fullmatch(read["dsl"]) and read["dsl"].startswith("1.0.")):
        document.wrong("dsl", f"expected a version 1.0.x of the DSL, found {read['dsl'][:40]!r}")
    for key in ("namespace", "name"):
        if key in document and not _NAME.fullmatch(read[key]):
            document.wrong(key, "expected letters, digits and hyphens, at most 63")
    if "version" in document and not _VERSION.fullmatch(read["version"]):
        document.wrong("version", "expected a version such as 1.0.0")
    return read


def _outer(compiler: Compiler, top: Part) -> dict[str, Any]:
    """The data of the document as a whole: its input and its output."""
    sections = {key: top.source[key] for key in ("input", "output") if key in top}
    return compiler.data(Part(sections, (), compiler.problems, STANDARD))


def _constant(compiler: Compiler, top: Part) -> int | None:
    """The timeout of the whole run, microseconds."""
    value = compiler.timeout(top)
    if value is None:
        return None
    if not value.constant:
        top.wrong("timeout", "the timeout of a whole document is no expression")
        return None
    try:
        return micros_of(value.tree)
    except ValueError:
        return None


def _flow(program: Program, document: Mapping[str, str], text: str, timeout: int | None, problems: Problems) -> Flow:
    steps = tuple(_spec(task, problems) for task in program.tasks.values())
    schema = program.tasks[ROOT].input_schema
    return Flow(
        name=f"{document['namespace']}.{document['name']}",
        version=document["version"],
        hash=content_hash(text),
        description=document["summary"] or document["title"],
        steps=steps,
        by_id={step.id: step for step in steps},
        dependants={step.id: () for step in steps},
        roots=(ROOT,),
        leaves=(),
        handlers=tuple(sorted({step.handler for step in steps if step.handler and step.kind != "flow"})),
        content_steps=frozenset(program.tasks),
        input_schema=None if schema is None else schema.schema,
        output=None,
        output_schema=None,
        retry=_ONCE,
        timeout=None,
        run_timeout=timeout,
        failure_policy="FAIL_FAST",
        concurrency=None,
        vars={},
        env=program.secrets,
        canonical=text,
        navigator=NAVIGATOR,
        program=program,
        subflows=any(step.kind == "flow" for step in steps),
    )


def _spec(task: Task, problems: Problems) -> StepSpec:
    """How the core sees a task."""
    timeout = None
    if task.handler and task.timeout is not None and task.timeout.constant:
        timeout = min(max(1, micros_of(task.timeout.tree)), MAX_TIMEOUT)
    inner = {"flow": task.settings["flow"]} if "flow" in task.settings else {}
    return StepSpec(
        id=task.pointer,
        kind="flow" if inner else task.kind,
        settings=inner,
        handler=task.handler,
        needs=(),
        with_=_COMPUTED,
        condition=_COMPUTED,
        retry=_ONCE,
        timeout=timeout,
        name=task.name,
        secrets=secrets_of(task),
    )


_COMPUTED: Final = CompiledTemplate(None, (), (), False, frozenset(), frozenset())
"""Stands for what the navigator computes: the condition and the input of a task. Nothing can be told of them beforehand."""
