"""What workers do whose start is timed: in a module by itself, so that loading it costs them next to nothing."""

from __future__ import annotations

import os
import time


def nap_and_tell(seconds: float) -> int:
    """In which process it was."""
    time.sleep(seconds)
    return os.getpid()
