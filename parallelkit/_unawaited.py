"""Coroutines that plain functions return and nobody awaits: each is a failure that says what to pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import CoroutineType
from typing import Any

from parallelkit._executors._contract import Block, Ended, PlainBlock

HOW = "pass the coroutine function itself (async def) and executor='threads', which runs it on an event loop"


def holds_coroutine(block: Block) -> bool:
    """Whether one of the values is a coroutine; costs 20 ns a value, where they are not known to be plain."""
    return type(block) is not PlainBlock and CoroutineType in map(type, block.values)


def refuse_coroutines(block: Block) -> Iterator[Block | Ended]:
    """The block row by row, each coroutine in it replaced by its failure, and closed."""
    for index, value, started, ended, worker in zip(*block, strict=True):
        if isinstance(value, CoroutineType):
            yield Ended(index, refuse(value), "", started, ended, worker, final=True)
        else:
            yield Block((index,), (value,), (started,), (ended,), (worker,))


def refuse(coroutine: CoroutineType[Any, Any, Any]) -> TypeError:
    """What to say of a coroutine. It is closed, or Python would warn that it was never awaited."""
    coroutine.close()
    return TypeError(
        f"the function returned a coroutine ({coroutine.__qualname__}) that nobody awaits; {HOW}"
    )
