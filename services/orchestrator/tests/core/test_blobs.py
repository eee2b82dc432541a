"""Large values: stored apart by their content, looked into only where an expression does."""

from __future__ import annotations

import hashlib
import json

from tierflow_flow import parse
from tierflow_orchestrator.core import dump, load, missing_blobs
from tierflow_orchestrator.core.commands import AssignSlot, ReportResult
from tierflow_orchestrator.core.payloads import INLINE_BYTES
from tierflow_runtime.values import BlobRef

from .fakes import Shell, create

BIG = json.dumps({"n": 1, "text": "y" * INLINE_BYTES})


def ref(text: str) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(text.encode()).hexdigest(), size=len(text.encode()))


def shell_of(steps: str, **more: object) -> Shell:
    return Shell(parse("name: t\nsteps:\n" + steps, "yaml"), **more)


def result(shell: Shell, step_id: str, payload: BlobRef) -> ReportResult:
    return ReportResult(attempt_id=shell.attempt_id(step_id), state="COMPLETED", output=payload)


def test_handed_on_whole() -> None:
    """Lesson 27, R33: a stored output that a step hands on whole stays a reference; nobody reads it."""
    shell = shell_of("  a: {call: h}\n  b: {call: h, with: '${{ steps.a.output }}'}\n")
    command = result(shell, "a", ref(BIG))
    assert missing_blobs(shell.run, command) == []
    shell.auto = False
    shell.tell(command)
    assert missing_blobs(shell.run, AssignSlot(step_id="b", executor_id="e")) == []
    shell.assign()
    assert shell.dispatched[-1].input == ref(BIG)
    assert not shell.blobs
    shell.check()


def test_part_of_something() -> None:
    """R33: where it becomes part of another value its content is asked for first, and the new value is stored apart as well."""
    shell = shell_of("  a: {call: h}\n  b: {call: h, with: {all: '${{ steps.a.output }}'}}\n", auto=False)
    shell.assign()
    shell.tell(result(shell, "a", ref(BIG)))
    command = AssignSlot(step_id="b", executor_id="e")
    assert missing_blobs(shell.run, command) == [ref(BIG).sha256]
    shell.run.contents[ref(BIG).sha256] = BIG
    assert missing_blobs(shell.run, command) == []
    shell.tell(command)
    given = shell.dispatched[-1].input
    assert isinstance(given, BlobRef)
    assert json.loads(shell.blobs[given.sha256]) == {"all": json.loads(BIG)}
    assert given == ref(shell.blobs[given.sha256].decode())


def test_looked_into() -> None:
    """R33: where an expression looks into it, its content is asked for with the result that brings it, and again after a restart."""
    shell = shell_of(
        "  a: {call: h}\n  b: {call: h, if: 'steps.a.output.n == 1', with: {n: '${{ steps.a.output.n }}'}}\n"
    )
    command = result(shell, "a", ref(BIG))
    assert missing_blobs(shell.run, command) == [ref(BIG).sha256]
    shell.run.contents[ref(BIG).sha256] = BIG
    assert missing_blobs(shell.run, command) == []
    shell.auto = False
    shell.tell(command)
    shell.run = load(dump(shell.run))
    shell.run.flow = shell.flow
    assert missing_blobs(shell.run, None) == [ref(BIG).sha256]
    shell.run.contents[ref(BIG).sha256] = BIG
    assert missing_blobs(shell.run, None) == []
    shell.assign()
    assert shell.dispatched[-1].input == '{"n":1}'


def test_items_from_a_stored_value() -> None:
    """Q8, R33: a map over a large array, handed over whole, has its content at hand."""
    items = json.dumps(["z" * 100] * 1000)
    shell = shell_of("  a: {call: h}\n  m: {map: '${{ steps.a.output }}', call: h, with: {v: '${{ item }}'}}\n")
    command = result(shell, "a", ref(items))
    assert missing_blobs(shell.run, command) == [ref(items).sha256]
    shell.run.contents[ref(items).sha256] = items
    shell.tell(command)
    assert shell.run.steps["m"].branches.count == 1000  # type: ignore[union-attr]


