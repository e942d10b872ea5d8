"""The report as text: about a screenful."""

from __future__ import annotations

from parallelkit._ledger import Ledger
from parallelkit._report._summary import summarize


def write_text(ledger: Ledger, cost_per_attempt: float | None = None) -> str:
    """See ``Results.report``."""
    summary = summarize(ledger)
    return f"{summary}"
