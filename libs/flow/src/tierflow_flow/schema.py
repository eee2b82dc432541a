"""The published JSON Schema of flows, for editors, made from the table of keys: `python -m tierflow_flow.schema > schema/flow.schema.json`.

It accepts every flow that `parse` accepts. What it cannot say (cycles, references, expressions) only `parse` checks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tierflow_flow.keys import COMPENSATE, FLOW, RETRY, STEP_NAME
from tierflow_flow.kind_shapes import OnError
from tierflow_flow.kinds import step_schema
from tierflow_flow.limits import MAX_STEPS

ID = "https://tierflow.dev/schema/flow.schema.json"


def flow_schema() -> dict[str, Any]:
    """The JSON Schema of a flow's text, draft 2020-12."""
    schema = _shared(FLOW.schema)
    steps = {
        "oneOf": [
            {
                "type": "object",
                "propertyNames": STEP_NAME.schema,
                "additionalProperties": {"$ref": "#/$defs/step"},
                "minProperties": 1,
                "maxProperties": MAX_STEPS,
            },
            {"type": "array", "items": {"$ref": "#/$defs/listed_step"}, "minItems": 1, "maxItems": MAX_STEPS},
        ]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Tierflow flow",
        **schema,
        "$defs": {
            "retry": RETRY.schema,
            "compensate": _shared(COMPENSATE.schema),
            "on_error": OnError(STEP_NAME).schema,
            "steps": steps,
            "step": _shared(step_schema(listed=False)),
            "listed_step": _shared(step_schema(listed=True)),
        },
    }


_EVERYWHERE = ("retry", "steps", "compensate", "on_error")


def _shared(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with what is the same everywhere put under `$defs`."""
    for name, inner in schema.get("properties", {}).items():
        if name in _EVERYWHERE:
            default = {"default": inner["default"]} if "default" in inner else {}
            schema["properties"][name] = {
                "$ref": f"#/$defs/{name}",
                "description": inner["description"],
                **default,
            }
        elif name == "defaults":
            _shared(inner)
    for kind in schema.get("anyOf", ()):
        _shared(kind)
    return schema


def flow_schema_text() -> str:
    """The text of the published file."""
    return json.dumps(flow_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(flow_schema_text())
