"""What executors are given for the calls of a document, and what is made of their answers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.serverless.program import Task, secrets_of
from tierflow_flow.serverless.values import Surroundings
from tierflow_runtime.secrets import OPENING, handle
from tierflow_runtime.values import Payload

from tierflow_orchestrator.core.scope import write
from tierflow_orchestrator.core.serverless.errors import standard
from tierflow_orchestrator.core.serverless.scope import frame_of, inside, store, task_of, value_of
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn

_ALL_STATUSES: Final = "any_status"


def request_of(turn: Turn, step: Step) -> Payload:
    """The input of a call's handler. Raises `ExpressionError`."""
    task = task_of(turn.run, step)
    data = value_of(turn.run, frame_of(step).input)
    seen = inside(turn, step, data)
    if task.settings.get("call") == "http":
        return _sealed(turn, task, _http(task, seen))
    if task.settings.get("call") == "openapi":
        return _sealed(turn, task, _openapi(task, seen))
    if "program" in task.settings:
        return store(turn, _command(task, seen))
    arguments = task.settings["with"]
    return store(turn, data if arguments is None else arguments.resolve(seen))


def _sealed(turn: Turn, task: Task, asked: dict[str, Any]) -> Payload:
    """A request as it is stored: no value of it passes for the handle of a secret."""
    if (named := secrets_of(task)) and write(asked).count(OPENING) != len(named):
        raise ExpressionError("a value looks like the handle of a secret; it cannot stand beside one")
    return store(turn, asked)


def _resolved(task: Task, key: str, seen: Surroundings) -> Any:
    value = task.settings[key]
    return None if value is None else value.resolve(seen)


def _http(task: Task, seen: Surroundings) -> dict[str, Any]:
    uri = _resolved(task, "uri", seen)
    if not isinstance(uri, str):
        raise ExpressionError("the endpoint is no URI")
    asked: dict[str, Any] = {
        "url": uri,
        "method": task.settings["method"],
        _ALL_STATUSES: True,
        "follow_redirects": False,
    }
    headers = _texts(_resolved(task, "headers", seen), "headers")
    if headers:
        asked["headers"] = headers
    _authenticated(task, seen, asked)
    if query := _texts(_resolved(task, "query", seen), "query"):
        asked["query"] = query
    body = _resolved(task, "body", seen)
    if isinstance(body, str) and not _says_json(headers):
        asked["text"] = body
    elif body is not None:
        asked["body"] = body
    return asked


def _openapi(task: Task, seen: Surroundings) -> dict[str, Any]:
    parameters = _resolved(task, "parameters", seen) or {}
    if not isinstance(parameters, dict):
        raise ExpressionError("parameters is an object")
    asked: dict[str, Any] = {
        "document": _resolved(task, "uri", seen),
        "operation": task.settings["operation"],
        "parameters": {name: value for name, value in parameters.items() if value is not None},
        _ALL_STATUSES: True,
        "follow_redirects": False,
    }
    _authenticated(task, seen, asked)
    return asked


def _says_json(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "content-type" and "json" in value for name, value in headers.items())


def _texts(value: Any, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ExpressionError(f"{what} is an object")
    return {name: _text(item) for name, item in value.items() if item is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ExpressionError("an array or an object stands where a text is expected")


def _authenticated(task: Task, seen: Surroundings, asked: dict[str, Any]) -> None:
    """Says in a request who asks. What an expression gives is part of the request; a secret that is used by its name is put in by the executor."""
    if task.settings["authentication"] is None:
        return
    scheme, said = task.settings["authentication"]
    if isinstance(said, str):
        asked["authentication"] = {"scheme": scheme, "secret": handle(said)}
        return
    values = {key: value.resolve(seen) for key, value in said.items() if value is not None}
    if scheme not in ("basic", "bearer"):
        asked["authentication"] = {"scheme": scheme, **values}
        return
    texts = {key: _text(value) for key, value in values.items()}
    if scheme == "bearer":
        header = f"Bearer {texts['token']}"
    else:
        header = "Basic " + base64.b64encode(f"{texts['username']}:{texts['password']}".encode()).decode()
    asked["headers"] = {**asked.get("headers", {}), "Authorization": header}


def _command(task: Task, seen: Surroundings) -> dict[str, Any]:
    code = _resolved(task, "code", seen)
    arguments = _resolved(task, "arguments", seen) or []
    if not isinstance(code, str) or not isinstance(arguments, list):
        raise ExpressionError("a command is a text, and its arguments are an array")
    name = [task.settings["name"]] if task.settings["name"] else []
    command = [*task.settings["program"], code, *name, *map(_text, arguments)]
    asked: dict[str, Any] = {"command": command, "ok_exit_codes": list(range(256))}
    if environment := _texts(_resolved(task, "environment", seen), "environment"):
        asked["env"] = environment
    stdin = _resolved(task, "stdin", seen)
    if stdin is not None:
        asked["stdin"] = stdin if isinstance(stdin, str) else _json(stdin)
    return asked


def _json(value: Any) -> str:
    return write(value)


# Answers.


def output_of(turn: Turn, step: Step, answer: Payload | None) -> Any:
    """What a call gives, before it is transformed. Raises `Raised`, `ExpressionError`."""
    task = task_of(turn.run, step)
    value = value_of(turn.run, answer)
    if task.settings.get("call") in ("http", "openapi"):
        return _http_output(turn, step, task, value)
    if "program" in task.settings:
        return _RETURNS[task.settings["return"]](_checked(task, value))
    return value


def _http_output(turn: Turn, step: Step, task: Task, value: dict[str, Any]) -> Any:
    status = value["status"]
    if not 200 <= status < (400 if task.settings["redirect"] else 300) and not value.get("pretended"):
        raise standard("communication", status, _phrase(status), f"{step.of} was answered {status}")
    content = value.get("body")
    if content is None:
        content = value.get("text") or value.get("base64")
    if task.settings["output"] == "content":
        return content
    if task.settings["output"] == "raw":
        return base64.b64encode((content if isinstance(content, str) else _json(content)).encode()).decode()
    return {
        "request": _sent(turn, step, value),
        "statusCode": status,
        "headers": value.get("headers", {}),
        "content": content,
    }


def _sent(turn: Turn, step: Step, answer: dict[str, Any]) -> dict[str, Any]:
    """What was asked, without what says who asked."""
    asked = value_of(turn.run, step.input) | answer.get("request", {})
    headers = {name: text for name, text in asked.get("headers", {}).items() if name != "Authorization"}
    return {"method": asked["method"], "uri": asked["url"], "headers": headers}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Communication Error"


def _checked(task: Task, value: dict[str, Any]) -> dict[str, Any]:
    """What a command did; a failure where it ended badly and nobody wants to know how."""
    if value["exit_code"] != 0 and task.settings["return"] in ("stdout", "stderr", "none"):
        raise standard(
            "runtime",
            500,
            "Runtime Error",
            f"the command ended with exit code {value['exit_code']}: {value['stderr'][:500]}",
        )
    return value


_RETURNS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "stdout": lambda value: value["stdout"],
    "stderr": lambda value: value["stderr"],
    "code": lambda value: value["exit_code"],
    "all": lambda value: {"code": value["exit_code"], "stdout": value["stdout"], "stderr": value["stderr"]},
    "none": lambda value: None,
}
