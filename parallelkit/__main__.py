"""``python -m parallelkit``."""

from __future__ import annotations

import sys

from parallelkit._cli import main

if __name__ == "__main__":
    sys.exit(main())
