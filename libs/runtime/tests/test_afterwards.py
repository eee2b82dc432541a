"""Ends that are awaited: what compiled coroutines use in place of a `finally` that awaits."""

import asyncio

import pytest
from tierflow_runtime.afterwards import afterwards, end_all, together


class Line:
    """Something that is hung up by a message, which takes a turn of the loop."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.open = asyncio.Event()

    async def talk(self, error: Exception | None = None) -> None:
        """Talks for ever, or until it breaks."""
        self.said.append("talks")
        self.open.set()
        if error is not None:
            raise error
        await asyncio.Event().wait()

    async def hang_up(self) -> str:
        """Takes its time."""
        await asyncio.sleep(0)
        self.said.append("hung up")
        return "said"


async def test_the_end_is_awaited_and_answers() -> None:
    """B15: what the end says is the answer, once the work is done."""
    line = Line()
    assert await afterwards(asyncio.sleep(0), line.hang_up) == "said"


async def test_an_error_is_raised_after_the_end() -> None:
    """B15: the error is the work's own, and not one that its caller was dealing with when it began."""
    line = Line()
    try:
        raise KeyError("dealt with by whoever called")
    except KeyError:
        with pytest.raises(ValueError, match="broken"):
            await afterwards(line.talk(ValueError("broken")), line.hang_up)
        assert await afterwards(asyncio.sleep(0), line.hang_up) == "said"
    assert line.said == ["talks", "hung up", "hung up"]


async def test_who_is_cancelled_hangs_up_first() -> None:
    """B15, Lesson 20: a link that is dropped ends its stream."""
    line = Line()
    talking = asyncio.create_task(afterwards(line.talk(), line.hang_up))
    await line.open.wait()
    talking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talking
    assert line.said == ["talks", "hung up"]


async def test_together_one_that_fails_ends_the_other() -> None:
    """B15: of loops that need each other none goes on alone."""
    line, other = Line(), Line()
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await together(afterwards(other.talk(), other.hang_up), line.talk(ValueError("broken")))
    assert other.said == ["talks", "hung up"]


async def test_who_lost_its_cancel_is_cancelled_again() -> None:
    """R12: a loop that swallows its first cancel, as `wait_for` can, ends all the same, and what others raise is dropped."""
    cancels = 0
    begun = asyncio.Event()

    async def deaf() -> None:
        nonlocal cancels
        begun.set()
        while cancels < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancels += 1

    async def broken() -> None:
        raise ValueError("of no interest")

    await end_all(())
    tasks = [asyncio.ensure_future(deaf()), asyncio.ensure_future(broken())]
    await begun.wait()
    await end_all(tasks)
    assert cancels == 2
    assert all(task.done() for task in tasks)
