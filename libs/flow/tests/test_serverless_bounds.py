"""Whatever a document of the Serverless Workflow DSL holds, it is compiled or refused with its problems; nothing else is raised."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tierflow_flow import FlowError, from_canonical, parse

HTTP = {
    "method": "get",
    "endpoint": {"uri": "https://a.b/{c}", "authentication": {"use": "who"}},
    "query": {"q": "${ .q }"},
}
DOCUMENT: dict[str, Any] = {
    "document": {"dsl": "1.0.3", "namespace": "n", "name": "d", "version": "1.0.0", "tags": {}, "summary": "s"},
    "input": {"schema": {"document": {"type": "object"}}, "from": "."},
    "use": {
        "authentications": {"who": {"basic": {"use": "s"}}},
        "errors": {"no": {"type": "https://a.b/no", "status": 400, "title": "No"}},
        "functions": {"f": {"call": "http", "with": HTTP}},
        "retries": {"r": {"delay": {"seconds": 1}, "backoff": {"exponential": {}}, "limit": {"attempt": {"count": 2}, "duration": "PT1M"}}},
        "secrets": ["s"],
        "timeouts": {"t": {"after": "PT1S"}},
    },
    "timeout": "t",
    "do": [
        {"a": {"set": {"x": "${ .a }"}, "if": ".a", "then": "c", "output": {"as": ".x"}, "export": {"as": "{x: .}"}}},
        {"b": {"call": "f", "with": {"c": 1}, "timeout": {"after": {"seconds": 5}}}},
        {"c": {"try": [{"d": {"raise": {"error": "no"}}}], "catch": {"errors": {"with": {"status": 400}}, "as": "e", "retry": "r", "do": [{"n": {"set": "${ $e }"}}]}}},
        {"e": {"for": {"each": "i", "in": ".x", "at": "n"}, "while": "$n < 3", "do": [{"g": {"wait": {"seconds": 1}}}]}},
        {"h": {"fork": {"compete": True, "branches": [{"i": {"do": []}}, {"j": {"run": {"shell": {"command": "ls", "arguments": ["a"]}}}}]}}},
        {"k": {"switch": [{"one": {"when": ".a == 1", "then": "end"}}, {"rest": {"then": "continue"}}]}},
        {"l": {"listen": {"to": {"any": [{"with": {"type": "t", "data": "${ . > 1 }"}, "correlate": {"k": {"from": ".k"}}}], "until": {"one": {"with": {"type": "u"}}}}, "read": "envelope"}, "foreach": {"item": "v", "at": "w", "do": [{"m": {"set": {"v": "${ $v }"}}}]}}},
        {"o": {"emit": {"event": {"with": {"source": "https://a.b", "type": "t", "data": {"x": "${ .x }"}}}}}},
        {"p": {"run": {"script": {"language": "python", "code": "print(1)"}, "return": "all"}}},
        {"q": {"run": {"workflow": {"namespace": "n", "name": "m", "version": "latest", "input": {"a": 1}}}}},
    ],
    "output": {"as": "."},
}  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=6),
    st.sampled_from(["${ .a }", "${ .a + }", "${ $e }", "", "a", "PT5S", "P1Y", "https://x.y/{z}", "end", "${", "e/f", "x" * 300, "flow:a"]),
    st.lists(st.sampled_from([1, "a", None, {}, [], {"a": 1}]), max_size=2),
    st.sampled_from([{}, {"a": 1}, {"use": "x"}, {"call": "http"}, {"set": {}}, {"do": []}, {"a": {"do": [{"b": {"set": "."}}]}}]),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _places(item, (*path, key))
    return found


PLACES = _places(DOCUMENT)


def test_the_document_as_it_is_is_sound() -> None:
    """E5: what the test changes is sound before; its canonical form is itself a document, and the same."""
    flow = parse(json.dumps(DOCUMENT), "json")
    assert from_canonical(flow.canonical).hash == flow.hash
    assert (flow.name, flow.navigator, flow.subflows) == ("n.d", "serverless", True)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["put", "drop", "add"]), ODD, st.text(max_size=4)),
        min_size=1,
        max_size=3,
    )
)
def test_a_document_is_compiled_or_refused(changes: list[tuple[tuple[Any, ...], str, Any, str]]) -> None:
    """E5, Lesson 28: every text is a flow or a FlowError that says where it is wrong."""
    document = copy.deepcopy(DOCUMENT)
    for path, how, value, name in changes:
        _change(document, path, (how, value, name))
    try:
        flow = parse(json.dumps(document), "json")
    except FlowError as error:
        problems = error.problems
    else:
        assert from_canonical(flow.canonical).hash == flow.hash
        return
    assert problems
    assert all(problem.path and problem.description for problem in problems)


def _change(document: Any, path: tuple[Any, ...], change: tuple[str, Any, str]) -> None:
    how, value, name = copy.deepcopy(change)
    holder = document
    try:
        for key in path[:-1]:
            holder = holder[key]
        if how == "put":
            holder[path[-1]] = value
        elif how == "drop":
            del holder[path[-1]]
        elif isinstance(holder[path[-1]], dict):
            holder[path[-1]][name] = value
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away
