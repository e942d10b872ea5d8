"""The task of workers whose start is timed, in a module of its own so that importing it costs next to nothing."""

from __future__ import annotations

import os
import time


def nap_and_tell(seconds: float) -> int:
    """Sleep; return the worker's pid."""
    time.sleep(seconds)
    return os.getpid()
