"""Everything that can be wrong with a flow, with path, line and words."""

from __future__ import annotations

import pytest
from tierflow_flow import Flow, FlowError, Problem, parse


def problems(text: str, form: str = "yaml") -> list[Problem]:
    """What is wrong with a text."""
    with pytest.raises(FlowError) as caught:
        parse(text, form)
    return caught.value.problems


def only(text: str, form: str = "yaml") -> tuple[str, int, str]:
    """The one problem of a text: path, line, description."""
    found = problems(text, form)
    assert len(found) == 1, found
    return found[0].path, found[0].line, found[0].description


ONE = "name: f\nsteps:\n  a: {call: echo}\n"
"""A flow without problems; lines are added."""


@pytest.mark.parametrize(
    ("lines", "path", "description"),
    [
        ("nmae: x", "nmae", "unknown key; did you mean name?"),
        ("zzzzzz: x", "zzzzzz", "unknown key"),
        ("version: 1.0", "version", "expected text, found a number; put it in quotes"),
        ("version: ''", "version", "'' is not allowed: letters, digits, '.', '_', '+' and '-'"),
        ("description: [a]", "description", "expected text, found an array"),
        (f"description: {'x' * 5000}", "description", "longer than 4096 characters"),
        ("description:", "description", "has no value; leave the key out"),
        ("input: 3", "input", "expected a JSON Schema (a mapping), found an integer"),
        ("input: {type: object, properties: {a: {type: strin}}}", "input", "no JSON Schema"),
        ("input: {properties: {}, type: array}", "input.type", "the input of a flow is an object"),
        ("input: {a: text}", "input", "no JSON Schema"),
        ("input: {a: {$ref: 'https://example.com/x'}}", "input", "$ref 'https://example.com/x' leads outside"),
        ("input: {a: {$ref: 'file:///etc/passwd'}}", "input", "leads outside"),
        ("input: {a: {$ref: '#/$defs/nothing'}}", "input", "no JSON Schema"),
        ("input: {a: {pattern: '('}}", "input", "no JSON Schema"),
        ("output_schema: {required: 3}", "output_schema", "no JSON Schema"),
        ("defaults: {retries: 3}", "defaults.retries", "unknown key; did you mean retry?"),
        ("defaults: {retry: 3}", "defaults.retry", "expected a mapping, found an integer"),
        ("defaults: {retry: {max_attempts: 101}}", "defaults.retry.max_attempts", "must be from 1 to 100"),
        ("defaults: {retry: {max_attempts: 0}}", "defaults.retry.max_attempts", "must be from 1 to 100"),
        ("defaults: {retry: {max_attempts: 2.5}}", "defaults.retry.max_attempts", "expected a whole number, found a number"),
        ("defaults: {retry: {max_attempts: true}}", "defaults.retry.max_attempts", "expected a whole number, found a boolean"),
        ("defaults: {retry: {factor: 0.5}}", "defaults.retry.factor", "must be from 1 to 100"),
        ("defaults: {retry: {jitter: 2}}", "defaults.retry.jitter", "must be from 0 to 1"),
        ("defaults: {retry: {initial_delay: 5}}", "defaults.retry.initial_delay", "expected a duration such as 500ms"),
        ("defaults: {retry: {max_delay: 25h}}", "defaults.retry.max_delay", "must be from 0us to 1d"),
        ("defaults: {retry: {retry_on: [timeout]}}", "defaults.retry.retry_on[0]", "a failure code such as RATE_LIMITED"),
        ("defaults: {retry: {retry_on: [A], never_retry_on: [A]}}", "defaults.retry", "A is in retry_on and in never_retry_on"),
        ("timeout: 30", "timeout", "expected a duration such as 500ms, 30s, 10m or 1h30m, found an integer"),
        ("timeout: soon", "timeout", "'soon' is no duration"),
        ("timeout: 0s", "timeout", "must be from 1ms to 366d"),
        ("timeout: 9999d", "timeout", "must be from 1ms to 366d"),
        ("concurrency: 0", "concurrency", "must be from 1 to 100000"),
        ("on_failure: fail-fast", "on_failure", "'fail-fast' is not one of fail_fast, continue, pause; did you mean fail_fast?"),
        ("on_failure: 1", "on_failure", "expected one of fail_fast, continue, pause, found an integer"),
        ("navigator: bpmn", "navigator", "'bpmn' is not one of graph, sequence"),
        ("vars: [1]", "vars", "expected a mapping, found an array"),
        ("vars: {a: {b: ['${{ input.x }}']}}", "vars.a.b[0]", "no ${{ }} expressions here; the value is constant"),
        ("env: [A-B]", "env[0]", "'A-B' is not allowed: the name of an environment variable"),
        ("env: [A, A]", "env[1]", "'A' twice"),
        ("env: {A: 1}", "env", "expected a list of texts, found an object"),
        ("output: ${{ steps.a.output + }}", "output", "expected a value, found the end (at character 22 of"),
        ("output: ${{ steps.b.output }}", "output", "unknown step 'b'"),
        ("output: {x: ['${{ item }}']}", "output.x[0]", "item is there only under with and within the steps of a map"),
        ("output: ${{ success() }}", "output", "success() is for if only"),
        ("output: ${{ input.x", "output", "no }} at the end of the expression"),
        ("output: '${{ }}'", "output", "expected a value"),
        ("output: ${{ foo }}", "output", "unknown name 'foo'; known: input, steps, vars, env, run, item, index"),
        ("output: ${{ run.idd }}", "output", "run.idd is not there; run has: correlation_id, created_at, flow"),
        ("output: ${{ vars.x }}", "output", "vars.x is not there; vars has: nothing"),
        ("output: ${{ env.HOME }}", "output", "env.HOME is not among the flow's env: nothing"),
        ("output: ${{ env }}", "output", "env takes the name of a variable, written out"),
        ("output: ${{ env[run.id] }}", "output", "env takes the name of a variable, written out"),
        ("output: ${{ steps }}", "output", "steps takes the id of a step, written out"),
        ("output: ${{ steps[run.id].output }}", "output", "steps takes the id of a step, written out"),
        ("output: ${{ steps.a }}", "output", "steps.a is not there; a step has: output, state, outcome, failure"),
        ("output: ${{ steps.a.outputs }}", "output", "steps.a.outputs is not there; a step has: output, state, outcome, failure"),
        ("? [a]\n: b", "flow", "keys must be plain text"),
        ("vars: {a: !!python/object:os.system x}", "vars.a", "tag tag:yaml.org,2002:python/object:os.system is not allowed"),
        ("vars: !local {a: 1}", "vars", "tag !local is not allowed"),
        ("vars: {a: .inf}", "vars.a", ".inf is out of range"),
        ("vars: {a: 1e999}", "vars.a", "1e999 is out of range"),
        ('vars: {a: "\\0"}', "vars.a", "holds a NUL character"),
        ("vars: {<<: {a: 1}}", "vars", "merge keys (<<) are not supported; write the keys out"),
        ("vars: {a: *nothing}", "flow", "alias *nothing of nothing"),
        ("vars: &a {b: *a}", "flow", "alias *a inside what it stands for"),
    ],
)  # fmt: skip
def test_problem_of_a_flow(lines: str, path: str, description: str) -> None:
    """E2, E5, E15, F8, Q4: each has its path, its line and words that help."""
    found = only(ONE + lines + "\n")
    assert (found[0], found[1]) == (path, 4)
    assert description in found[2]


