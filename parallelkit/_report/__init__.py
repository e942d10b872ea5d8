"""Text, HTML page and trace: writers over one ledger."""

from __future__ import annotations

from parallelkit._report._text import write_text

__all__ = ["write_text"]
