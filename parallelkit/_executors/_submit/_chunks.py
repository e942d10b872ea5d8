"""``map`` with a ``chunksize``: the arguments of many calls are sent as one chunk, and their values come back as one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

from parallelkit._worker._chunk import Raised
from parallelkit._worker._faults import restore


def cut(iterables: Iterable[Iterable[Any]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the arguments of ``size`` calls at a time."""
    calls = zip(*iterables, strict=False)  # ends with the shortest, as ``map`` does
    while chunk := list(islice(calls, size)):
        yield chunk


def unite(chunks: Generator[list[Any], None, None]) -> Iterator[Any]:
    """Yield the values of each chunk in turn; if a call raised, raise its error after the values before it."""
    try:
        for values in chunks:
            values.reverse()
            while values:
                if type(values[-1]) is Raised:
                    raise restore(values[-1].blob, str)[0]  # ``str``: an error that was raised needs no label
                yield values.pop()  # popped, so that nothing here refers to it any more
    finally:
        chunks.close()  # cancels the calls that have not begun