@pytest.mark.parametrize(
    ("step", "path", "description"),
    [
        ("3", "", "a step is a mapping, such as one with the key call"),
        ("", "", "a step is a mapping, such as one with the key call"),
        ("{}", "", "call is missing: The handler to call."),
        ("{call: 3}", ".call", "expected text, found an integer"),
        ("{call: a..b}", ".call", "'a..b' is not allowed: words joined by dots"),
        (f"{{call: {'x' * 201}}}", ".call", "longer than 200 characters"),
        ("{call: x, whit: {}}", ".whit", "unknown key; did you mean with?"),
        ("{call: x, with: [1]}", ".with", "expected a mapping or one ${{ }} expression, found an array"),
        ("{call: x, with: text}", ".with", "expected a mapping or one ${{ }} expression, found a string"),
        ("{call: x, with: '${{ input }} x'}", ".with", "expected one expression and nothing around it"),
        ("{call: x, with: {a: '${{ item }}'}}", ".with.a", "item is there only under with and within the steps of a map"),
        ("{call: x, map: '${{ item }}'}", ".map", "item is there only under with and within the steps of a map"),
        ("{call: x, map: [1], if: index > 1}", ".if", "index is there only under with and within the steps of a map"),
        ("{call: x, map: {a: 1}}", ".map", "expected a list or one ${{ }} expression, found an object"),
        ("{call: x, map: 'a ${{ input.x }}'}", ".map", "expected a list or one ${{ }} expression, found a string"),
        ("{call: x, map: '${{ input.x }} a'}", ".map", "expected one expression and nothing around it"),
        ("{map: [1]}", "", "call is missing"),
        ("{call: x, concurrency: 3}", ".concurrency", "belongs to steps of kind map"),
        ("{call: x, tolerate: 3}", ".tolerate", "belongs to steps of kind map"),
        ("{call: x, map: [1], tolerate: -1}", ".tolerate", "must be from 0 to"),
        ("{call: x, needs: [z]}", ".needs[0]", "unknown step 'z'"),
        ("{call: x, needs: [first, frist]}", ".needs[1]", "unknown step 'frist'; did you mean first?"),
        ("{call: x, needs: [first, first]}", ".needs[1]", "'first' twice"),
        ("{call: x, needs: {a: 1}}", ".needs", "expected a list of texts"),
        ("{call: x, if: ''}", ".if", "expected one expression"),
        ("{call: x, if: 3}", ".if", "expected an expression, found an integer"),
        ("{call: x, if: 'a ${{ true }}'}", ".if", "expected one expression"),
        ("{call: x, if: '${{ true }} && ${{ true }}'}", ".if", "expected one expression and nothing around it"),
        ("{call: x, if: 'input.x =='}", ".if", "expected a value"),
        ("{call: x, if: steps.frist.output}", ".if", "unknown step 'frist'; did you mean first?"),
        ("{call: x, retry: {max_attempts: 101}}", ".retry.max_attempts", "must be from 1 to 100"),
        ("{call: x, timeout: 31d}", ".timeout", "must be from 1ms to 30d"),
        ("{call: x, on_error: ignore}", ".on_error", "'ignore' is not one of stop, continue"),
        ("{call: x, on_lost: restart}", ".on_lost", "'restart' is not one of retry, fail, ask"),
        ("{call: x, side_effecting: 'yes'}", ".side_effecting", "expected true or false, found a string"),
        ("{call: x, side_effecting: yes}", ".side_effecting", "expected true or false, found a string"),
        ("{call: x, output_schema: {type: 3}}", ".output_schema", "no JSON Schema"),
        ("{call: x, labels: {a: 1}}", ".labels.a", "expected text, found an integer; put it in quotes"),
        ("{call: x, labels: {'a b': c}}", ".labels.a b", "'a b' is not allowed"),
        ("{loop: {}, steps: {a: {call: x}}}", ".loop", "a loop has while, until or for"),
        ("{loop: {for: 3}}", "", "steps is missing"),
        ("{agent: {}}", ".agent", "steps of kind agent are not known; known kinds: "),
        ("{emit: x, on_error: retry}", ".on_error", "steps of kind emit are never retried"),
        ("{call: x, on_error: {goto: nobody}}", ".on_error.goto", "unknown step 'nobody'"),
        ("{call: x, on_error: {goto: a}}", ".on_error.goto", "a step does not handle its own error"),
        ("{call: x, on_error: {goto: first, then: on}}", ".on_error.then", "'on' is not one of continue, retry, stop"),
        ("{map: [1], call: x, on_error: {goto: first, then: retry}}", ".on_error.then", "does not begin again"),
        ("{call: x, compensate: {with: {}}}", ".compensate", "call is missing"),
        ("{call: x, with: {v: '${{ output }}'}}", ".with.v", "output is there only under with of compensate"),
        ("{call: x, with: {v: '${{ last_error }}'}}", ".with.v", "last_error is there only in a step that on_error names"),
        ("{switch: {}}", ".switch", "expected a list of cases, found an object"),
        ("{switch: []}", ".switch", "must have from 1 to 100 cases"),
        ("{switch: [{if: true}]}", ".switch[0]", "then is missing"),
        ("{switch: [{if: true, then: frist}]}", ".switch[0].then[0]", "unknown step 'frist'; did you mean first?"),
        ("{switch: [{if: true, then: first}], default: x}", ".default[0]", "unknown step 'x'"),
        ("{switch: [{if: true, then: a}]}", "", "cycle: a -> a"),
        ("{switch: [{if: 'success()', then: first}]}", ".switch[0].if", "success() is for if only"),
        ("{signal: 'a b'}", ".signal", "'a b' is not allowed"),
        ("{signal: x, schema: {type: 3}}", ".schema", "no JSON Schema"),
        ("{signal: x, timeout: 367d}", ".timeout", "must be from 1ms to 366d"),
        ("{emit: 'a b'}", ".emit", "'a b' is not allowed"),
        ("{emit: x, with: 3}", ".with", "expected a mapping"),
        ("{fail: {message: x}}", ".fail", "code is missing"),
        ("{fail: {code: x}}", ".fail.code", "'x' is not allowed"),
        ("{fail: {code: X, message: '${{ steps.b.state }}'}}", ".fail.message", "unknown step 'b'"),
        ("{wait: 3}", ".wait", "expected a duration such as"),
        ("{wait: 367d}", ".wait", "must be from 0us to 366d"),
        ("{wait: {}}", ".wait", "expected a duration, or a mapping with for or until"),
        ("{wait: {for: 1s, until: x}}", ".wait", "expected a duration, or a mapping with for or until"),
        ("{wait: {until: '2030-01-31T08:00:00'}}", ".wait.until", "is no moment; write one with a time zone"),
        ("{wait: {until: 3}}", ".wait.until", "expected text with a moment, found an integer"),
        ("{wait: '${{ steps.frist.output }}'}", ".wait.for", "unknown step 'frist'"),
        ("{wait: 1s, call: x}", ".wait", "belongs to steps of kind wait"),
        ("{wait: 1s, timeout: 1s}", ".timeout", "belongs to steps of kind"),
        ("{agent: other}", ".agent", "steps of kind agent are not known; known kinds: "),
        ("{flow: f}", ".flow", "f would run itself"),
        ("{flow: f@3}", ".flow", "f would run itself"),
        ("{flow: a b}", ".flow", "is no flow: write name, name@version"),
        ("{call: x, approval: {}}", ".approval", "belongs to steps of kind approval"),
        ("{approval: {}}", ".approval", "names nobody: give users or roles"),
        ("{approval: {users: [a], escalate: {users: [b]}}}", ".approval", "escalate needs timeout"),
    ],
)  # fmt: skip
def test_problem_of_a_step(step: str, path: str, description: str) -> None:
    """E2, E5, E10, F8: each has its path, its line and words that help; a kind that is not known is refused before any work."""
    found = only(f"name: f\nsteps:\n  first: {{call: echo}}\n  a: {step}\n")
    assert (found[0], found[1]) == (f"steps.a{path}", 4)
    assert description in found[2]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """E5: in the order of the text; one mistake does not hide another."""
    text = """\
nmae: f
timeout: 3
steps:
  a: {call: x, needs: [c, nobody]}
  b: {cal: x, timeout: never}
  b: {cal: x, timeout: never}
  c: {agent: {}}
  d: {call: x, with: {v: "${{ steps.c.output }} ${{ nothing }}"}}
output: ${{ steps.b.output }}
"""
    found = [(problem.line, problem.path) for problem in problems(text)]
    assert [line for line, _ in found] == sorted(line for line, _ in found)
    assert sorted(found) == [
        (0, "flow"),
        (1, "nmae"),
        (2, "timeout"),
        (4, "steps.a.needs[1]"),
        (6, "steps.b"),
        (6, "steps.b"),
        (6, "steps.b.cal"),
        (6, "steps.b.timeout"),
        (7, "steps.c.agent"),
        (8, "steps.d.with.v"),
    ]


