"""``Checkpoint``: outcomes are recorded as they settle, and given back in a later run instead of being made again.

Why it works as it does: docs/design/checkpoint.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parallelkit._book import Book
from parallelkit._keywords import suggests
from parallelkit._public import public
from parallelkit._recall import Recall


@public
@suggests()
@dataclass(frozen=True)
class Checkpoint:
    """A journal of outcomes, by which a run that was cut short is resumed: only what it lacks is run.

    ``path``: a file, made where there is none (mode 0600). ``rerun_failed``: whether recorded failures
    are tried again; else they are outcomes like any other. Cancelled tasks are not recorded.

    Tasks need keys of their own (``key=``, a mapping, or ``Task(key=…)``) of str, int, float, bool,
    bytes, None or tuples of these. The journal belongs to the function, by module and qualified name: its
    code may change between runs. Its arguments (``args``, ``kwargs``, those of a partial), what a function
    within a function has captured, and the code of a lambda may not. One run at a time may use it.

    A finished task is recorded within 100 ms, by a thread of the run's own; about 5 µs of work each.
    Values are pickled: a journal from a stranger can run code. One that cannot be pickled is not
    recorded (a warning says so).

    >>> import os, tempfile
    >>> from parallelkit import run_parallel
    >>> path = os.path.join(tempfile.mkdtemp(), "run.journal")
    >>> run_parallel(len, ["a", "bb"], key=str, checkpoint=path).to_dict()
    {'a': 1, 'bb': 2}
    >>> results = run_parallel(len, ["a", "bb", "ccc"], key=str, checkpoint=Checkpoint(path))
    >>> [(outcome.value, outcome.attempts) for outcome in results.outcomes.values()]
    [(1, 0), (2, 0), (3, 1)]

    Raises TypeError for what is no path; the run raises ValueError where the journal is damaged, in use,
    another function's, or cannot be made (no such folder, a full disk). A run that cannot write it is stopped,
    and says so: in ``Results.stopped``, or, of a stream, by a ParallelKitError at its end.
    """

    path: str | os.PathLike[str]
    rerun_failed: bool = True

    def __post_init__(self) -> None:
        path = os.fspath(self.path) if isinstance(self.path, os.PathLike) else self.path
        if not isinstance(path, str):
            raise TypeError(f"path must be a str or a pathlib.Path, got {self.path!r}")
        if not path:
            raise ValueError("path must not be empty, got ''")
        if not isinstance(self.rerun_failed, bool):
            raise TypeError(f"rerun_failed must be a bool, got {self.rerun_failed!r}")


def as_checkpoint(given: Any) -> Checkpoint | None:
    """What the option ``checkpoint`` stands for."""
    if given is None or isinstance(given, Checkpoint):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoint(given)
    raise TypeError(f"checkpoint must be a path or a Checkpoint, got {given!r}")


class Unrecorded:
    """A run without a checkpoint; with one, it is a ``Recording``."""

    recalls: tuple[Recall, ...] = ()
    failure: Exception | None = None
    """Why recording has come to an end before the run did; the error that is its cause."""

    def check(self) -> None:
        """Raise ValueError where the journal cannot be used, and touch nothing."""

    def open(self) -> None:
        """Take the journal; raises as ``check`` does."""

    def record(
        self, book: Book, refuse: Callable[[str, Exception], None], ask: Callable[[Callable[[], Any]], Any]
    ) -> Book:
        """A book that records what is written into ``book``.

        ``refuse`` ends the input, for this reason; ``ask`` calls the caller's code (see ``Asking``).
        """
        return book

    def stop_by(self, stop: Callable[[str], None]) -> None:
        """How to stop the run if recording fails."""

    def close(self) -> None:
        """Write what is left, and give the journal free. Idempotent."""
