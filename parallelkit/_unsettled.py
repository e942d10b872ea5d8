"""The items of the tasks that were admitted and are not settled: all that a further try needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from parallelkit._marks import UNSET

SHIFT = 10
SIZE = 1 << SHIFT
SEEN = 4  # so few are looked at one by one
_MASK = SIZE - 1
_SETTLED = [UNSET] * SIZE


class Unsettled:
    """By index, in chunks of a thousand places each: many that follow on from each other are settled as a slice.

    An item goes when its task is settled, a chunk when all of its tasks are, so that one task that runs for
    long holds no more than its chunk. A dict from index to item takes eight times as long.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, list[Any]] = {}
        self._left: dict[int, int] = {}  # in each chunk
        self._count = 0
        self.admitted = 0
        """How many there were in all."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """The indices, in order."""
        for number, chunk in self._chunks.items():
            for place, item in enumerate(chunk):
                if item is not UNSET:
                    yield number << SHIFT | place

    def __contains__(self, index: int) -> bool:
        chunk = self._chunks.get(index >> SHIFT, ())
        return index & _MASK < len(chunk) and chunk[index & _MASK] is not UNSET

    def __getitem__(self, index: int) -> Any:
        return self._chunks[index >> SHIFT][index & _MASK]

    def admit(self, items: Sequence[Any]) -> None:
        """New ones, whose indices follow those before."""
        at = 0
        while at < len(items):
            number = self.admitted >> SHIFT
            some = items[at : at + SIZE - (self.admitted & _MASK)]
            self._chunks.setdefault(number, []).extend(some)
            self._left[number] = self._left.get(number, 0) + len(some)
            self.admitted += len(some)
            at += len(some)
        self._count += len(items)

    def settle(self, indices: Sequence[int]) -> None:
        """Let go of the items of these; raises KeyError where one is settled already.

        In a longer range that is not seen at once, but by the count, when the others of the chunk are settled.
        """
        if isinstance(indices, range) and len(indices) > SEEN:
            at, end = indices.start, indices.stop
            while at < end:
                upto = min(end, (at | _MASK) + 1)
                place = at & _MASK
                self._chunks[at >> SHIFT][place : place + upto - at] = _SETTLED[: upto - at]
                self._leave(at >> SHIFT, upto - at)
                at = upto
        else:
            for index in indices:
                chunk = self._chunks[index >> SHIFT]
                if chunk[index & _MASK] is UNSET:
                    raise KeyError(index)
                chunk[index & _MASK] = UNSET
            for number, count in Counter([index >> SHIFT for index in indices]).items():
                self._leave(number, count)

    def _leave(self, number: int, count: int) -> None:
        self._count -= count
        self._left[number] -= count
        if self._left[number] < 0:
            raise KeyError(f"a task from {number << SHIFT} on was settled twice")
        if not self._left[number] and number != self.admitted >> SHIFT:
            del self._chunks[number], self._left[number]

    def clear(self) -> None:
        """All are settled."""
        self._chunks.clear()
        self._left.clear()
        self._count = 0
