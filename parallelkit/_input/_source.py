"""Where the loop gets the tasks of the input from, and how far ahead of what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import maxsize
from typing import Any, Protocol

from parallelkit._input._intake import Intake
from parallelkit._input._portion import Portion
from parallelkit._interrupt import Interrupt
from parallelkit._marks import UNSET
from parallelkit._named_tuple import NamedTuple

WINDOW = 32  # tasks read ahead, for each worker
WIDEST = 5_000  # how far the default window grows with what is done
AHEAD_OF_LIST = 1_000  # least for a list, tuple or range, where reading neither costs nor keeps anything
NOTHING = (UNSET, UNSET)  # in place of a key and an item


class Source(Protocol):
    """Where the loop gets the tasks of the input: read in its own thread, or handed over by another."""

    @property
    def exhausted(self) -> bool:
        """Whether no more will come."""

    def next(self, ahead: int, *, single: bool = False) -> Portion | None:
        """Return tasks to admit now, or None; ``ahead`` tasks of the input are not settled yet.

        ``single``: read no more than one item for this.
        """


class Window(NamedTuple):
    """How far the input is read ahead of what is done (``buffersize``)."""

    least: int
    size: int | None = None

    def room(self, ahead: int, done: int) -> int:
        """How many more items may be read, if ``ahead`` are read and not done. Those that ``then`` made do not count."""
        size = self.size or max(self.least, min(done, WIDEST))
        return min(size, maxsize) - ahead  # islice takes no more; a larger buffersize stands for no bound


class DirectSource:
    """Reads the caller's input in the thread of the loop."""

    def __init__(
        self, intake: Intake, window: Window, interrupt: Interrupt, admit: Callable[[Portion], None]
    ) -> None:
        self.intake = intake
        self.window = window
        self.interrupt = interrupt
        self.admit = admit

    @property
    def exhausted(self) -> bool:
        return self.intake.exhausted

    def next(self, ahead: int, *, single: bool = False) -> Portion | None:
        room = self._room(ahead)
        if room <= 0:
            return None
        with self.interrupt.user_code():
            portion = self.intake.read(1 if single else room)
        if portion is not None:
            self.admit(portion)
        return portion

    def _room(self, ahead: int) -> int:
        if self.intake.exhausted:
            return 0
        return self.window.room(ahead, self.intake.read_so_far - ahead)

    @property
    def keyed(self) -> bool:
        return self.intake.keyed

    def flow(self, ahead: int) -> Iterator[tuple[Any, Any]]:
        """Yield the keys and items that may be read now, one by one as they are read; the caller admits them."""
        room, interrupt = self._room(ahead), self.interrupt
        items = self.intake.flow(room) if room > 0 else iter(())
        while True:
            interrupt.exposed = True  # as ``user_code`` does, which would cost more than all the rest
            try:
                interrupt.obey()
                key, item = next(items, NOTHING)
            finally:
                interrupt.exposed = False
            if item is UNSET:
                return
            yield key, item
