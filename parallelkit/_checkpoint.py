"""``Checkpoint``: outcomes are recorded as they settle, and reused by a later run instead of being computed again.

The design and its reasons: docs/design/checkpoint.md.
"""

import os
from dataclasses import dataclass
from typing import Any

from parallelkit._keywords import suggests
from parallelkit._public import public


@public
@suggests()
@dataclass(frozen=True)
class Checkpoint:
    """A journal of outcomes from which an interrupted run resumes: only tasks it has no outcome for are run.

    ``path``: the journal file, created if missing (mode 0600). ``rerun_failed``: whether tasks recorded as
    failed run again; if False, the recorded failure is their outcome. Cancelled tasks are not recorded.

    Every task needs an explicit key (``key=``, a mapping, or ``Task(key=…)``) that is a str, int, float,
    bool, bytes, None or a tuple of these. A journal belongs to one function, identified by module and
    qualified name. Its code may change between runs, but not its arguments (``args``, ``kwargs``, those of a
    partial), the variables that a nested function has captured, or the code of a lambda. Only one run at a
    time may use a journal.

    A finished task is recorded within 100 ms, by a separate thread, at a cost of 5 to 40 µs. Values are
    pickled, so opening a journal from an untrusted source can run its code. A value that cannot be pickled,
    or not unpickled, is not recorded, and a warning says so.

    >>> import os, tempfile
    >>> from parallelkit import run_parallel
    >>> path = os.path.join(tempfile.mkdtemp(), "run.journal")
    >>> run_parallel(len, ["a", "bb"], key=str, checkpoint=path).to_dict()
    {'a': 1, 'bb': 2}
    >>> results = run_parallel(len, ["a", "bb", "ccc"], key=str, checkpoint=Checkpoint(path))
    >>> [(outcome.value, outcome.attempts) for outcome in results.outcomes.values()]
    [(1, 0), (2, 0), (3, 1)]

    Raises TypeError or ValueError for bad arguments. The run raises ValueError if the journal is damaged, in use, not
    accessible or another function's, or cannot be created (no such folder, a full disk). A run that can no longer
    write to its journal is stopped: ``Results.stopped`` says why, and a stream raises ParallelKitError at its end.
    """

    path: str | os.PathLike[str]
    rerun_failed: bool = True

    def __post_init__(self) -> None:
        path = os.fspath(self.path) if isinstance(self.path, os.PathLike) else self.path
        if not isinstance(path, str):
            raise TypeError(f"Checkpoint: path must be a str or a pathlib.Path, got {self.path!r}")
        if not path or "\0" in path:
            raise ValueError(f"Checkpoint: path must be one that a file can have, got {path!r}")
        if not isinstance(self.rerun_failed, bool):
            raise TypeError(f"rerun_failed must be a bool, got {self.rerun_failed!r}")


def as_checkpoint(given: Any) -> Checkpoint:
    """The option ``checkpoint`` as a ``Checkpoint``."""
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoint(given)
    raise TypeError(f"checkpoint must be a path or a Checkpoint, got {given!r}")
