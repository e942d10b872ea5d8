"""``parallelkit demo``: the main job on real input, in half a minute; what it prints, it checks."""

from __future__ import annotations

import sys

from parallelkit._demo._claims import Claims
from parallelkit._demo._research import show_research
from parallelkit._demo._tokens import show_tokens


def run_demo() -> bool:
    """Show both halves; False where something does not hold, which is then repeated on stderr."""
    claims = Claims()
    show_research(claims)
    show_tokens(claims)
    for text in claims.broken:
        print(f"this does not hold: {text}", file=sys.stderr)
    return not claims.broken
