"""Tasks that executors perform: `call` and `run`. Each becomes a handler and what it is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tierflow_flow.flow_keys import HANDLER_PREFIX, reference_parts
from tierflow_flow.serverless.compiling import COMMON, Compiler
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.reader import Part
from tierflow_flow.serverless.values import Value, is_expression

HTTP: Final = "http.request"
OPENAPI: Final = "openapi.call"
SHELL: Final = "shell.run"
_HANDLER: Final = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*", re.ASCII)
_PROTOCOLS: Final = ("asyncapi", "grpc", "a2a", "mcp")
_INSTEAD: Final = {
    "asyncapi": "publish by a handler that does it, by its name; receive by listen, from whoever signals the run",
    "mcp": "call a handler that does it, by its name; servers that speak HTTP by call: http",
}
_SCHEMES: Final = {"basic": ("username", "password"), "bearer": ("token",), "digest": ("username", "password")}
_TOKENS: Final = ("oauth2", "oidc")
_GRANTS: Final = ("client_credentials", "password")
_CLIENT: Final = ("client_secret_post", "client_secret_basic", "none")
_ENCODINGS: Final = ("application/x-www-form-urlencoded", "application/json")
_METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


def call(compiler: Compiler, part: Part, task: Task) -> Task:
    """`call`: HTTP, a function of the document, or a handler by its name."""
    part.only((*COMMON, "call", "with"))
    name = part.text("call")
    if name == "http":
        return _http(compiler, part, task)
    if name == "openapi":
        return _openapi(compiler, part, task)
    if name in _PROTOCOLS:
        part.unsupported("call", f"calls of {name}; {_INSTEAD.get(name, 'call a handler that does it, by its name')}")
        return task
    functions = compiler.use.source.get("functions", {})
    if isinstance(functions, Mapping) and name in functions:
        return _function(compiler, part, task, name)
    if "://" in name or "@" in name:
        part.unsupported(
            "call",
            "functions of catalogs, nothing is fetched; write the function under use.functions, or call a handler by its name",
        )
        return task
    if not _HANDLER.fullmatch(name) or len(name) > 200:
        part.wrong("call", f"{name[:60]!r} is neither a function of use.functions nor the name of a handler")
        return task
    return replace(task, handler=name, settings={"call": "handler", "with": part.value("with")})


def _function(compiler: Compiler, part: Part, task: Task, name: str) -> Task:
    """A function is a task of its own, which begins with the call's arguments."""
    if name in compiler.calling:
        part.wrong("call", f"the function {name} calls itself: {' -> '.join((*compiler.calling, name))}")
        return task
    calling, compiler.calling = compiler.calling, (*compiler.calling, name)
    pointer = f"{task.pointer}/call/{name}"
    source = compiler.use.source["functions"][name]
    there = compiler.task(source, ("use", "functions", name), pointer, part.names)
    compiler.calling = calling
    settings = {"call": "function", "with": part.value("with")}
    return replace(task, kind="function", settings=settings, lists={"do": (pointer,) if there else ()})


def _http(compiler: Compiler, part: Part, task: Task) -> Task:
    arguments = part.part("with")
    arguments.only(
        ("method", "endpoint", "headers", "body", "query", "output", "redirect"), required=("method", "endpoint")
    )
    method = arguments.text("method").upper()
    if "method" in arguments and method not in _METHODS:
        arguments.wrong("method", f"expected one of {', '.join(_METHODS)}")
    endpoint, key = arguments, "endpoint"
    authentication = None
    if isinstance(arguments.source.get("endpoint"), dict):
        endpoint, key = arguments.part("endpoint"), "uri"
        endpoint.only(("uri", "authentication"), required=("uri",))
        authentication = _authentication(compiler, endpoint)
    settings = {
        "call": "http",
        "method": method,
        "uri": endpoint.uri(key) if key in endpoint else None,
        "authentication": authentication,
        "headers": arguments.value("headers"),
        "query": arguments.value("query"),
        "body": arguments.value("body"),
        "output": arguments.one_of("output", ("raw", "content", "response"), "content"),
        "redirect": arguments.flag("redirect", default=False),
    }
    return replace(task, handler=HTTP, settings=settings)


def _openapi(compiler: Compiler, part: Part, task: Task) -> Task:
    arguments = part.part("with")
    known = ("document", "operationId", "parameters", "authentication", "output", "redirect")
    arguments.only(known, required=known[:2])
    document = arguments.part("document")
    document.only(("name", "endpoint"), required=("endpoint",))
    endpoint, key = document, "endpoint"
    if isinstance(document.source.get("endpoint"), dict):
        endpoint, key = document.part("endpoint"), "uri"
        endpoint.only(("uri",), required=("uri",))
    settings = {
        "call": "openapi",
        "uri": endpoint.uri(key) if key in endpoint else None,
        "operation": arguments.text("operationId"),
        "parameters": arguments.value("parameters"),
        "authentication": _authentication(compiler, arguments),
        "output": arguments.one_of("output", ("raw", "content", "response"), "content"),
        "redirect": arguments.flag("redirect", default=False),
    }
    return replace(task, handler=OPENAPI, settings=settings)