@pytest.mark.parametrize(
    ("text", "path", "line", "description"),
    [
        ("", "flow", 0, "a flow is a mapping, not null"),
        ("- a", "flow", 0, "a flow is a mapping, not an array"),
        ("text", "flow", 0, "a flow is a mapping, not a string"),
        ("steps: {a: {call: x}}", "flow", 0, "name is missing: The flow's name."),
        ("name: f", "flow", 0, "steps is missing"),
        ("name: f\nsteps:", "steps", 2, "expected a mapping or a list of steps, found null"),
        ("name: f\nsteps: {}", "steps", 2, "a flow has at least one step"),
        ("name: f\nsteps: []", "steps", 2, "a flow has at least one step"),
        ("name: f\nsteps: 3", "steps", 2, "expected a mapping or a list of steps, found an integer"),
        ("name: f\nsteps: [3]", "steps[0]", 2, "a step in a list is a mapping with the key id"),
        ("name: f\nsteps: [{call: x}]", "steps[0]", 2, "a step in a list is a mapping with the key id"),
        ("name: f\nsteps: [{id: 3, call: x}]", "steps[0]", 2, "expected text, found an integer; put it in quotes"),
        ("name: f\nsteps: {a b: {call: x}}", "steps.a b", 2, "'a b' is not allowed: letters, digits"),
        ("name: f\nsteps: {9: {call: x}}", "steps.9", 2, "'9' is not allowed"),
        (f"name: f\nsteps: {{{'x' * 129}: {{call: x}}}}", f"steps.{'x' * 97}...", 2, "longer than 128 characters"),
        ("name: a/b\nsteps: {a: {call: x}}", "name", 1, "'a/b' is not allowed"),
        (f"name: {'x' * 129}\nsteps: {{a: {{call: x}}}}", "name", 1, "longer than 128 characters"),
        ('name: "a\\0"\nsteps: {a: {call: x}}', "name", 1, "holds a NUL character"),
        ("name: f\nname: g\nsteps: {a: {call: x}}", "name", 2, "key 'name' twice; the first is in line 1"),
        ("name: f\nsteps:\n  a: {call: x}\n  a: {call: y}", "steps.a", 4, "key 'a' twice"),
        ("name: f\nsteps:\n- {id: a, call: x}\n- {id: b, call: x}\n- {id: a, call: x}", "steps[2]", 5, "step id 'a' twice; the first is in line 3"),
        ("name: f\n---\nname: g", "flow", 2, "more than one YAML document"),
        ("name: [f", "flow", 2, "not YAML"),
        ("name: f\n\tx: 1", "flow", 2, "not YAML"),
        ("name: f\nsteps: {a: {call: x}}\nvars: {a: ${{ x ? 1 : 2 }}}", "flow", 3, "put expressions with ': '"),
        ("name: f\x00", "flow", 0, "holds a NUL character"),
        ("name: \ud800", "flow", 0, "holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_problem_of_a_text(text: str, path: str, line: int, description: str) -> None:
    """E5, Lesson 28: texts that are no flows at all."""
    found = problems(text)
    assert (found[0].path, found[0].line) == (path, line)
    assert description in found[0].description


@pytest.mark.parametrize(
    ("steps", "cycle"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"a": [], "b": ["a", "d"], "c": ["b"], "d": ["c"], "e": ["d"]}, "b -> c -> d -> b"),
        ({"z": ["a"], "a": ["b"], "b": ["z", "a"]}, "z -> b -> a -> z"),
        ({f"s{i}": [f"s{i - 1}" if i else "s29"] for i in range(30)}, "s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> ... -> s26 -> s27 -> s28 -> s29 -> s0"),
    ],
)  # fmt: skip
def test_cycle_is_named(steps: dict[str, list[str]], cycle: str) -> None:
    """E5: each knot of steps that wait for one another is told once, the way round."""
    lines = "".join(f"  {id_}: {{call: x, needs: {needs}}}\n" for id_, needs in steps.items())
    path, line, description = only(f"name: f\nsteps:\n{lines}")
    assert description == f"cycle: {cycle}"
    first = cycle.split(" ")[0]
    assert (path, line) == (f"steps.{first}", 3 + list(steps).index(first))


def test_cycle_through_expressions_is_found_and_two_cycles_are_two_problems() -> None:
    """E5: what an expression reads is a need."""
    text = """\
name: f
steps:
  a: {call: x, with: {v: "${{ steps.b.output }}"}}
  b: {call: x, if: steps.a.state == "COMPLETED"}
  c: {call: x, needs: [d, a]}
  d: {map: "${{ steps.c.output }}", call: x}
"""
    assert [problem.path for problem in problems(text)] == ["steps.a", "steps.c"]


def test_references_are_checked_where_the_flow_says_what_there_is() -> None:
    """E15: input with a closed schema, vars, env."""
    text = """\
name: f
input: {directory: string}
vars: {limit: 3}
env: [HOME]
steps:
  a:
    call: x
    with:
      good: ${{ input.directory }} ${{ vars.limit }} ${{ env.HOME }} ${{ run.id }} ${{ input }} ${{ vars }}
      bad: ${{ input.dirctory }}
      worse: ${{ vars.limt }}
      worst: ${{ env.HOEM }}
"""
    assert [(problem.line, problem.description.split(", in ")[0]) for problem in problems(text)] == [
        (10, "input.dirctory is not there; input has: directory; did you mean directory?"),
        (11, "vars.limt is not there; vars has: limit; did you mean limit?"),
        (12, "env.HOEM is not among the flow's env: HOME"),
    ]


def test_open_input_is_checked_when_the_run_has_it() -> None:
    """E15: a schema that allows more properties says nothing about the others."""
    assert isinstance(parse(ONE + "input: {type: object}\noutput: ${{ input.anything }}\n"), Flow)
    assert isinstance(parse(ONE + "output: ${{ input.anything }}\n"), Flow)


@pytest.mark.parametrize(
    ("text", "line", "description"),
    [
        ("", 1, "expected a value"),
        ("{", 1, "expected a key in double quotes"),
        ('{"a": 1,}', 1, "expected a key in double quotes"),
        ("{'a': 1}", 1, "expected a key in double quotes"),
        ('{"a" 1}', 1, "expected ':'"),
        ('{"a": 1\n"b": 2}', 2, "expected ',' or '}'"),
        ('{"a": [1 2]}', 1, "expected ',' or ']'"),
        ('{"a": NaN}', 1, "expected a value"),
        ('{"a": 01}', 1, "expected ',' or '}'"),
        ('{"a": "\n"}', 1, "Invalid control character"),
        ('{"a": "\\x"}', 1, "Invalid \\escape"),
        ("{}\n\n{}", 3, "something follows the value"),
        ("[" * 1000, 1, "nested deeper than 64 levels"),
        ('{"a": ' + "9" * 2000 + "}", 1, "a number of more than 1000 digits"),
    ],
)
def test_problem_of_a_json_text(text: str, line: int, description: str) -> None:
    """E5: JSON is read strictly, with lines."""
    found = problems(text, "json")
    assert found[0].line == line
    assert description in found[0].description


def test_json_has_lines_and_duplicates_too() -> None:
    """E5: the same problems as in YAML, at their lines."""
    text = """{
  "name": "f", "name": "g",
  "timeout": 1e999,
  "description": "\\ud800",
  "steps": {"a":
    {"call": "x", "with": {"b": [1,
      "${{ foo }}"]}}}
}"""
    assert [(problem.line, problem.path) for problem in problems(text, "json")] == [
        (2, "name"),
        (3, "timeout"),
        (3, "timeout"),
        (4, "description"),
        (7, "steps.a.with.b[1]"),
    ]


def test_form_that_is_not_known_is_refused() -> None:
    """E2: before any work."""
    assert only(ONE, "toml")[2] == "unknown form 'toml'; known: yaml, json"
