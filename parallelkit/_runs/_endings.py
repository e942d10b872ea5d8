"""The errors that end a run, and what they say of the results."""

from __future__ import annotations

from typing import Any

from parallelkit._errors import InputError, RunInterrupted
from parallelkit._raised import add_note
from parallelkit._results import Results


def interruption(what: str, results: Results[Any, Any]) -> RunInterrupted:
    """The error of an interrupted run, which says where to find its results."""
    place = "in .results of this exception (afterwards: sys.last_value.results)"
    return RunInterrupted(f"{what}: {results!r}, {place}", results)


def noted(error: BaseException, done: object, broken: InputError | None) -> BaseException:
    """Add notes to the failure that ends a run, and return it: what was done, and how the input broke besides, if it did.

    The failure comes first, as in a plain loop, which reads no further than the item whose task fails.
    """
    add_note(error, f"the run was stopped at this failure: {done}")
    if broken is not None:
        add_note(error, f"besides, {broken}")
    return error
