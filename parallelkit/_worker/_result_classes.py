"""Classes of the script in results: one that came to this process is packed once, and the caller finds its own by its id."""

from __future__ import annotations

from _thread import _local

from parallelkit._raised import tolerated
from parallelkit._worker import _classes
from parallelkit._worker._travel import Apart, pack_by_value, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

SMALL = 64 << 10
"""Size in bytes up to which a packed class is kept; a larger one is packed with each result."""

TOLD = 64
"""How many classes a worker sends to the caller by themselves; more travel with each result. As many are kept: those met last."""


class _Reading(_local):
    told: Sequence[bytes] = ()
    """The classes that the worker has sent whose results this thread unpickles."""


reading = _Reading()


class ResultClasses:
    """Decides how classes go into the pickles of results, as ``Editions`` does for what is sent to workers.

    ``tell`` sends the caller a number, and the bytes of the class for which that stands in results from then on. If the
    handler of a signal raises just after that, the number is for the next class.
    """

    by_file = False

    def __init__(self, tell: Callable[[int, bytes], None]) -> None:
        self.known: dict[int, Any] = {}
        """Emptied when a run is over: as long as it has any, each object in each result is looked up in it."""
        self._kept: dict[type, Any] = {}
        self._tell = tell
        self._told = 0

    def reduce(self, cls: type, reduced: Any) -> Any:
        """What stands for the class, if it came from elsewhere and is not large; else the class itself."""
        if cls not in self._kept and _classes.is_made(cls):
            if len(self._kept) >= TOLD:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                self.known.pop(id(oldest), None)
            self._kept[cls] = None
            blob = _packed(cls)
            if blob is not None:
                self._kept[cls] = find_class, (reduced[1][_classes.TRACKER], self._reference(blob))
        kept = self._kept.get(cls)
        if kept is None:
            return reduced
        self.known[id(cls)] = kept
        return kept

    def _reference(self, blob: bytes) -> bytes | int:
        """The number under which the caller has these bytes; if it has enough, the bytes themselves, reversed."""
        if self._told == TOLD:
            return blob[::-1]
        self._tell(self._told, blob)
        self._told += 1
        return self._told - 1


def _packed(cls: type) -> bytes | None:
    """The class; None if it is large, and nothing if a task has put into it what cannot be pickled, such as a connection."""
    apart = Apart()
    with tolerated():
        blob = pack_by_value(cls, apart)
        return None if apart.buffers or len(blob) > SMALL else blob
    return b""


def find_class(tracker: str, packed: bytes | int) -> Any:
    """The class that has this id in the caller's process; if that has it no more, one made of what the worker has packed."""
    known = _classes.find(tracker)
    if known is not None:
        return known
    blob = packed[::-1] if isinstance(packed, bytes) else reading.told[packed]
    if not blob:
        raise LookupError("its class is no longer in the caller, and cannot be pickled in the worker")
    return unpack(blob)
