"""Lint: what is wrong and what is suspicious, with places. See G1, E5 and docs/flow-tools.md."""

from __future__ import annotations

import pathlib
import re
import tempfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_kit.comparing import compare
from tierflow_kit.findings import Finding, frame, github
from tierflow_kit.linting import UNKNOWN_HANDLER, lint, looks_like_one
from tierflow_kit.outlines import mermaid, tree
from tierflow_kit.positions import Positions, Span

ROOT = pathlib.Path(__file__).parents[3]


def found(tmp_path: pathlib.Path, text: str, name: str = "f.yaml") -> list[Finding]:
    path = tmp_path / name
    path.write_text(text)
    return lint(path).findings


def short(findings: list[Finding]) -> list[tuple[int, int, int, str, str]]:
    return [(each.line, each.column, each.width, each.code, each.message) for each in findings]


BROKEN = """\
name: bad
steps:
  a:
    call: echo
    whit: {x: 1}
  b:
    call: echo
    needs: [c]
    with: {x: "${{ steps.a.ouput.x }}", y: "${{ input.who + }}"}
    timeout: 30
  cc: {call: echo, if: a >}
  d: {call: echo, needs: [e]}
  e: {call: echo, needs: [d]}
"""


def test_everything_wrong_has_its_place(tmp_path: pathlib.Path) -> None:
    """E5: each problem has line and column of what is wrong, within expressions too, and a hint apart."""
    findings = found(tmp_path, BROKEN)
    assert short(findings) == [
        (5, 5, 4, "invalid", "unknown key"),
        (8, 13, 1, "invalid", "unknown step 'c'"),
        (9, 20, 15, "invalid", "steps.a.ouput is not there"),
        (9, 61, 1, "invalid", "expected a value, found the end (at character 17 of '${{ input.who + }}')"),
        (10, 14, 2, "invalid", "expected a duration such as 500ms, 30s, 10m or 1h30m, found an integer"),
        (11, 27, 1, "invalid", "expected a value, found the end (at character 9 of '${{ a > }}')"),
        (12, 6, 24, "invalid", "cycle: d -> e -> d"),
    ]
    lines = BROKEN.splitlines()
    marked = [lines[each.line - 1][each.column - 1 : each.column - 1 + each.width] for each in findings]
    assert marked[:3] == ["whit", "c", "steps.a.ouput.x"]
    assert marked[4] == "30"
    assert [each.hint for each in findings[:2]] == ["did you mean with?", "did you mean cc?"]
    assert {each.severity for each in findings} == {"error"}


def test_the_frame_shows_the_line_and_marks_it(tmp_path: pathlib.Path) -> None:
    """E5: people see what is meant without opening the file."""
    first = found(tmp_path, BROKEN)[0]
    assert frame(first, BROKEN.split("\n")).splitlines() == [
        "4 |     call: echo",
        "5 |     whit: {x: 1}",
        "  |     ^^^^",
        "  = did you mean with?",
    ]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("name: f\nsteps: {a: [\n", 3, 1),
        ("name: f\n  steps: x\n", 2, 8),
        ("a: b\n---\nc: d\n", 2, 1),
        ("", 1, 1),
        ("- 1\n", 1, 1),
    ],
)
def test_texts_that_are_no_flow_have_a_place_too(tmp_path: pathlib.Path, text: str, line: int, column: int) -> None:
    """E5: syntax errors point to where the parser gave up; nothing raises."""
    [finding, *_] = found(tmp_path, text)
    assert (finding.line, finding.column, finding.severity) == (line, column, "error")


def test_bytes_that_are_no_text_are_refused(tmp_path: pathlib.Path) -> None:
    """E5: a file in another coding is an error, not a crash."""
    (tmp_path / "f.yaml").write_bytes(b"name: \xff\xfe")
    [finding] = lint(tmp_path / "f.yaml").findings
    assert "UTF-8" in finding.message


def test_json_has_places(tmp_path: pathlib.Path) -> None:
    """E5: JSON is the same document."""
    [finding] = found(tmp_path, '{"name": "f",\n "steps": {"a": {"call": "h",\n  "whit": 1}}}', "f.json")
    assert (finding.line, finding.column, finding.message) == (3, 3, "unknown key")


