"""What a journal keeps of an outcome, as bytes: a value pickled, or an error captured; and the outcome made of that again."""

from __future__ import annotations

from _pickle import dumps, loads
from itertools import islice, repeat
from typing import Any

from parallelkit._journal import Record
from parallelkit._lost import Lost, describe
from parallelkit._raised import is_of_signal
from parallelkit._recall import Recalled
from parallelkit._worker._faults import capture_here, restore

SOURCE = "checkpoint"  # stands in a recalled outcome in place of a worker


def pickle_on(values: list[Any], made: list[bytes | None]) -> None:
    """Pickle the values that are not yet among ``made``, up to one that plain pickle cannot do.

    Plain pickle first: a class of ``__main__`` is then the same class when the script is run again. All
    in one step of the interpreter: a Ctrl-C that comes while plain data is pickled is raised when all is made.
    """
    try:
        made.extend(map(dumps, islice(values, len(made), None), repeat(5)))
    except Exception as error:
        if is_of_signal(error):
            raise
        import cloudpickle

        made.append(cloudpickle.dumps(values[len(made)], 5))


def pickle_error(lost: Lost) -> bytes:
    """What is kept of a failure: its error, captured, and its traceback as text."""
    assert lost.error is not None, "a failure that is settled has its error"
    return dumps((capture_here(lost.error), lost.traceback), 5)


def recalled(record: Record) -> Recalled:
    """What a record says; raises where it cannot be unpickled."""
    if record.ok:
        return Recalled(loads(record.payload), SOURCE)
    packed, text = loads(record.payload)
    error, _, _ = restore(packed, lambda: f"task {record.key}")
    return Recalled(None, SOURCE, Lost(error, 0, None, 0.0, SOURCE, text))


def unreadable(path: str, record: Record, error: Exception) -> ValueError:
    """What to say of a record whose class is gone, say."""
    return ValueError(
        f"checkpoint must hold outcomes that can be unpickled, got {path}, key {record.key}: {describe(error)}; "
        "what they need must be there to be imported, as when it was recorded"
    )
