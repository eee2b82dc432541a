"""Steps within steps: the blocks of groups, loops and maps, and the steps that help another one.

A block is begun when its step begins: its steps become known then, under ids below its own, each time that it is run under others. It counts
those that have not ended, and the steps of a block need each other only, so that nothing is ever scanned. Nothing is copied either: what a step
can see is found by the way up (`find`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_flow.definition import StepSpec

from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import STEP
from tierflow_orchestrator.core.step import BlockState, Step, item_id


def begin(run: Run, step: Step) -> list[Step]:
    """Makes the steps of a block; those that need nothing, which may start, are returned."""
    block = run.spec(step).block
    if block is None:
        raise ValueError(f"{step.id} has no block")
    prefix, roots = step.block_prefix, []
    step.block = BlockState(open=len(block.steps))
    for spec in block.steps:
        child = _made(run, spec, prefix + spec.local, step)
        if not child.waiting:
            roots.append(child)
    return roots


def iterate(run: Run, loop: Step, index: int) -> list[Step]:
    """Makes the next iteration of a loop; those of its steps that may start are returned."""
    state = loop.block
    if state is None or state.what != "loop":
        state = loop.block = BlockState(what="loop")
    state.open, state.iterations, state.delayed = 1, index + 1, False
    iteration = Step(
        id=item_id(loop.id, index), of=loop.of, handler="", parent=loop.id, index=index, state="RUNNING", attempt=1
    )
    run.steps[iteration.id] = iteration
    run.counts_by_state["RUNNING"] += 1
    return begin(run, iteration)


def help_with(run: Run, step: Step, what: str, spec: StepSpec, child_id: str) -> Step:
    """Makes the step that handles a step's error, or compensates it."""
    step.block = BlockState(open=1, what=what)
    child = _made(run, spec, child_id, step)
    child.role, child.waiting = what, 0
    return child


def _made(run: Run, spec: StepSpec, child_id: str, parent: Step) -> Step:
    handler = spec.handler if spec.dispatched else ""
    child = Step(id=child_id, of=spec.id, handler=handler, parent=parent.id, waiting=len(spec.needs))
    run.steps[child_id] = child
    run.counts_by_state[STEP.initial] += 1
    return child


def count_in(run: Run, step: Step) -> None:
    """Counts a step of a block that has ended; whoever began it is looked at when it was the last one."""
    parent = run.steps[step.parent]
    block = parent.block
    if block is None:
        raise ValueError(f"{step.id} has no block")
    block.open -= 1
    if step.state == "FAILED" and not step.tolerated:
        block.failed_by = block.failed_by or step.id
    elif step.tolerated or step.outcome == "PARTIAL":
        block.partial = True
    elif step.outcome == "DEGRADED":
        block.degraded = True
    if not block.open:
        run.undecided.append(parent.id)


def sibling(run: Run, step: Step, path: str) -> Step:
    """The step beside this one that is an instance of the definition `path`."""
    if not step.parent:
        return run.steps[path]
    return run.steps[step.id[: len(step.id) - len(_local(step.of))] + _local(path)]


def _local(path: str) -> str:
    return path.rpartition("/")[2]


def find(run: Run, step: Step | None, name: str, *, inside: bool = False) -> Step | None:
    """The step that `steps.<name>` means to `step` (`inside`: to what is evaluated within its block): beside it first, then outwards."""
    by_id = run.definition().by_id
    if step is None:
        return run.steps.get(name)
    if inside and f"{step.of}/{name}" in by_id:
        return run.steps.get(step.block_prefix + name)
    aide = _aide(run, step, name)
    while aide is None:
        while step.role or step.index >= 0:
            step = run.steps[step.above]
        if not step.parent:
            return run.steps.get(name)
        local = _local(step.of)
        if f"{step.of[: len(step.of) - len(local)]}{name}" in by_id:
            return run.steps.get(step.id[: len(step.id) - len(local)] + name)
        step = run.steps[step.parent]
    return aide


def _aide(run: Run, step: Step, name: str) -> Step | None:
    """The step that handled the error of this one, where that is what is meant."""
    rescue = run.spec(step).rescue if step.calls else None
    if rescue is None or _local(rescue.step) != name:
        return None
    return run.steps.get(step.aide_prefix + name)


def above(run: Run, step: Step) -> Iterator[Step]:
    """The step itself and those that it belongs to, outwards."""
    while True:
        yield step
        if not step.above:
            return
        step = run.steps[step.above]


def below(run: Run, step: Step) -> Iterator[Step]:
    """The steps that a step has begun and that may not have ended, those of one level."""
    if step.block is not None:
        yield from _of_block(run, step, step.block)
    elif step.branches is not None:
        for index in range(step.branches.count):
            yield run.steps[item_id(step.id, index)]


def _of_block(run: Run, step: Step, state: BlockState) -> Iterator[Step]:
    spec = run.spec(step)
    if state.what == "loop":
        yield run.steps[item_id(step.id, state.iterations - 1)]
    elif state.what == "handler" and spec.rescue is not None:
        yield run.steps[step.aide_prefix + _local(spec.rescue.step)]
    elif state.what == "compensation":
        yield run.steps[f"{step.id}!compensate"]
    elif spec.block is not None:
        prefix = step.block_prefix
        for inner in spec.block.steps:
            yield run.steps[prefix + inner.local]
