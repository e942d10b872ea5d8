"""How long to wait before a retry, if the error says so."""

from __future__ import annotations

import math
from typing import Any

from parallelkit._raised import attribute_or_none, tolerated

PAUSES = "Retry-After"  # the repr of a limit that exists only to be paused
LONGEST = 300.0  # seconds; no longer wait is honoured
SHORTEST = 0.01  # seconds until a function is called again that did not run; with 0 the run might do nothing else for ever


def retry_after(error: BaseException) -> float | None:
    """Seconds, from the error's ``retry_after`` or an HTTP error's Retry-After header; None without a valid one.

    A header is read as in RFC 9110 §10.2.3: seconds, or a date. It is looked for on the error's ``response``, as in
    requests, or else on the error itself, which is the response in urllib.

    >>> error = OSError()
    >>> error.retry_after = "2"
    >>> retry_after(error)
    2.0
    """
    with tolerated():  # attributes that are missing or raise say nothing
        told = attribute_or_none(error, "retry_after")
        if told is None:
            response = attribute_or_none(error, "response")
            headers = attribute_or_none(error if response is None else response, "headers")
            told = headers.get("Retry-After")
            if told is None:  # a plain dict may have it as HTTP/2 writes it
                told = headers.get("retry-after")
        return _seconds(told)
    return None


def _seconds(told: Any) -> float | None:
    try:
        seconds = float(told)
    except ValueError:
        from datetime import UTC, datetime
        from email.utils import parsedate_to_datetime  # takes 9 ms, and is rarely needed

        seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        return max(0.0, seconds)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def did_not_run(error: BaseException) -> float | None:
    """Seconds to wait, if a ``ratelimit.RateLimitException`` says that the function did not run at all."""
    kind = type(error)
    if kind.__name__ != "RateLimitException" or not kind.__module__.startswith("ratelimit"):
        return None
    remaining = getattr(error, "period_remaining", None)
    return max(SHORTEST, float(remaining)) if isinstance(remaining, (int, float)) else None
