"""The end of the program: what was submitted to executors is waited for, as the standard pools do."""

from __future__ import annotations

import atexit
from typing import Protocol
from weakref import WeakSet

from parallelkit._collector import wait_apart


class Staying(Protocol):
    """What has work to finish."""

    def shut(self, cancel_futures: bool) -> None:
        """Take no more."""

    def join(self) -> None:
        """Wait until all is done."""


_leaving = False
_staying: WeakSet[Staying] = WeakSet()


def stay_for(one: Staying) -> None:
    """At exit, wait for this one, if it is still there."""
    _staying.add(one)


def is_leaving() -> bool:
    """Whether the program ends."""
    return _leaving


def _finish_all() -> None:
    global _leaving
    _leaving = True
    for one in list(_staying):
        one.shut(False)
        one.join()
    wait_apart()  # for those that the collector has found


atexit.register(_finish_all)
