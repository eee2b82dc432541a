"""`openapi.call`: an operation of an OpenAPI 3 or Swagger 2 description, as an HTTP request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from pydantic import BaseModel, ConfigDict, Field
from tierflow import Context, Rejected, handler

from tierflow_executor.handlers import http
from tierflow_executor.handlers.authentication import Credentials

_METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
_MOST_DESCRIPTION = 8 << 20


class Call(BaseModel):
    """Which operation to call, with what."""

    model_config = ConfigDict(extra="forbid")

    document: Annotated[str, Field(description="Where the description is: a URL that answers with JSON.")]
    operation: Annotated[str, Field(description="The operationId.")]
    parameters: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="By name; what the operation has no parameter for is its body."),
    ]
    headers: Annotated[dict[str, str], Field(default_factory=dict, description="Sent besides the operation's own.")]
    authentication: Annotated[
        Credentials | None, Field(description="As for http.request; the description is read without.")
    ] = None
    any_status: Annotated[bool, Field(description="As for http.request.")] = False
    follow_redirects: bool = True


class Answer(http.Response):
    """What came back, and what was asked."""

    request: Annotated[dict[str, str], Field(default_factory=dict)]


@handler("openapi.call", tool=True)
async def call(context: Context, asked: Call) -> Answer:
    """Reads the description, finds the operation, sends its request."""
    described = await http.request(context, http.Request(url=asked.document, max_bytes=_MOST_DESCRIPTION))
    if not isinstance(described.body, dict):
        raise Rejected(f"{asked.document} does not answer with a description in JSON")
    fields = request_for(described.body, asked.document, asked.operation, asked.parameters)
    fields["headers"] = {**fields["headers"], **asked.headers}
    fields["authentication"] = asked.authentication
    sent = http.Request(**fields, any_status=asked.any_status, follow_redirects=asked.follow_redirects)
    answer = await http.request(context, sent)
    return Answer(**answer.model_dump(), request={"method": sent.method, "url": sent.url})


def request_for(
    description: Mapping[str, Any], address: str, operation: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The request of an operation: url, method, headers, and body where there is one. Raises `Rejected`.

    Args:
        description: The description.
        address: Where it is; what is relative in it is relative to that.
        operation: The operationId.
        parameters: By name.
    """
    path, method, known, takes_body = _find(description, operation)
    placed, left = _placed(operation, known, parameters)
    for name, value in placed["path"]:
        path = path.replace("{" + name + "}", quote(_text(value), safe=""))
    body = placed["body"][0][1] if placed["body"] else None
    return {
        "url": _base(description, address).rstrip("/") + path + _query(placed["query"]),
        "method": method.upper(),
        "headers": {name: _text(value) for name, value in placed["header"]},
        "body": _body(operation, left, body, takes_body) if left else body,
    }


def _placed(
    operation: str, known: list[Mapping[str, Any]], parameters: Mapping[str, Any]
) -> tuple[dict[str, list[tuple[str, Any]]], dict[str, Any]]:
    """What goes into path, query, headers and body, and what is left over."""
    placed: dict[str, list[tuple[str, Any]]] = {where: [] for where in ("path", "query", "header", "body")}
    left = dict(parameters)
    for parameter in known:
        name, where = str(parameter.get("name")), str(parameter.get("in"))
        if name not in left:
            if parameter.get("required"):
                raise Rejected(f"{operation} needs the parameter {name}")
            continue
        if where not in placed:
            raise Rejected(f"{operation}: parameters in {where} are not supported")
        placed[where].append((name, left.pop(name)))
    return placed, left


def _query(placed: list[tuple[str, Any]]) -> str:
    pairs = [(name, _text(item)) for name, value in placed for item in (value if isinstance(value, list) else [value])]
    return "?" + urlencode(pairs) if pairs else ""


def _body(operation: str, left: Mapping[str, Any], body: Any, takes_body: bool) -> Any:
    """What is left over is the body, where the operation has one."""
    if body is not None or not takes_body:
        raise Rejected(f"{operation} has no parameter {', '.join(left)}")
    return left["body"] if set(left) == {"body"} else dict(left)


def _find(description: Mapping[str, Any], operation: str) -> tuple[str, str, list[Mapping[str, Any]], bool]:
    """Path, method, parameters of an operation, and whether it takes a body besides. Raises `Rejected`."""
    for path, item, method, found in _operations(description):
        if found.get("operationId") == operation:
            listed = [*item.get("parameters", ()), *found.get("parameters", ())]
            resolved = {(p.get("name"), p.get("in")): p for p in (_local(description, each) for each in listed)}
            return path, method, list(resolved.values()), "requestBody" in found
    raise Rejected(f"there is no operation {operation}")


def _operations(description: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    paths = description.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        for method in _METHODS:
            found = item.get(method) if isinstance(item, dict) else None
            if isinstance(found, dict):
                yield path, item, method, found


def _local(description: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part itself, or the one in this description that it refers to. Raises `Rejected`."""
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Any = description if str(reference).startswith("#/") else None
    for name in str(reference).split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise Rejected(f"the description does not have {reference}")
    return found


def _base(description: Mapping[str, Any], address: str) -> str:
    """Where the operations are."""
    if "swagger" in description:
        here = urlsplit(address)
        scheme = here.scheme if here.scheme in description.get("schemes", (here.scheme,)) else description["schemes"][0]
        return f"{scheme}://{description.get('host', here.netloc)}{description.get('basePath', '')}"
    servers = description.get("servers") or [{"url": "/"}]
    url = str(servers[0].get("url", "/"))
    for name, variable in servers[0].get("variables", {}).items():
        url = url.replace("{" + name + "}", str(variable.get("default", "")))
    return urljoin(address, url)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise Rejected("an array or an object stands where a text is expected")
