"""`openapi.call`: what is asked of an API that describes itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow import Rejected
from tierflow_executor.handlers.openapi import request_for
from tierflow_testing.executor_peer import Peer, a_request

from .test_http import Serve, Site, answer, code, site

__all__ = ["site"]

SWAGGER: dict[str, Any] = {
    "swagger": "2.0",
    "host": "shop.example",
    "basePath": "/v2",
    "schemes": ["https"],
    "paths": {
        "/pet/{petId}": {
            "parameters": [{"$ref": "#/parameters/petId"}],
            "get": {"operationId": "getPet", "parameters": [{"name": "x-trace", "in": "header"}]},
        },
        "/pet": {
            "post": {"operationId": "addPet", "parameters": [{"name": "pet", "in": "body", "required": True}]},
            "get": {"operationId": "findPets", "parameters": [{"name": "status", "in": "query", "required": True}]},
        },
        "/form": {"post": {"operationId": "form", "parameters": [{"name": "a", "in": "formData"}]}},
    },
    "parameters": {"petId": {"name": "petId", "in": "path", "required": True}},
}
OPENAPI: dict[str, Any] = {
    "openapi": "3.0.0",
    "servers": [{"url": "/api/{version}", "variables": {"version": {"default": "v1"}}}],
    "paths": {"/pet": {"put": {"operationId": "putPet", "requestBody": {"content": {"application/json": {}}}}}},
}
SOUND = [
    (SWAGGER, "getPet", {"petId": "a/b", "x-trace": 1}, ("GET", "https://shop.example/v2/pet/a%2Fb", {"x-trace": "1"}, None)),
    (SWAGGER, "findPets", {"status": ["a", "b c"]}, ("GET", "https://shop.example/v2/pet?status=a&status=b+c", {}, None)),
    (SWAGGER, "addPet", {"pet": {"n": 1}}, ("POST", "https://shop.example/v2/pet", {}, {"n": 1})),
    (OPENAPI, "putPet", {"body": [1]}, ("PUT", "http://a.b/api/v1/pet", {}, [1])),
    (OPENAPI, "putPet", {"n": 1, "m": 2}, ("PUT", "http://a.b/api/v1/pet", {}, {"n": 1, "m": 2})),
]  # fmt: skip


@pytest.mark.parametrize(("description", "operation", "parameters", "expected"), SOUND)
def test_requests(description: Any, operation: str, parameters: Any, expected: Any) -> None:
    """S8: parameters go where the description says, quoted; what is no parameter is the body."""
    asked = request_for(description, "http://a.b/docs/openapi.json", operation, parameters)
    assert (asked["method"], asked["url"], asked["headers"], asked["body"]) == expected


@pytest.mark.parametrize(
    ("operation", "parameters", "part"),
    [
        ("nope", {}, "no operation nope"),
        ("getPet", {}, "needs the parameter petId"),
        ("getPet", {"petId": 1, "more": 2}, "no parameter more"),
        ("getPet", {"petId": {}}, "text is expected"),
        ("form", {"a": 1}, "formData"),
    ],
)
def test_what_cannot_be_asked_is_refused(operation: str, parameters: Any, part: str) -> None:
    """F3: what no attempt can help is refused for good."""
    with pytest.raises(Rejected, match=part):
        request_for(SWAGGER, "http://a.b/", operation, parameters)


async def test_an_operation_is_called(serve: Serve, site: Site) -> None:
    """S8: the description is read, the operation called, and it is said what was asked."""
    site.answers["/docs/openapi.json"] = answer(200, json.dumps(OPENAPI).encode(), content_type="application/json")
    site.answers["/api/v1/pet"] = answer(409, b'{"no": 1}', content_type="application/json")
    served = await serve()
    fields = {"document": f"{site.url}/docs/openapi.json", "operation": "putPet", "parameters": {"n": 1}}
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("openapi.call", json.dumps({**fields, "any_status": True})))
        said = json.loads(result.output.json)
        assert (said["status"], said["body"]) == (409, {"no": 1})
        assert said["request"] == {"method": "PUT", "url": f"{site.url}/api/v1/pet"}
        assert site.requests[-1][2] == b'{"n":1}'
        refused = await peer.run(a_request("openapi.call", json.dumps({**fields, "operation": "gone"})))
        assert code(refused) == "HANDLER_REJECTED"
