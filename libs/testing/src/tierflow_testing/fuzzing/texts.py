"""Flows and expressions that nobody should write: valid ones mutated, and grammar run wild. Reading them is bounded in time and memory, and only ever refuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from tierflow_expressions.functions import FUNCTIONS

from tierflow_testing.fuzzing.values import TEXTS

FLOWS: tuple[str, ...] = (
    'name: f\nversion: "1"\nsteps:\n  a: {call: echo, with: {x: "${{ input.x }}"}}\n  b: {call: echo, needs: a, if: steps.a.output.x > 1}\noutput: ${{ steps.b.output }}\n',
    'name: f\ninput: {n: {type: integer, default: 3}, l: {type: array, items: {type: string}}}\nsteps:\n  m:\n    map: ${{ range(input.n) }}\n    concurrency: 2\n'
    "    tolerate: 1\n    call: echo\n    with: {i: '${{ index }}', v: '${{ item }}'}\n    retry: {max_attempts: 5, initial_delay: 1s, factor: 2, jitter: 0.1}\n",
    "name: f\nnavigator: sequence\non_failure: continue\ndefaults: {timeout: 1m, retry: {max_attempts: 2}}\nvars: {a: 1, b: [1, 2, {c: d}]}\nenv: [HOME]\nsteps:\n"
    "  - {id: one, call: echo, timeout: 500ms, heartbeat_timeout: 1s}\n  - {id: two, call: echo, on_error: continue, on_lost: ask, labels: {a: b}}\n",
    '{"name": "f", "steps": {"a": {"call": "echo", "with": {"x": [1, 2.5, null, true, {"y": "${{ vars }}"}]}, "output_schema": {"type": "object"}}}}',
)  # fmt: skip
FRAGMENTS: tuple[str, ...] = (
    "${{ ", " }}", "${{", "$${{", "{", "}", "[", "]", ":", ": ", ",", "-", "- ", "\n", "\n  ", "\n    ", "#", '"', "'", "&a ", "*a", "<<: *a", "!!python/object:os.system ", "!!binary ",
    "? ", "|", ">", "|-\n  x", "%YAML 1.1\n---\n", "---\n", "...\n", "\t", "\r", "\x85", "\u2028", "\ufeff", "\0", "\x07", "\\ud800", '"\\ud800"', '"\\x00"', "~", "null", "yes", "0o17",
    "1_000", ".inf", "-.inf", ".nan", "1e999", "99999999999999999999999", "2001-12-14t21:59:43.10-05:00", "with", "steps", "call", "needs", "if", "map", "retry", "input", "output", "$ref",
    "http://127.0.0.1:1/x", "file:///etc/passwd", "__class__", "__proto__", "constructor",
)  # fmt: skip
SCHEMAS: tuple[dict[str, Any], ...] = (
    {"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, {"$ref": "http://127.0.0.1:1/schema"}, {"$ref": "file:///etc/passwd"}, {"type": "nonsense"},
    {"pattern": "(a+)+$", "type": "string"}, {"pattern": "("}, {"allOf": [{"$ref": "#"}]}, {"type": "object", "properties": {"x": {"$ref": "#"}}}, {"enum": []}, {"minimum": "a"},
    {"multipleOf": 0}, {"maxLength": -1}, {"$schema": "http://json-schema.org/draft-04/schema#"}, {"$id": "http://x/", "$ref": "y"}, {"const": 1e308}, {"not": {"not": {"not": {}}}},
)  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in")
ATOMS: tuple[str, ...] = (
    "1", "0", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615u", "1e308", "1.5", "true", "false", "null", '"a"', "''", '"\\u0000"', '"\\ud800"', '"\\x41"', "r'\\d'",
    "b'a'", "[]", "{}", "[1, 2, 3]", '{"a": 1}', "input", "input.n", "input.list", "input.text", "input.deep", "steps.a.output", "vars.big", "run.id", "env.HOME", "item", "index", "nothing", "x",
    "input.nothing", "input['n']", "input.list[0]", "input.list[99]", "input.list[-1]", "size", "__class__", "input.__class__", "success()", "always()",
)  # fmt: skip
SCOPE: dict[str, Any] = {
    "input": {"n": 3, "list": list(range(100)), "text": "a" * 10_000, "deep": {"a": {"b": {"c": [1, {"d": None}]}}}}, "steps": {"a": {"output": {"x": 1}, "state": "COMPLETED"}},
    "vars": {"big": [["x" * 100] * 100] * 20}, "run": {"id": "r"}, "env": {"HOME": "/"}, "item": 1, "index": 0,
}  # fmt: skip
"""Names and values that expressions may look at."""


def flow_text(chance: random.Random) -> tuple[str, str]:
    """A text, and the form that it is said to have."""
    ways: Sequence[Callable[[random.Random], str]] = (
        _cut,
        _spliced,
        _spliced,
        _swapped_lines,
        _changed,
        _changed,
        _repeated,
        _junk,
        _with_schema,
        _with_expression,
    )
    form = chance.choice(("yaml", "yaml", "json"))
    return chance.choice(ways)(chance)[:2_000_000], form


def expression(chance: random.Random, depth: int = 0) -> str:
    """An expression by its grammar, more or less."""
    way = chance.random()
    if depth > 5 or way < 0.2:
        return chance.choice(ATOMS)
    inner = [expression(chance, depth + 1) for _ in range(3)]
    name = chance.choice(
        (*FUNCTIONS, "map", "filter", "all", "exists", "exists_one", "has", "default", "matches", "eval", "type")
    )
    shapes = (
        f"{inner[0]} {chance.choice(OPERATORS)} {inner[1]}",
        f"({inner[0]})",
        f"!{inner[0]}",
        f"-{inner[0]}",
        f"{inner[0]} ? {inner[1]} : {inner[2]}",
        f"[{', '.join(inner)}]",
        f"{{{inner[0]}: {inner[1]}, {inner[2]}: {inner[0]}}}",
        f"{inner[0]}[{inner[1]}]",
        f"{inner[0]}.{chance.choice(('a', 'output', 'x', '__class__', '0'))}",
        f"{name}({', '.join(inner[: chance.randint(0, 3)])})",
        f"{inner[0]}.{name}({inner[1]})",
        f"{inner[0]}.{name}(x, {inner[1]})",
        f"{inner[0]}.map(x, {inner[1]}.map(x, {inner[2]}))",
        f"{inner[0]} + {inner[0]} + {inner[0]} + {inner[0]}",
    )
    text = chance.choice(shapes)
    return _damaged(chance, text) if chance.random() < 0.08 else text


def hostile_expressions() -> Sequence[str]:
    """Expressions that are cheap to write and would be dear to evaluate."""
    x = "input.text"
    doubled = x
    for _ in range(12):
        doubled = f"({doubled} + {doubled})" if len(doubled) < 2_000 else doubled
    ranges = "range(100000)"
    return (
        doubled,
        f"{ranges}.map(x, {ranges}.map(y, x * y))",
        f"{ranges}.map(a, {ranges})",
        f"{ranges}.filter(a, {ranges}.exists(b, b == -a))",
        f"{ranges} == {ranges}",
        f"join({ranges}.map(a, {x}), {x})",
        f'replace({x}, "a", {x})',
        f'replace(replace({x}, "a", {x}), "a", {x})',
        f'split({x}, "")',
        f'split({x}, "a").map(a, {x})',
        "json(vars.big) + json(json(vars.big)) + json(json(json(vars.big)))",
        f"from_json(json({ranges}))",
        'from_json("' + "[" * 1_500 + "]" * 1_500 + '")',
        'from_json("' + "[" * 200 + '")',
        "range(9223372036854775807)",
        "range(-9223372036854775808, 9223372036854775807)",
        "9223372036854775807 * 9223372036854775807",
        "9223372036854775807 + 1",
        "-(-9223372036854775808)",
        "-9223372036854775808 / -1",
        "1 / 0",
        "1 % 0",
        "1e308 * 1e308",
        'int("' + "9" * 4_000 + '")',
        'double("' + "9" * 4_000 + '")',
        'int("' + "٣" * 100 + '")',
        "string(vars.big)",
        "upper(lower(upper(input.text + input.text)))",
        "[" * 200 + "]" * 200,
        "(" * 300 + "1" + ")" * 300,
        "!" * 1_000 + "true",
        "-" * 1_000 + "1",
        "a" + ".b" * 1_500,
        "input" + "[0]" * 1_000,
        "1" + " + 1" * 1_500,
        "true" + " ? true : true" * 300,
        "true" + " || true" * 800,
        '"' + "\\u0041" * 600 + '"',
        "[" + ", ".join(["1"] * 1_300) + "]",
        "input.list.map(a, input.list.map(b, input.list.map(c, a * b * c)))",
        "input.list.map(x, x).map(x, [x, x, x]).map(x, [x, x, x]).map(x, [x, x, x])",
        "min(input.list.map(a, input.list))",
        "keys({" + ", ".join(f'"{n}": 1' for n in range(400)) + "})",
    )


# --- ways to spoil a flow ---


def _cut(chance: random.Random) -> str:
    text = chance.choice(FLOWS)
    return text[: chance.randint(0, len(text))]


def _spliced(chance: random.Random) -> str:
    text = chance.choice(FLOWS)
    for _ in range(chance.choice((1, 2, 5))):
        place = chance.randint(0, len(text))
        text = (
            text[:place]
            + chance.choice((*FRAGMENTS, chance.choice(TEXTS)))
            + text[place + chance.choice((0, 0, 1, 5)) :]
        )
    return text


def _swapped_lines(chance: random.Random) -> str:
    lines = "".join(chance.sample(FLOWS, 2)).splitlines()
    chance.shuffle(lines)
    return "\n".join(lines[: chance.randint(1, len(lines))])


def _repeated(chance: random.Random) -> str:
    return chance.choice(FLOWS[:3]) + chance.choice(FRAGMENTS) * chance.choice((10, 1_000, 20_000))


def _junk(chance: random.Random) -> str:
    return "".join(chance.choice(FRAGMENTS) for _ in range(chance.choice((3, 30, 300))))


def _document(chance: random.Random) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FLOWS[3])
    document["input"] = {"type": "object", "properties": {"x": {"type": "integer"}}}
    document["steps"]["b"] = {"call": "echo", "needs": ["a"], "retry": {"max_attempts": 3}, "timeout": "1s"}
    return document


def _value(chance: random.Random, depth: int = 0) -> Any:
    plain: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        0.1,
        [],
        {},
        chance.choice(TEXTS),
        f"${{{{ {expression(chance, 4)} }}}}",
        chance.choice(SCHEMAS),
        "1s",
        "-5m",
        "9" * 40 + "d",
    )
    if depth < 3 and chance.random() < 0.3:
        return chance.choice(([_value(chance, depth + 1)] * 3, {chance.choice(TEXTS): _value(chance, depth + 1)}))
    return chance.choice(plain)


def _changed(chance: random.Random) -> str:
    """A document that is read, with values of any kind in any place."""
    document = _document(chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place: Any = document
        while isinstance(place, dict) and place:
            key = chance.choice(list(place))
            if chance.random() < 0.35 or not isinstance(place[key], dict) or not place[key]:
                name = key if chance.random() < 0.8 else chance.choice((*TEXTS, *FRAGMENTS))
                place[name] = _value(chance)
                break
            place = place[key]
    return json.dumps(document)


def _with_schema(chance: random.Random) -> str:
    document = _document(chance)
    document[chance.choice(("input", "output_schema"))] = chance.choice(SCHEMAS)
    document["steps"]["a"]["output_schema"] = chance.choice(SCHEMAS)
    return json.dumps(document)


def _with_expression(chance: random.Random) -> str:
    document = _document(chance)
    text = chance.choice((expression(chance), chance.choice(hostile_expressions())))
    step = document["steps"][chance.choice(("a", "b"))]
    step[chance.choice(("with", "if", "map"))] = chance.choice((text, f"${{{{ {text} }}}}"))
    return json.dumps(document)


def _damaged(chance: random.Random, text: str) -> str:
    place = chance.randint(0, len(text))
    return text[:place] + chance.choice(FRAGMENTS) + text[place + chance.choice((0, 1, 3)) :]