def test_expressions_cut_by_commas_are_recognised(tmp_path: pathlib.Path) -> None:
    """E5: within braces a comma ends a value; what is left of an expression is no unknown key to look up, but something to quote."""
    findings = found(tmp_path, "name: f\nsteps:\n  a: {call: h, if: size(f(1, 2)) == 0}\n")
    assert ("unknown key", "put what has commas in quotes, within braces and brackets") in [
        (each.message, each.hint) for each in findings
    ]


def test_steps_in_lists_have_places(tmp_path: pathlib.Path) -> None:
    """E5: the place of a step in a list is its number."""
    text = "name: f\nsteps:\n  - {id: a, call: h, whit: 1}\n  - id: b\n    signal: go\n"
    assert short(found(tmp_path, text)) == [(3, 22, 4, "invalid", "unknown key")]
    assert short(found(tmp_path, text.replace(", whit: 1", ", timeout: 5s"))) == [
        (5, 5, 6, "endless-wait", "b may wait for ever")
    ]


def test_test_files_are_linted(tmp_path: pathlib.Path) -> None:
    """Q24: the same for the cases beside a flow."""
    (tmp_path / "f.yaml").write_text("name: f\nsteps: {a: {call: h}}\n")
    [finding] = found(tmp_path, "cases:\n  - name: a\n    expct: {}\n    expect: {}\n", "f.test.yaml")
    assert (finding.line, finding.column, finding.hint) == (3, 5, "did you mean expect?")


SUSPICIOUS = {
    "endless-wait": ("s: {signal: go}", "s may wait for ever"),
    "unguarded-side-effect": (
        "a: {call: h, timeout: 1s, side_effecting: true}",
        "nothing says what to do when its executor is lost",
    ),
    "default-timeout": ("a: {call: h}", "an attempt at a is stopped after what its handler declares, else 30 s"),
    "never-runs": ("a: {call: h, timeout: 1s, if: false}", "a never runs: its condition is false"),
    "constant-condition": ("a: {call: h, timeout: 1s, if: 1 < 2}", "the condition of a is always true"),
    "unbounded-map": ("a: {map: [1, 2], call: h, timeout: 1s}", "all items of a run at once"),
    "hasty-loop": (
        "a: {loop: {until: steps.b.output}, steps: {b: {call: h, timeout: 1s}}}",
        "a begins its next iteration at once",
    ),
    "idle-heartbeat": (
        "a: {call: h, timeout: 5s, heartbeat_timeout: 5s}",
        "the heartbeat timeout of a is no shorter than its timeout",
    ),
    "other-braces": (
        "a: {call: h, timeout: 1s, with: {x: 'Hello {{ input.who }}'}}",
        "{{ input.who }} is plain text here",
    ),
    "literal-secret": ("a: {call: h, timeout: 1s, with: {password: hunter22}}", "password looks like a secret"),
}


@pytest.mark.parametrize("code", SUSPICIOUS)
def test_suspicious_things_are_named(tmp_path: pathlib.Path, code: str) -> None:
    """E5: each suspicion on the smallest flow that shows it, and nothing else; a comment silences it by its name."""
    step, message = SUSPICIOUS[code]
    text = f"name: f\nsteps:\n  {step}\n"
    [finding] = found(tmp_path, text)
    assert finding.code == code
    assert message in finding.message
    assert finding.severity in ("warning", "note")
    assert found(tmp_path, f"name: f\nsteps:\n  {step} # lint: ignore {code}\n") == []
    assert found(tmp_path, f"name: f\nsteps:\n  # lint: ignore\n  {step}\n") == []
    assert len(found(tmp_path, f"name: f\nsteps:\n  {step} # lint: ignore other-thing\n")) == 1


def test_inputs_that_nobody_declares(tmp_path: pathlib.Path) -> None:
    """E15: what expressions read of the input is checked where the flow says what it takes."""
    text = "name: f\nsteps:\n  a: {call: h, timeout: 1s, with: {x: '${{ input.b }} ${{ input.a }}'}}\n"
    [finding] = found(tmp_path, text)
    assert (finding.code, finding.line) == ("undeclared-input", 1)
    assert finding.message == "expressions read input.a, input.b, and the flow does not say what it takes"


