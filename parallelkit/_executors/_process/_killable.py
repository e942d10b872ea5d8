"""The process of a worker: whether it was killed, and why, until it is reaped or given up."""

from __future__ import annotations

import os
import select
from math import inf

from parallelkit._conditions import Event
from parallelkit._executors._process._killing import PATIENCE, kill, status_of
from parallelkit._executors._process._lane import Why
from parallelkit._executors._process._spawn import cut_lifeline
from parallelkit._system import monotonic


class Killable:
    """Runs, is killed, is given up if that does not end it, and is reaped once it has ended."""

    def __init__(self, pid: int, pidfd: int, lifeline: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._lifeline = lifeline
        self.why = Why.ITSELF  # why it ends: the first reason that there was, or garbage
        self.give_up_at = inf  # set once it is killed
        self.check_at = inf  # when to look at it, even if nothing happens
        self.gone = Event()  # set when it is settled: it has ended, or was given up

    @property
    def killed(self) -> bool:
        """Whether it was killed; what it has committed is taken when it has ended, and not before."""
        return self.give_up_at < inf

    def kill(self, why: Why = Why.ITSELF) -> None:
        """Kill it and its children; by its lifeline, if this process may not (it may have given up root)."""
        if self.why is Why.ITSELF:
            self.why = why
        if not self.killed:
            self.check_at = self.give_up_at = monotonic() + PATIENCE
        if not kill(self.pid, self.pidfd):
            cut_lifeline(self._lifeline)
            self._lifeline = -1

    def condemn(self) -> None:
        """Kill it, for what it writes makes no sense."""
        self.why = Why.GARBAGE
        self.kill()

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Wait for its end, but not longer than this; return whether it has ended."""
        dying = select.poll()
        dying.register(self.pidfd, select.POLLIN)
        return bool(dying.poll(max(0.0, seconds) * 1000))

    def give_up(self) -> None:
        """Note that the kernel does not end it."""
        if self.why is Why.OVERDUE:
            self.why = Why.UNENDED

    def reap(self) -> int | None:
        """Kill what is left of its group, and wait no more for its end; return its status if it has ended."""
        self.kill()
        status = status_of(self.pid, self.pidfd)
        cut_lifeline(self._lifeline)
        os.close(self.pidfd)
        return status
