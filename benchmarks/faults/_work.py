"""What every system is given to do; in a module of its own, so that each can send it."""

from __future__ import annotations

import time
from typing import Any

from deeds import BAD, work  # type: ignore[import-not-found]

NAP = 0.02
"""Seconds that the others take, so that some run and some wait when the one misbehaves."""


def work_a_little(item: Any, scene: Any, deed: Any) -> Any:
    if item != BAD:
        time.sleep(NAP)
    return work(item, scene, deed)
