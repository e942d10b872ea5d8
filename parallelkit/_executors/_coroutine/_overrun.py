"""The errors of attempts on an event loop that ran past their timeout."""

from __future__ import annotations

from collections.abc import Callable

from parallelkit._errors import TaskTimeout
from parallelkit._executors._contract import timed_out
from parallelkit._executors._coroutine._event_loop import GRACE, Flight

SWALLOWED = f"it was cancelled, did not end within {GRACE:g} s of that, and was abandoned"


def overran(flight: Flight, label: Callable[[int], str], how: str, *, abandoned: bool = False) -> TaskTimeout:
    """The error of an overdue attempt; ``how`` it ended."""
    index, _, _, limit = flight.ticket
    assert limit is not None, "only what has a timeout is overdue"
    return timed_out(label(index), limit, how, abandoned=abandoned)


def blocked_by(flight: Flight, label: Callable[[int], str]) -> str:
    """Which attempt kept the loop from cancelling this one."""
    stepping = flight.loop.stepping
    if stepping is None:
        return "its event loop was blocked, and it was abandoned"
    blocker = "it" if stepping[0] is flight else label(stepping[0].ticket[0])
    return f"{blocker} blocked the event loop, so it could not be cancelled and was abandoned"
