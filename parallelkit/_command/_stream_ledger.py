"""Keeps a ledger of the stream for the page and the trace: all but the values, some 300 bytes a task."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

from parallelkit._events import Event
from parallelkit._facts import Facts
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost, is_a
from parallelkit._outcomes import Outcome
from parallelkit._raised import OWN
from parallelkit._rebuilt import add


class StreamLedger:
    """Records each outcome that it is given and, from the run's events, the attempts before its last.

    Instants are seconds since the run began.
    """

    def __init__(self) -> None:
        self.ledger = Ledger(keys=[])
        self._cpu_seconds = time.thread_time() - time.process_time()
        self._tries: defaultdict[int | None, list[Lost]] = defaultdict(list)

    def hear(self, event: Event[Any]) -> None:
        """The run's ``on_event``: note an attempt after which there is another."""
        if event.kind == "retrying":
            start = None if event.duration is None else event.at - event.duration
            lost = Lost(event.error, event.attempt or 1, start, event.at, event.worker)
            self._tries[event.index].append(lost)

    def keep(self, outcome: Outcome[Any, Any]) -> None:
        """Add an outcome to the ledger."""
        for lost in self._tries.pop(outcome.index, ()):
            self.ledger.try_again(len(self.ledger), without_frames(lost))
        add(self.ledger, replace(outcome, value=None) if outcome.ok else outcome, without_frames)

    def conclude(self, facts: Facts, wall: float, input_seconds: float, stopped: str | None) -> None:
        """Complete the ledger at the end of the run; ``facts``: what the stream knows of it."""
        cpu_seconds = self._cpu_seconds + time.process_time() - time.thread_time()
        self.ledger.facts = facts.replaced(
            began_at=0.0, ended_at=wall, cpu_seconds=cpu_seconds, input_seconds=input_seconds
        )
        self.ledger.stopped = stopped


def without_frames(lost: Lost) -> Lost:
    """The same, with the traceback as text alone: its frames hold the variables of the task, its data among them."""
    lost.text, lost.frames = lost.traceback, None
    if lost.error is not None:
        drop_chain(lost.error)
    return lost


def drop_chain(error: BaseException) -> None:
    """Remove the error's traceback and what it was raised from, which is in its text."""
    for name in ("__traceback__", "__cause__", "__context__"):
        OWN[name].__set__(error, None)
    for part in error.exceptions if is_a(error, BaseExceptionGroup) else ():
        drop_chain(part)
