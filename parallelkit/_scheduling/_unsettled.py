"""``Unsettled``: the items of tasks that are admitted and not settled, which is all that a retry needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from parallelkit._marks import UNSET

SHIFT = 10
SIZE = 1 << SHIFT
SEEN = 4  # indices up to which even a range is settled one by one
_MASK = SIZE - 1
_SETTLED = [UNSET] * SIZE


class Unsettled:
    """Items by index, in chunks of 1,024, so that a range of tasks is settled by slices.

    An item is dropped when its task is settled, a chunk when all its tasks are, so that a task that runs for a
    long time keeps only its own chunk. A dict from index to item takes eight times as long.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, list[Any]] = {}
        self._left: dict[int, int] = {}  # how many are unsettled in each chunk
        self._count = 0
        self.admitted = 0
        """How many were ever admitted."""

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
        """Add items, whose indices follow those of earlier ones."""
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
        """Drop the items of these tasks; raises KeyError if one is settled already.

        For a range of more than ``SEEN``, that is noticed only by the count, when the rest of the chunk is settled.
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
        """Drop all items."""
        self._chunks.clear()
        self._left.clear()
        self._count = 0
