"""The task that every system runs; in a module of its own, so that each system can send it to workers."""

from __future__ import annotations

import time
from typing import Any

from deeds import BAD, work  # type: ignore[import-not-found]

NAP = 0.02
"""Seconds that each well-behaved task takes, so that some are running and some waiting when the bad one misbehaves."""


def work_a_little(item: Any, scene: Any, deed: Any) -> Any:
    if item != BAD:
        time.sleep(NAP)
    return work(item, scene, deed)
