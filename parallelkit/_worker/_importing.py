"""Whether a module is being imported: what it sets meanwhile, it has set in the program, too, before what is set there now."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from types import FrameType


def is_importing() -> bool:
    """Whether this thread is importing a module."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
