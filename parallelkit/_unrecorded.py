"""``Unrecorded``: what a run without a checkpoint has in place of a recording."""

from __future__ import annotations

from collections.abc import Callable

from parallelkit._book import Book
from parallelkit._input._recall import Recall
from parallelkit._interrupt import Guard, UserCall


class Unrecorded:
    """The recording of a run without a checkpoint: none. ``Recording`` is that of a run with one."""

    recalls: tuple[Recall, ...] = ()
    failure: Exception | None = None
    """Why recording ended before the run did; its ``__cause__`` is the original error."""

    def check(self, guard: Guard) -> None:
        """Raise ValueError if the journal cannot be used, as far as shows at once; create nothing."""

    def open(self, guard: Guard) -> None:
        """Acquire the journal, until ``close``, which must follow also if this raises, as ``check`` does."""

    def record(self, book: Book, refuse: Callable[[str, Exception], None], call_user: UserCall) -> Book:
        """Return a book that records in the journal, too, what is written into ``book``.

        ``refuse`` ends the input, for the given reason.
        """
        return book

    def stop_by(self, stop: Callable[[str], None]) -> None:
        """Set what stops the run if recording fails."""

    def close(self) -> None:
        """Write what is left and release the journal. Idempotent."""
