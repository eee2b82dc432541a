"""The kit's tools on documents of the Serverless Workflow DSL."""

from __future__ import annotations

from tierflow_flow import parse
from tierflow_kit import outlines
from tierflow_kit.comparing import compare
from tierflow_kit.suspicions import suspicions

TEXT = """
document: {dsl: 1.0.3, namespace: shop, name: greet, version: 1.0.0}
do:
  - reach:
      try: [{ask: {call: http, with: {method: get, endpoint: "https://a.b/{id}"}}}]
      catch: {do: [{note: {set: {failed: true}, then: end}}]}
  - tell: {call: echo}
"""


def test_documents_are_drawn() -> None:
    """E5: a document is shown as its tasks, those within tasks below them."""
    assert outlines.tree(parse(TEXT)).splitlines() == [
        "shop.greet@1.0.0",
        "├─ reach           try",
        "│  ├─ ask          http.request",
        "│  └─ catch: note  set, then end",
        "└─ tell            echo",
    ]
    drawn = outlines.mermaid(parse(TEXT))
    assert 'subgraph t1["reach"]' in drawn
    assert "t1 --> t4" in drawn


def test_documents_are_compared() -> None:
    """E5: what changed between two versions is told by task."""
    found = compare(parse(TEXT), parse(TEXT.replace("call: echo", "call: shout")))
    assert any("/do/1/tell" in str(each) for each in found.changes), found
    assert suspicions(parse(TEXT), {}) == []
