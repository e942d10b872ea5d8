"""``map`` with a ``chunksize``: many calls travel as one, and come back as one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

from parallelkit._worker._chunk import Raised
from parallelkit._worker._faults import restore


def cut(iterables: Iterable[Iterable[Any]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of so many calls at a time."""
    calls = zip(*iterables, strict=False)  # to the end of the shortest, as ``map`` does
    while chunk := list(islice(calls, size)):
        yield chunk


def unite(chunks: Generator[list[Any], None, None]) -> Iterator[Any]:
    """The values of one chunk after the other; where a call raised, its error, after those before it."""
    try:
        for values in chunks:
            values.reverse()
            while values:
                if type(values[-1]) is Raised:
                    raise restore(values[-1].blob, str)[0]  # what was raised needs no label
                yield values.pop()  # so that nothing here refers to it any more
    finally:
        chunks.close()  # which cancels what has not begun
