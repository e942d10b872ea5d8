"""Outcomes as flat dicts, and as a DataFrame."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from parallelkit._raised import describe_error

if TYPE_CHECKING:
    from parallelkit._outcomes import Outcome


def as_row(outcome: Outcome[Any, Any]) -> dict[str, Any]:
    """One outcome as a flat dict."""
    return {
        "key": outcome.key,
        "index": outcome.index,
        "ok": outcome.ok,
        "value": outcome.value if outcome.ok else None,
        "error_type": None if outcome.ok else type(outcome.error).__name__,
        "error": None if outcome.ok else describe_error(outcome.error),
        "attempts": outcome.attempts,
        "queued_at": outcome.queued_at,
        "started_at": outcome.started_at,
        "duration": outcome.duration,
        "worker": outcome.worker,
        "parent": outcome.parent,
    }


def as_frame(rows: list[dict[str, Any]]) -> Any:
    """The rows as a pandas DataFrame, which has its columns even without any row.

    pandas makes floats of whole numbers beside a None, as of a failed task. Where that would change one (an id of 17
    digits, say), the column has the objects.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("Results.to_frame needs pandas: pip install pandas") from error
    from parallelkit._outcomes import Success

    columns = list(as_row(Success(None, 0, None, 1, 0.0, 0.0, 0.0, "")))
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("key", "value", "parent"):
        if frame[name].dtype.kind == "f" and not all(is_exact(row[name]) for row in rows):
            frame[name] = pd.Series([row[name] for row in rows], dtype=object)
    return frame.set_index("key")


def is_exact(thing: Any) -> bool:
    """Whether a float can hold this number, if it is a whole one."""
    return not isinstance(thing, Integral) or int(float(thing)) == int(thing)
