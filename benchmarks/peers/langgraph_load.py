"""LangGraph: load and engine in one process, checkpoints in Postgres, written before the next step begins (`durability="sync"`)."""

from __future__ import annotations

import operator
import os
import uuid
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers.driver import ITEMS, Once, serve, settings


class Chain(TypedDict, total=False):
    """State of a chain."""

    number: int
    result: dict[str, bool]


class Fan(TypedDict, total=False):
    """State of a fan-out."""

    items: int
    results: Annotated[list[int], operator.add]


async def nothing(_: Chain) -> Chain:
    """A step."""
    return {"result": {"ok": True}}


async def one_item(_: Fan) -> Fan:
    """One of the steps at the same time."""
    return {"results": [1]}


def spread(state: Fan) -> list[Send]:
    """A step for each item."""
    return [Send("each", {"items": number}) for number in range(state["items"])]


def chain(steps: int, saver: Any) -> Any:
    """Steps one after the other."""
    graph = StateGraph(Chain)
    names = [f"s{number}" for number in range(steps)]
    for name in names:
        graph.add_node(name, nothing)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


def fan_out(saver: Any) -> Any:
    """Steps at the same time; their results are joined in the state."""
    graph = StateGraph(Fan)
    graph.add_node("each", one_item)
    graph.add_conditional_edges(START, spread, ["each"])
    graph.add_edge("each", END)
    return graph.compile(checkpointer=saver)


async def main() -> None:
    """Runs the engine and drives it."""
    given = settings()
    pool = AsyncConnectionPool(
        given["database_url"],
        min_size=given["pool"],
        max_size=given["pool"],
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        open=False,
    )
    await pool.open(wait=True)
    if given["prepare"]:
        await AsyncPostgresSaver(pool).setup()
    savers = [AsyncPostgresSaver(pool) for _ in range(given["savers"])]  # each has a lock that lets one through
    graphs = {
        "w1": [chain(1, saver) for saver in savers],
        "w2": [chain(10, saver) for saver in savers],
        "w3": [fan_out(saver) for saver in savers],
    }

    def run(name: str, items: int | None = None) -> Once:
        async def once(number: int) -> None:
            state = await graphs[name][number % len(savers)].ainvoke(
                {"number": number} if items is None else {"items": items},
                {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 50},
                durability="sync",
            )
            if items is not None and len(state["results"]) != items:
                raise RuntimeError("wrong result")

        return once

    await serve({"w1": run("w1"), "w2": run("w2"), **{name: run("w3", items) for name, items in ITEMS.items()}})
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
