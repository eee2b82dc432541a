"""JSON Schemas."""

import http.server
import pathlib
import threading

import pytest
from tierflow_runtime.schema import compile_schema
from tierflow_runtime.values import FailureError

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "required": ["sku"], "properties": {"count": {"type": "integer"}}},
        },
    },
    "required": ["id"],
}


def test_violations_have_paths() -> None:
    """F20: everything that does not match is listed with the path of the value."""
    found = compile_schema(ORDER).violations({"lines": [{"sku": "a"}, {"count": "3"}]}, at="input")
    assert {(one.field, one.description) for one in found} == {
        ("input", '"id" is a required property'),
        ("input.lines[1]", '"sku" is a required property'),
        ("input.lines[1].count", '"3" is not of type "integer"'),
    }


def test_what_matches() -> None:
    """F20: a value that matches has no violations."""
    schema = compile_schema(ORDER)
    assert schema.accepts({"id": "x", "lines": []})
    assert schema.violations({"id": "x"}) == []
    assert not schema.accepts([])
    assert [one.field for one in schema.violations([])] == ["(root)"]


def test_schemas_are_compiled_once() -> None:
    """E1: equal schemas, as text or value, in any order of their keys, are one compiled object per text."""
    assert compile_schema({"type": "string", "minLength": 3}) is compile_schema({"minLength": 3, "type": "string"})
    assert compile_schema('{"type":"string"}') is compile_schema('{"type":"string"}')
    assert compile_schema(True).accepts(3)
    assert not compile_schema(False).accepts({})


def test_references_within_the_schema() -> None:
    """F20: references to its own definitions are followed."""
    schema = compile_schema({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}})
    assert schema.accepts(3)
    assert not schema.accepts("3")


@pytest.mark.parametrize(
    "text", ["{", '{"type": "nope"}', '{"minimum": "x"}', '{"pattern": "("}', "3", '{"$ref": "#/nowhere"}']
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    """F20: a schema that is none is refused when it is given, not when it is used."""
    with pytest.raises(FailureError) as caught:
        compile_schema(text)
    assert caught.value.failure.code == "INVALID_REQUEST"
    assert caught.value.failure.violations[0].description


def test_nothing_is_fetched(tmp_path: pathlib.Path) -> None:
    """L15: references to the network and to files are refused, and neither is touched: a server that would answer hears nothing."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "integer"}')

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (tmp_path / "s.json").write_text('{"type": "integer"}')
    try:
        for uri in (f"http://127.0.0.1:{server.server_port}/s.json", f"file://{tmp_path}/s.json", "other.json"):
            with pytest.raises(FailureError) as caught:
                compile_schema({"$ref": uri})
            assert uri in caught.value.failure.violations[0].description
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == []


def test_long_messages_are_cut() -> None:
    """F29: a violation does not carry a megabyte of the value that it is about."""
    found = compile_schema({"type": "integer"}).violations("x" * 100_000)
    assert len(found[0].description) <= 300
    many = compile_schema({"items": {"type": "integer"}}).violations(["x"] * 5000)
    assert len(many) == 100