def test_the_second_of_two_keys_is_pointed_at(tmp_path: pathlib.Path) -> None:
    """E5: not the first, which was fine."""
    [finding] = found(tmp_path, "name: f\nsteps:\n  a: {call: h}\n  a: {call: g}\n")
    assert (finding.line, finding.column, finding.width, finding.hint) == (4, 3, 1, "the first is in line 3")


def test_steps_that_never_run(tmp_path: pathlib.Path) -> None:
    """E5, E10: what needs a step that never runs or always fails; not where branches meet, one of several is enough, or what asks for failure() or always()."""
    text = """
name: f
input: {n: number}
defaults: {timeout: 1s}
steps:
  w: {switch: [{if: input.n > 1, then: p}, {if: input.n > 0, then: [q, r]}], default: s}
  p: {call: h}
  q: {call: h}
  r: {call: h}
  s: {fail: {code: NO}}
  meet: {call: h, needs: [p, q]}
  off: {call: h, if: 1 > 2}
  after-off: {call: h, needs: [off, p]}
  one-of: {call: h, needs: [off, p], join: any}
  fine: {call: h, needs: [q, r]}
  whatever: {call: h, needs: [off], if: always()}
  failed: {call: h, needs: s}
  told: {call: h, needs: s, if: failure()}
"""
    messages = {each.path: each.message for each in found(tmp_path, text) if each.code == "never-runs"}
    assert messages == {
        "steps.off.if": "off never runs: its condition is false",
        "steps.after-off.needs": "after-off never runs: it needs off, which never runs",
        "steps.failed.needs": "failed never runs: it needs s, which always fails",
    }


def test_steps_within_steps_are_looked_at(tmp_path: pathlib.Path) -> None:
    """E5, E13: with their own places; a timeout of the block bounds what waits in it, its output may be what its last steps yield."""
    text = """
name: f
defaults: {timeout: 1s}
steps:
  trip:
    steps:
      ask: {signal: go}
      pay: {call: bank.pay, needs: ask, side_effecting: true, compensate: {call: bank.refund}}
      note: {call: note.write, needs: pay}
    output: ${{ steps.pay.output }}
  later:
    needs: trip
    steps: {last: {call: h, side_effecting: true}}
"""
    assert [(each.line, each.code, each.path) for each in found(tmp_path, text)] == [
        (7, "endless-wait", "steps.trip.steps.ask.signal"),
        (9, "unused-output", "steps.trip.steps.note"),
        (13, "unguarded-side-effect", "steps.later.steps.last.side_effecting"),
    ]
    bounded = found(tmp_path, text.replace("  trip:\n", "  trip:\n    timeout: 1h\n"))
    assert "endless-wait" not in {each.code for each in bounded}


def test_names_that_nobody_reads(tmp_path: pathlib.Path) -> None:
    """E15: inputs, constants and variables that no expression reads; none where all of them are read at once."""
    text = """
name: f
input: {a: string, b: string}
vars: {c: 1, d: 2}
env: [E, F]
secrets: [G]
defaults: {timeout: 1s}
steps:
  x: {call: h, with: {a: "${{ input.a }}", c: "${{ vars.c }}", e: "${{ env.E }}"}}
  y: {call: h}
output: "${{ steps.x.output }}"
"""
    assert [(each.code, each.path) for each in found(tmp_path, text)] == [
        ("unused-input", "input.b"),
        ("unused-vars", "vars.d"),
        ("unused-env", "env[1]"),
        ("unused-secrets", "secrets[0]"),
        ("unused-output", "steps.y"),
    ]
    assert "unused-input" not in {each.code for each in found(tmp_path, text.replace("input.a }}", "input }}"))}


def test_timeouts_beyond_the_run(tmp_path: pathlib.Path) -> None:
    """E5: a step that may take longer than the whole run is pointed at."""
    [finding] = found(tmp_path, "name: f\ntimeout: 1h\nsteps:\n  s: {signal: go, timeout: 2h}\n")
    assert (finding.code, finding.message) == ("timeout-beyond-run", "s may take 2h, the whole run only 1h")


