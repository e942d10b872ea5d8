"""Outcomes as flat dicts, and as a DataFrame."""

from __future__ import annotations

from typing import Any

from parallelkit._lost import describe
from parallelkit._outcomes import Outcome

COLUMNS = [
    "key",
    "index",
    "ok",
    "value",
    "error_type",
    "error",
    "attempts",
    "queued_at",
    "started_at",
    "duration",
    "worker",
    "parent",
]


def as_row(outcome: Outcome[Any, Any]) -> dict[str, Any]:
    """One outcome as a flat dict."""
    return {
        "key": outcome.key,
        "index": outcome.index,
        "ok": outcome.ok,
        "value": outcome.value if outcome.ok else None,
        "error_type": None if outcome.ok else type(outcome.error).__name__,
        "error": None if outcome.ok else describe(outcome.error),
        "attempts": outcome.attempts,
        "queued_at": outcome.queued_at,
        "started_at": outcome.started_at,
        "duration": outcome.duration,
        "worker": outcome.worker,
        "parent": outcome.parent,
    }


def as_frame(rows: list[dict[str, Any]]) -> Any:
    """The rows as a pandas DataFrame, which has its columns even without any row."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("Results.to_frame needs pandas: pip install pandas") from error
    return pd.DataFrame(rows, columns=COLUMNS).set_index("key")