def _authentication(compiler: Compiler, endpoint: Part) -> tuple[str, Any] | None:
    """How a call says who it is: the scheme, with its values or the name of a secret that holds them."""
    if "authentication" not in endpoint:
        return None
    policy: Part | None = endpoint.part("authentication")
    if policy is not None and "use" in policy:
        policy = compiler.named("authentications", policy, "use")
    if policy is None:
        return None
    if len(policy.source) != 1:
        policy.wrong("", "expected one way to authenticate")
        return None
    [scheme] = policy.source
    if scheme in _TOKENS and "use" not in policy.part(scheme):
        return scheme, _token_request(policy.part(scheme), scheme)
    fields = () if scheme in _TOKENS else _SCHEMES.get(scheme)
    if fields is None:
        known = ", ".join((*_SCHEMES, *_TOKENS))
        policy.unsupported(scheme, f"authentication by {scheme[:60]}; known: {known}, else write the header yourself")
        return None
    return scheme, _credentials(compiler, policy.part(scheme), fields)


def _token_request(policy: Part, scheme: str) -> dict[str, Value | None]:
    """How a token is asked for, by OAuth 2 or OpenID Connect."""
    known = ("authority", "endpoints", "grant", "client", "request", "scopes", "audiences", "username", "password")
    for key in ("subject", "actor", "issuers"):
        if key in policy:
            policy.unsupported(key, f"{scheme} with {key}; ask for the token in a task of its own, and use bearer")
    policy.only((*known, "subject", "actor", "issuers"), required=("authority", "grant"))
    client, request, endpoints = policy.part("client"), policy.part("request"), policy.part("endpoints")
    client.only(("id", "secret", "assertion", "authentication"))
    endpoints.only(("token", "revocation", "introspection"))
    request.only(("encoding",))
    request.one_of("encoding", _ENCODINGS, _ENCODINGS[0])
    for part, key, possible in ((policy, "grant", _GRANTS), (client, "authentication", _CLIENT)):
        if part.text(key, possible[0]) not in possible:
            part.unsupported(key, f"{key} {part.text(key)[:60]!r}; known: {', '.join(possible)}")
    if "assertion" in client:
        client.unsupported("assertion", "clients that sign assertions")
    policy.uri("authority")
    fields = {key: policy.value(key) for key in ("authority", "grant", "scopes", "audiences", "username", "password")}
    endpoint = {"endpoints": policy.value("endpoints"), "encoding": request.value("encoding")}
    return {**fields, **endpoint, "client": policy.value("client")}


def _credentials(compiler: Compiler, values: Part, fields: tuple[str, ...]) -> Any:
    """The name of the secret that holds them, or each by itself."""
    if "use" not in values:
        values.only(fields, required=fields)
        return {field: values.value(field) for field in fields}
    values.only(("use",))
    secret = values.text("use")
    if secret not in compiler.secrets:
        values.wrong("use", f"use.secrets has no {secret[:60]!r}")
    else:
        compiler.released.add(secret)
    return secret


def run(compiler: Compiler, part: Part, task: Task) -> Task:
    """`run`: a command, or a script."""
    part.only((*COMMON, "run"))
    running = part.part("run")
    running.only(("container", "script", "shell", "workflow", "await", "return"))
    if not running.flag("await", default=True):
        running.unsupported("await", "what is run is always waited for")
    returns = running.one_of("return", ("stdout", "stderr", "code", "all", "none"), "stdout")
    what = next((key for key in ("container", "script", "shell", "workflow") if key in running), "")
    if what == "container":
        running.unsupported(what, "running containers; use shell, script, or call a handler that does it, by its name")
        return task
    if what == "workflow":
        return _subflow(running, task)
    if not what:
        running.wrong("", "expected shell, script or workflow")
        return task
    command = _shell(running) if what == "shell" else _script(running)
    return replace(task, handler=SHELL, settings={"run": what, "return": returns, **command})


def _subflow(running: Part, task: Task) -> Task:
    """Another flow, document or not: a run of its own."""
    other = running.part("workflow")
    other.only(("namespace", "name", "version", "input"), required=("namespace", "name", "version"))
    version = other.text("version", "latest")
    reference = f"{other.text('namespace')}.{other.text('name')}" + ("" if version == "latest" else f"@{version}")
    if "name" in other and not reference_parts(reference)[0]:
        other.wrong("", f"{reference[:80]!r} cannot be the name of a flow")
    settings = {"run": "workflow", "with": other.value("input"), "flow": reference}
    return replace(task, handler=HANDLER_PREFIX + reference, settings=settings)


def _shell(running: Part) -> dict[str, Any]:
    shell = running.part("shell")
    shell.only(("command", "stdin", "arguments", "environment"), required=("command",))
    return {"program": ("/bin/sh", "-c"), "code": shell.value("command"), "name": "sh", **_given(shell)}


def _script(running: Part) -> dict[str, Any]:
    script = running.part("script")
    script.only(("language", "code", "source", "stdin", "arguments", "environment"), required=("language",))
    if "source" in script:
        script.unsupported("source", "scripts are not fetched; write them inline, under code")
    elif "code" not in script:
        script.wrong("", "code is missing")
    language = script.text("language")
    if language not in ("python", "python3"):
        script.unsupported(
            "language", f"scripts in {language[:60]}; known: python, anything else by run: shell where it is installed"
        )
    return {"program": ("python3", "-c"), "code": script.value("code"), "name": "", **_given(script)}


def _given(part: Part) -> dict[str, Value | None]:
    for key in ("environment",):
        if key in part and not isinstance(part.source[key], dict) and not is_expression(part.source[key]):
            part.wrong(key, "expected an object")
    return {
        "stdin": part.value("stdin"),
        "arguments": part.value("arguments"),
        "environment": part.value("environment"),
    }
