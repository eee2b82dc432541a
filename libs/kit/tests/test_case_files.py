"""Test files beside flows. See Q24 and docs/testing-flows.md."""

from __future__ import annotations

import json
import pathlib

import jsonschema_rs
import pytest
from tierflow_flow import FlowError
from tierflow_flow.source import read_document
from tierflow_kit.case_keys import schema_text
from tierflow_kit.cases import cases_beside, read_cases
from tierflow_kit.running import run_case

pytest_plugins = ["pytester"]

ROOT = pathlib.Path(__file__).parents[3]
FILES = sorted((ROOT / "examples").rglob("*.test.yaml"))
FLOW = """
name: pay
input: {amount: number}
steps:
  ask: {signal: approved, timeout: 2d}
  pay: {call: bank.pay, needs: ask, with: {amount: "${{ input.amount }}"}}
  tell: {emit: paid, needs: pay, with: {id: "${{ steps.pay.output.id }}"}}
"""
CASES = """
handlers:
  bank.pay:
    - {when: input.amount > 100, fail: {code: TOO_MUCH, retryable: false}}
    - {fail: UNAVAILABLE, times: 1}
    - {output: {id: "p${{ input.amount }}-${{ run.attempt }}"}, after: 2s, credits: 5}
cases:
  - name: paid
    input: {amount: 7}
    do: [{at: 1h, signal: approved}]
    expect:
      state: COMPLETED
      outcome: SUCCESS
      output: {tell: null}
      steps: {pay: {attempts: 2, output: {id: p7-2}, input_has: {amount: 7}, started: 1h, ended: 1h3s}}
      calls: {bank.pay: 2}
      order: [ask, pay, tell]
      emitted: [{name: paid, with: {id: p7-2}}]
      duration: {least: 1h, most: 2h}
      credits: 5
  - name: too much
    input: {amount: 101}
    do: [{at: 0s, signal: approved}]
    expect: {state: FAILED, failure: {code: TOO_MUCH, step: pay, message: says a fake}}
  - name: nobody asks
    input: {amount: 1}
    expect: {state: FAILED, failure: TIMEOUT, duration: 2d}
  - name: looked at before
    input: {amount: 1}
    until: 1d
    expect: {state: SUSPENDED, steps: {ask: {state: RUNNING, reason: SIGNAL}}, duration: 1d}
  - name: what is refused may be expected
    input: {amount: 1}
    do:
      - {at: 1m, pause: lunch}
      - {at: 2m, resume: ""}
      - {at: 3m, signal: nonsense, refused: true}
      - {at: 4m, cancel: enough}
      - {at: 5m, cancel: again, refused: true}
    expect: {state: CANCELLED, duration: 4m}
"""


def written(tmp_path: pathlib.Path, cases: str = CASES, flow: str = FLOW) -> pathlib.Path:
    (tmp_path / "pay.yaml").write_text(flow)
    path = tmp_path / "pay.test.yaml"
    path.write_text(cases)
    return path


def test_cases_say_what_is_given_what_happens_and_what_is_expected(tmp_path: pathlib.Path) -> None:
    """Q24: every key of a test file, on a flow that waits, retries and publishes."""
    read = read_cases(written(tmp_path))
    assert read.flow_path == tmp_path / "pay.yaml"
    results = [run_case(read.flow, case) for case in read.cases]
    assert {result.case.name: result.differences for result in results} == {case.name: () for case in read.cases}
    assert [case.line for case in read.cases] == [8, 21, 25, 28, 32]


def test_other_flows_are_read_from_their_files(tmp_path: pathlib.Path) -> None:
    """Q24, E12: a test file names the files of the flows that its flow runs."""
    (tmp_path / "child.yaml").write_text("name: child\nsteps: {c: {call: h}}\n")
    text = """
flows: {child@1: child.yaml}
handlers: {h: {output: 1, after: 3s}}
cases: [{name: a, expect: {state: COMPLETED, duration: 3s, calls: {h: 1}}}]
"""
    flow = "name: pay\nsteps: {a: {flow: child@1}}\n"
    read = read_cases(written(tmp_path, text, flow))
    assert run_case(read.flow, read.cases[0]).differences == ()
    with pytest.raises(FlowError, match=r"flows.child@1: there is no file .*kid.yaml"):
        read_cases(written(tmp_path, text.replace("child.yaml", "kid.yaml"), flow))


