"""``parallelkit demo``: shows the package at work on real input, in half a minute, and checks what it claims."""

from __future__ import annotations

import sys

from parallelkit._demo._claims import Claims
from parallelkit._demo._research import show_research
from parallelkit._demo._tokens import show_tokens


def run_demo() -> bool:
    """Run both halves; return whether every claim holds. Those that do not are repeated on stderr."""
    claims = Claims()
    show_research(claims)
    show_tokens(claims)
    for text in claims.broken:
        print(f"this does not hold: {text}", file=sys.stderr)
    return not claims.broken