def test_outputs_of_items() -> None:
    """Q8, R33: a map's output is put together from stored outputs as from others."""
    shell = shell_of(
        "  m: {map: [1, 2], call: h, with: {v: '${{ item }}'}}\n  j: {call: h, with: '${{ steps.m.output }}'}\n",
        auto=False,
    )
    shell.assign()
    shell.tell(result(shell, "m[0]", ref(BIG)))
    shell.complete("m[1]", "2")
    command = AssignSlot(step_id="j", executor_id="e")
    assert missing_blobs(shell.run, command) == [ref(BIG).sha256]
    shell.run.contents[ref(BIG).sha256] = BIG
    shell.tell(command)
    given = shell.dispatched[-1].input
    assert isinstance(given, BlobRef)
    assert json.loads(shell.blobs[given.sha256]) == [json.loads(BIG), 2]


def test_large_output_of_a_run() -> None:
    """Lesson 27: the run's own output is stored apart where it is large; what it is made of was asked for."""
    shell = shell_of("  a: {call: h}\n")
    command = result(shell, "a", ref(BIG))
    assert missing_blobs(shell.run, command) == [ref(BIG).sha256]
    shell.run.contents[ref(BIG).sha256] = BIG
    decision = shell.tell(command)
    output = shell.run.output
    assert isinstance(output, BlobRef)
    assert json.loads(decision.blobs[output.sha256]) == {"a": json.loads(BIG)}
    shell.check()


def test_large_input() -> None:
    """R33: an input that is stored apart is at hand before the run is created."""
    flow = parse("name: t\nsteps: {a: {call: h, with: {n: '${{ input.n }}'}}}", "yaml")
    shell = Shell(flow, auto=False, input="{}")
    command = create(flow, input=ref(BIG))
    assert missing_blobs(shell.run.fresh("r"), command) == [ref(BIG).sha256]


def test_threshold() -> None:
    """Lesson 27: up to 64 KiB inline, counted in bytes, above that apart."""
    for text, apart in (
        ("x" * (INLINE_BYTES - 2), False),
        ("x" * (INLINE_BYTES - 1), True),
        ("é" * (INLINE_BYTES // 2), True),
    ):
        shell = shell_of(
            "  a: {call: h}\n  b: {call: h, with: '${{ input.t }}'}\n",
            input=json.dumps({"t": text}, ensure_ascii=False),
        )
        payload = next(d.input for d in shell.dispatched if d.step_id == "b")
        assert isinstance(payload, BlobRef) == apart


def test_more_than_a_value_can_be() -> None:
    """Lesson 27: what would be larger than a value may be is not made: it fails typed and for good, and nothing is read for it."""
    huge = BlobRef(sha256="0" * 64, size=40 << 20)
    other = BlobRef(sha256="1" * 64, size=40 << 20)
    shell = shell_of(
        "  m: {map: [1, 2], call: h}\n  j: {call: h, with: {all: '${{ steps.m.output }}'}, retry: {max_attempts: 3}}\n"
    )
    shell.tell(result(shell, "m[0]", huge))
    shell.auto = False
    shell.tell(result(shell, "m[1]", other))
    assert missing_blobs(shell.run, AssignSlot(step_id="j", executor_id="e")) == []
    shell.assign()
    failure = shell.run.steps["j"].failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("PAYLOAD_TOO_LARGE", False)
    leaf = shell_of("  m: {map: [1, 2], call: h}\n")
    leaf.tell(result(leaf, "m[0]", huge))
    command = result(leaf, "m[1]", other)
    leaf.run.contents[huge.sha256] = leaf.run.contents[other.sha256] = "1"
    leaf.tell(command)
    assert leaf.run.failure.code == "PAYLOAD_TOO_LARGE"  # type: ignore[union-attr]
    assert "83886080 bytes" in leaf.run.failure.message  # type: ignore[union-attr]