def test_people_steer(tmp_path: pathlib.Path) -> None:
    """Q24, C9, Q21: skipping a step, retrying what failed, interrupting, moving to another version: each at its time."""
    (tmp_path / "pay-2.yaml").write_text(
        FLOW.replace("emit: paid", "emit: paid.again").replace("name: pay\n", 'name: pay\nversion: "2"\n')
    )
    text = """
handlers: {bank.pay: {output: {id: p}, after: 10s}}
cases:
  - name: nobody needs to approve
    input: {amount: 1}
    do: [{at: 1h, skip: ask, output: {by: chief}, reason: is away}]
    expect: {state: COMPLETED, duration: 1h10s, steps: {ask: SKIPPED}}
  - name: the bank is mended
    input: {amount: 1}
    handlers: {bank.pay: {fail: {code: BROKEN, retryable: false}, times: 1}}
    do: [{at: 0s, signal: approved}, {at: 1h, retry: mended}]
    expect: {state: COMPLETED, calls: {bank.pay: 2}, duration: 1h10s}
  - name: stopped and begun again
    input: {amount: 1}
    do: [{at: 0s, signal: approved}, {at: 5s, pause: "", interrupt: true}, {at: 1h, resume: ""}]
    expect: {state: COMPLETED, calls: {bank.pay: 2}, duration: 1h10s}
  - name: moved
    input: {amount: 1}
    do: [{at: 1m, pause: ""}, {at: 2m, migrate: pay-2.yaml}, {at: 3m, resume: ""}, {at: 4m, signal: approved}]
    expect: {state: COMPLETED, emitted: [paid.again]}
"""
    read = read_cases(written(tmp_path, text))
    results = [run_case(read.flow, case) for case in read.cases]
    assert {result.case.name: result.differences for result in results} == {case.name: () for case in read.cases}
    with pytest.raises(FlowError, match=r"there is no file .*pay-3.yaml"):
        read_cases(written(tmp_path, text.replace("pay-2.yaml", "pay-3.yaml")))


def test_cases_that_differ_say_where(tmp_path: pathlib.Path) -> None:
    """Q24: a case that does not go as expected tells all differences; one without a fake tells what is missing."""
    text = """
cases:
  - {name: a, input: {amount: 1}, do: [{at: 3d, signal: approved}], expect: {state: COMPLETED, duration: {least: 3d}}}
  - {name: b, input: {amount: 1}, do: [{at: 1s, signal: approved}], expect: {state: COMPLETED}}
"""
    read = read_cases(written(tmp_path, text))
    first, second = (run_case(read.flow, case).differences for case in read.cases)
    assert first == (
        "do[0] (signal at 3d): refused, the run was FAILED",
        "state: expected COMPLETED, found FAILED (ask: STEP_FAILED: Step ask failed: No signal approved came in time., because ask: TIMEOUT: No signal approved came in time.)",
        "duration: expected at least 3d, found 2d",
    )
    assert len(second) == 1
    assert "bank.pay" in second[0]
    assert "it has no fake" in second[0]


def test_everything_wrong_is_said_at_once(tmp_path: pathlib.Path) -> None:
    """Q24: as with flows: line, place, what is wrong, and what was meant."""
    text = """handlers:
  bank.pay: {output: 1, fail: NO}
cases:
  - name: a
    inptu: {}
    handlers: {bank.pay: {after: soon}}
    do: [{at: 1s}]
    expect: {stat: COMPLETED, duration: 3}
  - expect: {state: DONE}
"""
    with pytest.raises(FlowError) as caught:
        read_cases(written(tmp_path, text))
    assert [(p.line, p.path, p.description) for p in caught.value.problems] == [
        (2, "handlers.bank.pay", "output and fail exclude each other"),
        (5, "cases[0].inptu", "unknown key; did you mean input?"),
        (6, "cases[0].handlers.bank.pay.after", "'soon' is no duration; write a number and a unit, such as 500ms, 30s, 10m or 1h30m"),
        (7, "cases[0].do[0]", "expected one of signal, approve, reject, delegate, skip, retry, migrate, cancel, pause, resume, found none"),
        (8, "cases[0].expect.stat", "unknown key; did you mean state?"),
        (8, "cases[0].expect.duration", "expected a mapping, found an integer; its keys: least, most"),
        (9, "cases[1].expect.state", "'DONE' is not one of QUEUED, RUNNING, SUSPENDED, PAUSING, PAUSED, CANCELLING, COMPENSATING, COMPLETED, FAILED, CANCELLED"),
        (9, "cases[1]", "name is missing: What the case shows, in words."),
    ]  # fmt: skip


