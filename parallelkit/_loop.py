"""``drive``: the one loop that joins input, scheduler, executor, clock and progress.

It blocks in one place, ``port.wait``, for exactly as long as nothing can be decided.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from parallelkit._events import Observer
from parallelkit._executors._contract import Block, Ended, Port
from parallelkit._intake import PORTION, Intake, Portion
from parallelkit._lost import describe
from parallelkit._marks import UNSET
from parallelkit._progress import Silent
from parallelkit._recall import Recall, Recalled
from parallelkit._scheduler import Scheduler

WINDOW = 32  # tasks read ahead, for each worker
WIDEST = 5_000  # how far the default window grows with what is done
AT_HAND = 1_000  # tasks read ahead of a list, tuple or range, where reading neither costs nor keeps anything

Clock = Callable[[], float]


class Source(Protocol):
    """Where the loop gets its tasks: read here and now, or handed over by another thread."""

    @property
    def exhausted(self) -> bool:
        """Whether no more will come."""

    def next(self, ahead: int) -> Portion | None:
        """What may be admitted now, with ``ahead`` tasks of the input not settled; None: nothing now."""


@dataclass(slots=True)
class Interrupt:
    """Ctrl-C as a flag that the loop obeys where no outcome can be lost.

    While the caller's own code runs (``exposed``), and from the second Ctrl-C on, it is raised at once.
    """

    wake: Callable[[], None] = lambda: None
    asked: bool = False
    raised: bool = False
    exposed: bool = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        at_once = self.exposed or self.asked or self.raised
        self.asked = True
        if at_once:
            self.obey()
        self.wake()

    def obey(self) -> None:
        """Raise what was asked for, if it was."""
        if self.asked:
            self.asked, self.raised = False, True
            raise KeyboardInterrupt

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """Code of the caller's runs in this block."""
        before, self.exposed = self.exposed, True
        try:
            self.obey()
            yield
        finally:
            self.exposed = before


@contextmanager
def catch_interrupt(interrupt: Interrupt) -> Iterator[None]:
    """Turn SIGINT into the flag, in the main thread, where nobody has taken the signal but a run around this one."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or not (before is signal.default_int_handler or isinstance(before, Interrupt)):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupt.asked:  # too late for the loop, and nobody else has heard of it
        raise KeyboardInterrupt


@dataclass(slots=True)
class Window:
    """How far the input is read ahead of what is done (``buffersize``)."""

    workers: int
    size: int | None = None

    def room(self, ahead: int, done: int, at_hand: bool = False) -> int:
        """How many more may be read, with ``ahead`` of them read and not yet done; what ``then`` makes is not read."""
        least = max(WINDOW * self.workers, AT_HAND if at_hand else 0)
        size = self.size or max(least, min(done, WIDEST))
        return size - ahead


@dataclass(slots=True)
class DirectSource:
    """Reads the caller's input in the thread of the loop, a portion at a time, or ``one_by_one``."""

    intake: Intake
    window: Window
    interrupt: Interrupt
    admit: Callable[[Portion], None]
    one_by_one: bool = False

    @property
    def exhausted(self) -> bool:
        return self.intake.exhausted

    def next(self, ahead: int) -> Portion | None:
        room = self.window.room(ahead, self.intake.read_so_far - ahead, self.intake.at_hand)
        if room <= 0 or self.intake.exhausted:
            return None
        with self.interrupt.user_code():
            portion = self.intake.read(1 if self.one_by_one else room)
        if portion is not None:
            self.admit(portion)
        return portion


