"""Expressions that somebody writes to use up an orchestrator: each ends soon and stays small, measured in a process of its own."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import subprocess
import sys
import time

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.evaluate import Frame
from tierflow_expressions.expressions import compile_expression
from tierflow_expressions.functions import measure
from tierflow_expressions.lexer import ExpressionSyntaxError
from tierflow_expressions.scope import PlainScope
from tierflow_flow.jq import compile_jq
from tierflow_flow.jq.errors import JqSyntaxError

SECONDS = 3.0
"""Processor time that one expression may take here, at most; in an orchestrator it holds up everything else."""
MEMORY = 256 << 20
"""Bytes by which the process may have grown after all of them."""
DRAWN = 400

_DOUBLED = "range(30).map(x, join([input.long, input.long]))"
CEL = [
    "range(100000).map(a, range(100000).map(b, range(100000)))",
    "range(99999).filter(x, input.many.exists(y, y == x))",
    "json(json(json(json(json(json(json(json(input.many))))))))",
    "replace(replace(replace(input.long, 'x', input.long), 'x', input.long), 'x', input.long)",
    "split(input.long, '').map(x, input.long)",
    "join(range(100000).map(x, string(x)), input.long)",
    "join(split(join(split(join(split(input.long, ''), input.long), ''), input.long), ''), input.long)",
    f"{_DOUBLED}.map(x, x + x + x + x + x + x + x + x)",
    "range(100000).exists_one(x, json(input.many) == json(input.deep))",
    "from_json(json(input.many)).map(x, from_json(json(input.deep)))",
    "input.deep == input.deep && range(100000).all(x, input.deep == input.deep)",
    "size(" * 60 + "input.many" + ")" * 60,
    " + ".join(["input.long"] * 800),
    "range(100000).map(x, keys(input.wide))",
    "range(100000).map(x, {'a': {'b': {'c': input.wide}}})",
    "9223372036854775807 * 9223372036854775807",
    "input.huge * input.huge * input.huge * input.huge",
    "string(input.huge) + string(input.huge)",
    "int(input.digits) + 1",
    "range(100000).map(x, upper(lower(trim(input.long))))",
]
JQ = [
    "[range(1e5)] | map([range(1e5)])",
    "def f(x): [x, x, x, x]; f(f(f(f(f(f(f(f(f(f(f(f(1))))))))))))",
    '"x" * 1e6 * 1e6',
    'reduce range(60) as $i ("ab"; . + .)',
    "reduce range(60) as $i ({}; {a: ., b: .}) | tojson",
    '[limit(1e6; repeat("x"))] | add',
    ".long | explode | map([., .]) | flatten | implode * 100000",
    '.long | [splits("")] | combinations',
    '.long | test("(x+x+)+y")',
    '.long | test("^(([a-z])+.)+[A-Z]([a-z])+$")',
    '.long | gsub("x"; "xxxxxxxxxxxxxxxx") | gsub("x"; "xxxxxxxxxxxxxxxx") | gsub("x"; "xxxxxxxxxxxxxxxx")',
    "[.many[] as $a | .many[] as $b | .many[] as $c | $a + $b + $c]",
    "path(..)|tojson",
    "[paths] | length | range(. * 1e6)",
    ".many | sort_by([range(1e4)])",
    ".many | group_by(tojson) | map(tojson) | map(tojson) | map(tojson) | tojson",
    "pow(pow(10; 300); 300) | tojson",
    ".deep | [recurse] | map(tojson) | add",
    "def f: def g: f; g; f",
    '"\\(range(1e6))"',
    "[range(0; 1e9; 1e-9)]",
    '@base64 "\\(.long * 1e5)"',
    "input_line_number, env, $ENV, input",
]


def values() -> dict[str, object]:
    """What the expressions see."""
    deep: object = 1
    for _ in range(60):
        deep = {"a": deep, "b": [1, 2]}
    return {
        "long": "x" * 10_000, "many": list(range(3_000)), "deep": deep, "wide": {f"k{n}": n for n in range(2_000)}, "huge": 10**300,
        "digits": "9" * 5_000,
    }  # fmt: skip


def drawn(chance: random.Random, depth: int = 0) -> str:
    """A well-formed CEL expression of nested loops over what is large."""
    if depth > 4 or chance.random() < 0.15:
        return chance.choice(("input.long", "input.many", "input.wide", "range(100000)", "1", "'x'", "input.deep"))
    inner = [drawn(chance, depth + 1) for _ in range(2)]
    form = chance.choice(
        ("({}).map(v, {})", "({}).filter(v, size(json({})) > 3)", "({}).all(v, ({}) != v)", "json([{}, {}])", "({}) + ({})", "replace(string({}), 'x', json({}))",
         "join([json({}), json({})], 'y')", "split(json({}), string({}))", "[{}, {}]", "{{'a': {}, 'b': {}}}", "(({}) == ({}))", "from_json(json([{}, {}]))", "keys({{'a': {}, 'b': {}}})")
    )  # fmt: skip
    return form.format(*inner)


def run_all(seed: int) -> list[tuple[str, float]]:
    """Every expression with the processor time that it took, compiling included."""
    given = json.loads(json.dumps(values()))
    scope = PlainScope({"input": given})
    chance = random.Random(seed)

    def cel(text: str) -> None:
        frame = Frame(scope)
        measure(frame, compile_expression(text).evaluate(frame))

    def jq(text: str) -> None:
        compile_jq(text).all(given)

    took = []
    for text, evaluate in [(text, cel) for text in (*CEL, *(drawn(chance) for _ in range(DRAWN)))] + [
        (text, jq) for text in JQ
    ]:
        start = time.process_time()
        with contextlib.suppress(ExpressionError, ExpressionSyntaxError, JqSyntaxError):
            evaluate(text)
        took.append((text, time.process_time() - start))
    return took


def test_hostile_expressions_end_soon_and_stay_small() -> None:
    """E2, E10, Lesson 27: loops within loops, texts that double, patterns that backtrack: each is over or refused, in bounded time and memory."""
    for seed in (1, 2):
        command = [sys.executable, __file__, str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout)
        assert found["slow"] == []
        assert found["grown"] < MEMORY


if __name__ == "__main__":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    results = run_all(int(sys.argv[1]))
    slow = [(text[:200], round(seconds, 2)) for text, seconds in results if seconds > SECONDS]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"slow": slow, "grown": grown, "dearest": max(results, key=lambda each: each[1])[1]}))
