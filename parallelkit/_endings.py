"""The errors that end a run, and what they say of the results."""

from __future__ import annotations

from typing import Any

from parallelkit._errors import RunInterrupted
from parallelkit._raised import add_note
from parallelkit._results import Results


def interruption(what: str, results: Results[Any, Any]) -> RunInterrupted:
    """The error of an interrupted run, which says where to find what was done."""
    hint = "what was done is in .results of this exception (afterwards: sys.last_value.results)"
    return RunInterrupted(f"{what}: {results!r}; {hint}", results)


def noted(error: BaseException, done: object) -> BaseException:
    """Add a note on what was done to the error that ends a run, and return it."""
    add_note(error, f"the run was stopped at this failure: {done}")
    return error