def test_names_must_be_those_of_the_flow(tmp_path: pathlib.Path) -> None:
    """Q24: a fake, a step or a handler that the flow does not have is a mistake."""
    text = """handlers: {bank.pya: {}}
cases:
  - {name: a, steps: {pya: {}}, expect: {steps: {aks: COMPLETED}, calls: {bank: 1}}}
"""
    with pytest.raises(FlowError) as caught:
        read_cases(written(tmp_path, text))
    assert [(p.path, p.description) for p in caught.value.problems] == [
        ("handlers.bank.pya", "no step calls bank.pya; did you mean bank.pay?"),
        ("cases[0].steps.pya", "unknown step 'pya'; did you mean pay?"),
        ("cases[0].expect.steps.aks", "unknown step 'aks'; did you mean ask?"),
        ("cases[0].expect.calls.bank", "no step calls bank; did you mean bank.pay?"),
    ]


def test_expressions_in_fakes_see_the_attempt_alone(tmp_path: pathlib.Path) -> None:
    """Q24: what a handler could not know, its fake cannot either."""
    text = "handlers: {bank.pay: {output: '${{ steps.ask.output }}', when: input.amount >}}\ncases: [{name: a, expect: {}}]\n"
    with pytest.raises(FlowError) as caught:
        read_cases(written(tmp_path, text))
    first, second = (problem.description for problem in caught.value.problems)
    assert "expected" in first
    assert second == "steps is not there; fakes see input, run.step, run.attempt"


def test_files_find_each_other(tmp_path: pathlib.Path) -> None:
    """Q24: cases are beside their flow, or say where it is."""
    path = written(tmp_path)
    assert cases_beside(tmp_path / "pay.yaml") == path
    assert cases_beside(path) == path
    assert cases_beside(tmp_path / "other.yaml") is None
    lonely = tmp_path / "deep" / "x.test.yaml"
    lonely.parent.mkdir()
    lonely.write_text("cases: [{name: a, expect: {}}]")
    with pytest.raises(FlowError, match=r"no x.yaml beside it"):
        read_cases(lonely)
    lonely.write_text("flow: ../pay.yaml\ncases: [{name: a, input: {amount: 1}, expect: {}}]")
    assert read_cases(lonely).flow.name == "pay"
    (tmp_path / "pay.yaml").write_text("name: pay\nsteps: {a: {cal: h}, b: {if: f(1, 2), call: h}}")
    with pytest.raises(
        FlowError, match=r"pay.yaml is not valid, line 2: steps.a.cal: unknown key; did you mean call\? and \d more"
    ):
        read_cases(lonely)
    lonely.write_text("flow: ../pya.yaml\ncases: [{name: a, expect: {}}]")
    with pytest.raises(FlowError, match=r"there is no file .*pya.yaml"):
        read_cases(lonely)


def test_the_published_schema_is_up_to_date() -> None:
    """Q24: `python -m tierflow_kit.case_keys > schema/flow-test.schema.json` brings it up to date."""
    assert (ROOT / "schema/flow-test.schema.json").read_text() == schema_text()


def test_editors_agree() -> None:
    """Q24: the published schema takes what is shown here and refuses what is plainly wrong."""
    schema = jsonschema_rs.validator_for(json.loads(schema_text()))
    schema.validate(read_document(CASES, "yaml").value)
    for wrong in ({}, {"cases": [{"name": "a"}]}, {"cases": [{"name": "a", "expect": {"stat": "x"}}]}, {"case": []}):
        assert not schema.is_valid(wrong)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_example_cases_fit_the_schema(path: pathlib.Path) -> None:
    """Q24: editors accept every test file among the examples."""
    jsonschema_rs.validator_for(json.loads(schema_text())).validate(read_document(path.read_text(), "yaml").value)


def test_pytest_collects_cases(pytester: pytest.Pytester) -> None:
    """Q24: `pytest DIRECTORY` runs each case as a test, and shows what differs without the kit's own lines."""
    written(pytester.path, CASES.replace("output: {tell: null}", "output: {tell: 1}"))
    (pytester.path / "bad.test.yaml").write_text("cases: []")
    done = pytester.runpytest("-p", "no:cacheprovider", "--continue-on-collection-errors")
    done.assert_outcomes(passed=4, failed=1, errors=1)
    done.stdout.fnmatch_lines_random(
        ["*output.tell: expected 1, found null", "*bad.test.yaml:*: flow: no bad.yaml beside it*"]
    )
    assert "Traceback" not in done.stdout.str()