@dataclass(slots=True)
class Loop:
    """What one run is made of."""

    scheduler: Scheduler
    port: Port
    source: Source
    clock: Clock
    bar: Silent = field(default_factory=Silent)
    total: Callable[[], int | None] = lambda: None
    interrupt: Interrupt = field(default_factory=Interrupt)
    grow: Callable[[], bool] = lambda: False  # makes new tasks of what has been settled; whether it did
    recalls: Sequence[Recall] = ()  # what knows outcomes of tasks before they start
    observer: Observer | None = None
    asked: str | None = None  # why somebody else wants the run to stop
    eager: bool = False  # whether what was read is handed over before the next item is asked for
    stirred: bool = False  # whether something had happened when the last wait ended

    def drive(self) -> None:
        """Run until every task is settled or the run is stopped."""
        while self.step():
            pass

    def step(self) -> bool:
        """Read what may be read, start what may start, wait, settle; False when there is no more to do."""
        scheduler, port = self.scheduler, self.port
        read = self._read()
        grew = self.grow()
        self._obey()  # what was recalled may be reason enough to start nothing
        if scheduler.stopped is not None:
            return False
        now = self.clock()
        if scheduler.wants_reports(now):
            scheduler.begun(port.running(), now)
        handed = self._hand_over() or (read and self.eager)
        if not (scheduler.open or grew) and self.source.exhausted:
            return False
        scheduler.finish(self._wait(self._until(grew or read, handed)), self.clock())
        self._tell()
        self.show()
        self._obey()
        return scheduler.stopped is None

    def _read(self) -> bool:
        """Read and admit a portion, or for a moment item by item; whether there was anything."""
        scheduler, source = self.scheduler, self.source
        portion = source.next(scheduler.unsettled_input)
        if portion is None:
            return False
        self.admit(portion)
        end = self.clock() + PORTION
        # An input may wait for what its last item does: so that runs by the time the next one is asked for.
        while self.eager and self._hand_over() and self.port.room() > 0 and self.clock() < end:
            portion = source.next(scheduler.unsettled_input)
            if portion is None:
                break
            self.admit(portion)
        return True

    def _hand_over(self) -> bool:
        """Start what may start; whether there was anything."""
        due = self.scheduler.start_due(self.clock(), self.port.room())
        self.port.start(due)
        return bool(due)

    def admit(self, portion: Portion) -> None:
        """New tasks, of the input or of ``then``."""
        scheduler = self.scheduler
        first = scheduler.admitted
        known: dict[int, Recalled] = {}
        try:
            for recall in self.recalls:
                with self.interrupt.user_code():
                    known.update(recall(portion, first))
        finally:  # also when interrupted: these tasks have their rows, and need their outcomes
            made = portion.parent is not UNSET
            scheduler.admit(portion.items, portion.own, portion.traits, known, made)
            if self.observer is not None:
                self.observer.admitted(
                    index for index in range(first, scheduler.admitted) if index - first not in known
                )
            for offset, recalled in known.items():
                scheduler.recall(first + offset, recalled, self.clock())

    def _wait(self, until: float | None) -> list[Block | Ended]:
        ended = self.port.wait(until)
        if self.observer is not None:
            self.stirred = bool(ended) or until is None or self.clock() < until
        return ended

    def _until(self, again: bool, handed: bool) -> float | None:
        """When to come back at the latest: at once where there may be more to read, or to grow."""
        if again:
            return self.clock()
        at = self.scheduler.wake_at()
        return (
            at if self.observer is None else self.observer.look_at(self.clock(), at, handed or self.stirred)
        )

    def _tell(self) -> None:
        """Tell the observer what has begun and what has ended."""
        if self.observer is None:
            return
        news, running = self.scheduler.take_news(), self.port.running()
        try:
            with self.interrupt.user_code():
                self.observer.ended(news)
                self.observer.begun(running)
        except KeyboardInterrupt:
            self.observer = None  # lest it hold up the stop that follows
            raise

    def _obey(self) -> None:
        """The one safe point: everything that has come in is settled, nothing is half done."""
        self.interrupt.obey()
        if self.scheduler.open or not self.source.exhausted:
            reason = self._stop_reason()
            if reason is not None:
                self.stop(reason)

    def _stop_reason(self) -> str | None:
        if self.asked is not None:
            return self.asked
        if self.port.failure is not None:
            return reason_of(self.port.failure)
        return self.scheduler.stop_reason(self.clock())

    def stop(self, reason: str) -> None:
        """The stop rule: withdraw what is queued, kill or abandon what runs, wait for nothing."""
        now = self.clock()
        running = self.port.running()
        self.port.close()
        self.scheduler.finish(self.port.wait(now), now)  # what was committed before the close is delivered
        self._tell()
        self.scheduler.stop(reason, now, running)
        self._tell()

    def show(self) -> None:
        """Bring the bar up to date."""
        scheduler = self.scheduler
        self.bar.show(self.total(), scheduler.settled, scheduler.failed, scheduler.retried)


def reason_of(failure: Exception) -> str:
    """Why nothing can run any more, with what caused it."""
    return f"{failure}" if failure.__cause__ is None else f"{failure} ({describe(failure.__cause__)})"
