"""How long the other side asked us to wait, where an error says so."""

from __future__ import annotations

import math
from typing import Any

from parallelkit._raised import tolerated

PAUSES = "Retry-After"  # how a limit is called that is there only to be paused
LONGEST = 300.0  # seconds; whoever asks for more is not waited for


def retry_after(error: BaseException) -> float | None:
    """Seconds, from an HTTP error's Retry-After header or an exception's ``retry_after``; None for nonsense.

    A header is read as RFC 9110 §10.2.3 has it: seconds, or a date. It is on the error's response, as in requests,
    or on the error itself, which in urllib is the response.

    >>> error = OSError()
    >>> error.retry_after = "2"
    >>> retry_after(error)
    2.0
    """
    with tolerated():  # no such attributes, or ones that raise: nobody has told us anything
        told = _asked(error, "retry_after")
        if told is None:
            response = _asked(error, "response")
            told = _asked(error if response is None else response, "headers").get("Retry-After")
        return None if told is None else _seconds(told)
    return None


def _asked(thing: Any, name: str) -> Any:
    """An attribute; None also where the look at it raises, as for most of an urllib error that came from a process."""
    with tolerated():
        return getattr(thing, name, None)
    return None


def _seconds(told: Any) -> float | None:
    try:
        seconds = float(told)
    except ValueError:
        from datetime import UTC, datetime
        from email.utils import parsedate_to_datetime  # with its own imports 9 ms, and rarely needed

        seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        return max(0.0, seconds)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def did_not_run(error: BaseException) -> float | None:
    """Seconds to wait, where a ``ratelimit.RateLimitException`` says that the function did not run at all."""
    kind = type(error)
    if kind.__name__ != "RateLimitException" or not kind.__module__.startswith("ratelimit"):
        return None
    remaining = getattr(error, "period_remaining", None)
    if not isinstance(remaining, (int, float)) or not math.isfinite(remaining):
        return None
    return max(0.0, float(remaining))