def test_handlers_that_nobody_offers(tmp_path: pathlib.Path) -> None:
    """E5: told by whoever knows the executors, at the step that calls them."""
    path = tmp_path / "f.yaml"
    path.write_text("name: f\ndefaults: {timeout: 1s}\nsteps:\n  a: {call: echo}\n  b: {call: bank.pay}\n")
    linted = lint(path)
    linted.missing(["bank.pay"])
    assert [(each.line, each.code, each.severity) for each in linted.findings] == [(5, "unknown-handler", "error")]


def test_annotations_for_github() -> None:
    """E5: one line each, with everything escaped that ends a property or a line."""
    finding = Finding("a,b.yaml", 3, 5, 4, "note", "unused-output", "steps.a", "50% of\nit: x", "y")
    assert (
        github(finding) == "::notice file=a%2Cb.yaml,line=3,col=5,endColumn=9,title=unused-output::50%25 of%0Ait: x; y"
    )
    assert github(replace(finding, severity="error")).startswith("::error ")


def test_positions_survive_anything() -> None:
    """E5: aliases, tabs, empty texts, deep nesting: there is always a place."""
    text = "a: &x {b: [1, {c: 2}]}\nd: *x\n"
    positions = Positions(text)
    assert positions.key("a.b[1].c") == Span(1, 16, 1)
    assert positions.of("nowhere.at.all") == Span(1, 1)
    assert Positions("").of("flow", "", 0) == Span(1, 1)
    assert Positions("[" * 100 + "]" * 100).of("flow").line == 1


def test_other_yaml_is_left_alone(tmp_path: pathlib.Path) -> None:
    """E5: of a directory only what looks like a flow is looked at."""
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "flow.yaml").write_text("name: f\nsteps: {}\n")
    (tmp_path / "x.test.yaml").write_text("cases: []\n")
    assert [path.name for path in sorted(tmp_path.iterdir()) if looks_like_one(path)] == ["flow.yaml", "x.test.yaml"]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "examples").rglob("*.yaml")) if "\nruns:" not in path.read_text()],  # no plans
    ids=lambda path: path.name,
)
def test_examples_have_neither_errors_nor_warnings(path: pathlib.Path) -> None:
    """E5: what we show is clean."""
    assert [each for each in lint(path).findings if each.severity != "note"] == []


def test_the_page_lists_what_there_is() -> None:
    """E5: docs/flow-tools.md names every suspicion with its severity, and no other."""
    page = (ROOT / "docs/flow-tools.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| (error|warning|note) \|", page, re.MULTILINE)
    listed = {(name, severity) for names, severity in rows for name in re.findall(r"`([a-z-]+)`", names)}
    source = (ROOT / "libs/kit/src/tierflow_kit/suspicions.py").read_text()
    known = set(re.findall(r'^ +"([a-z]+(?:-[a-z]+)+)",$', source, re.MULTILINE))
    known |= set(re.findall(r'Suspicion\(\s*"([a-z-]+)"', source)) | {
        "unused-input",
        "unused-vars",
        "unused-env",
        "unused-secrets",
        UNKNOWN_HANDLER,
    }
    assert {name for name, _ in listed} == known


TEXTS = [path.read_text() for path in sorted((ROOT / "examples").rglob("*.yaml"))]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_makes_lint_fall_over(data: st.DataObject) -> None:
    """E5, F28: whatever is torn out of a flow, put into it or said twice, lint says what is wrong, with a place in the text."""
    text = data.draw(st.sampled_from(TEXTS))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 200)))
    put = data.draw(
        st.sampled_from(
            ["", "${{", "}}", "[", "{a: ", "\t", "- ", "&x ", "*x", "!!int ", "\x00", ": ", "é", text[start:end] * 2]
        )
    )
    torn = text[:start] + put + text[end:]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "f.yaml"
        path.write_text(torn)
        linted = lint(path)
        for finding in linted.findings:
            assert 1 <= finding.line <= len(linted.lines) + 1
            assert finding.column >= 1
            frame(finding, linted.lines)
            github(finding)
        if linted.flow is not None:
            tree(linted.flow)
            mermaid(linted.flow)
            assert compare(linted.flow, linted.flow).changes == ()
