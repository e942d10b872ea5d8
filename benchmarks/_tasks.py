"""The work that is handed out; functions of a module, so that every system can send them."""

from __future__ import annotations

import time
from typing import Any


def nothing(item: Any) -> None:
    """The least there is to do."""


def same(item: Any) -> Any:
    return item


def record(item: int) -> dict[str, Any]:
    """A small dict, about 100 bytes pickled."""
    return {"id": item, "name": f"customer {item}", "score": item / 7, "tags": ["new", "eu"]}


def count_to(number: int) -> int:
    """Work for the processor, in proportion to ``number``."""
    total = 0
    for step in range(number):
        total += step & 3
    return total


def spin(seconds: float) -> float:
    """Busy until the time is over, whatever else the machine does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
