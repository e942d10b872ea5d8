"""A run of ``iter_parallel``: yields its outcomes, and raises the error that ends it, if any."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from parallelkit import _collector
from parallelkit._executors._contract import Engine, close_port
from parallelkit._facts import Facts
from parallelkit._input._portion import Portion
from parallelkit._input._source import Source
from parallelkit._interrupt import Interrupt, hold_interrupt
from parallelkit._ledger import Ledger
from parallelkit._loop import Loop
from parallelkit._raised import add_note
from parallelkit._rebuilt import ledger_of
from parallelkit._results import Results
from parallelkit._runs._endings import interruption, noted
from parallelkit._runs._plan import Plan
from parallelkit._runs._queues import OutcomeQueue, QueuedSource
from parallelkit._runs._stream import HeldSource, Stream, closed_at_exit, stepwise, unread

if TYPE_CHECKING:
    from parallelkit._outcomes import Outcome


class Streamed:
    """Yields the outcomes of a run, and closes whatever was opened for it, however the run ends.

    ``folds``: whether the outcomes are folded. Then the caller sees none before the run is over, and if none is
    missing, a journal that could not be written is only logged.
    """

    def __init__(self, plan: Plan, folds: bool = False) -> None:
        self._plan = plan
        self._folds = folds
        self._whole = False
        self.cut_short = False  # whether the run was stopped with input left that no outcome tells of
        self._raising = plan.options.on_error == "raise"
        self._queue = OutcomeQueue(plan.options.order == "input", self._raising)
        self._enter: Callable[[Portion], None] = partial(plan.enter, self._queue)
        self._loop: Loop | None = None
        self.facts = Facts()  # those of the run, once it has begun

    @property
    def stopped(self) -> str | None:
        """Why the run was stopped; None if it was not stopped, or has not started."""
        return None if self._loop is None else self._loop.scheduler.stopped

    def results_of(
        self, outcomes: Sequence[Outcome[Any, Any]], reason: str | None = None
    ) -> Results[Any, Any]:
        """Outcomes of the run as results, for the error that ends it.

        ``reason``: why it ended, for an end that came too late to stop the run.
        """
        facts = self.facts.replaced(began_at=0.0, ended_at=self._plan.world.now() - self.facts.began_at)
        return Results(ledger_of(outcomes, facts, self.stopped or reason))

    def outcomes(self) -> Generator[Outcome[Any, Any], None, None]:
        """The generator of all outcomes. Executor and journal are checked now, not at the first ``next()``."""
        with hold_interrupt() as guard:
            self._plan.journal.check(guard)
        return closed_at_exit(self._recorded(self._stream(*self._plan.engine(stream=True))))

    def _recorded(
        self, stream: Generator[Outcome[Any, Any], None, None]
    ) -> Generator[Outcome[Any, Any], None, None]:
        """The stream, with the journal open while it runs; at its end, raises an error of writing the journal."""
        try:
            with closing_in_time(self._plan.journal.close), closing_in_time(stream.close):
                with hold_interrupt() as guard:
                    self._plan.journal.open(guard)
                yield from stream
        except GeneratorExit as end:  # closed by the caller: an error of the journal is raised below
            if end.__traceback__ is not None and end.__traceback__.tb_next is not None:
                raise  # no, it was raised by code of the user's, such as the input
        except BaseException as error:
            if self._plan.journal.failure is not None:
                add_note(error, str(self._plan.journal.failure))
            raise
        if self._plan.journal.failure is not None and not (self._folds and self._whole):
            raise self._plan.journal.failure

    def _stream(self, engine: Engine, owned: bool) -> Generator[Outcome[Any, Any], None, None]:
        pid, opened = os.getpid(), ExitStack()
        _collector.watch()
        try:
            opened.callback(self._plan.journal.close)
            opened.callback(self._close_input)
            if owned:
                opened.callback(engine.close)
            stream, loop = self._open(engine, opened)
            yield from self._yielded(stream, loop)
        finally:
            try:
                close_freely(opened, pid)
            finally:
                if not _collector.is_collecting():  # else a thread does it
                    close_freely(opened, pid)  # again, in case a signal handler has raised in the first

    def _open(self, engine: Engine, opened: ExitStack) -> tuple[Stream, Loop]:
        """Make the stream and the loop of the run; ``opened`` gets what closes them."""
        plan, queue = self._plan, self._queue
        self.facts = plan.facts(engine)
        queue.began = self.facts.began_at
        with hold_interrupt() as guard:
            port = engine.open(plan.job(queue.key, whole=self._folds, folds=self._folds, guard=guard))
            try:
                opened.callback(port.close)
                opened.callback(port.close)  # again, in case a signal handler raises in the first
            except BaseException:  # raised by a signal handler: nobody else would close it
                close_port(port)
                raise
        inline = plan.options.executor == "inline"
        handed, window, interrupt = QueuedSource(self._enter), plan.window(engine, direct=inline), Interrupt()
        source: Source = handed
        if inline:
            source = HeldSource(plan.intake, window, interrupt, self._enter, queue=queue)
        self._loop = loop = plan.loop(queue, queue.key, port, source, interrupt)
        opened.callback(self._let_go, loop)
        opened.callback(loop.bar.close)
        opened.callback(loop.show)
        opened.callback(port.close)  # closed before the bar is last drawn
        stream = Stream(loop, handed, queue, plan.intake, window)
        # Twice, in case a signal handler raises in the first: the thread would wait for ever.
        opened.callback(stream.close, "the stream was closed", unseen=True)
        opened.callback(stream.close, "the stream was closed", unseen=True)
        return stream, loop

    def _let_go(self, loop: Loop) -> None:
        """Break the reference cycles, of ``then`` and the loop say, which would keep the whole run until it is collected."""
        self._plan.growth = loop.grow = None
        self._queue.forget()

    def _yielded(self, stream: Stream, loop: Loop) -> Iterator[Outcome[Any, Any]]:
        plan, queue, intake = self._plan, self._queue, self._plan.intake
        error: BaseException | None = None
        try:
            if plan.options.executor == "inline":
                yield from stepwise(loop, queue, intake)
            else:
                yield from stream.outcomes()
            if self._raising and loop.scheduler.first_error is not None:
                error, loop.scheduler.first_error = loop.scheduler.first_error, None
                intake.close()
                broken, intake.error = intake.error, None
                raise noted(error, f"{loop.scheduler.succeeded} succeeded", broken)
            if intake.size is not None:
                yield from unread(intake, queue, self._enter)
            if intake.error is not None:
                error, intake.error = intake.error, None
                error.results = Results(Ledger())
                raise error
            self._whole = loop.scheduler.stopped is None
            self.cut_short = not self._whole and not (intake.exhausted and plan.options.then is None)
        except KeyboardInterrupt:
            reason = "interrupted (Ctrl-C)"
            stream.close(reason)
            intake.close()
            rest = self.results_of(stream.rest(), reason)
            raise interruption("interrupted; not yet delivered", rest) from None
        finally:
            del error  # breaks the cycle: error → traceback → this frame → error, and what was not yielded

    def _close_input(self) -> None:
        """Close the input at the end of the stream; raise the error if the input raises only now."""
        intake = self._plan.intake
        known = intake.error
        intake.close()
        if intake.error is not known and intake.error is not None:
            intake.error.results = Results(Ledger())
            raise intake.error


def close_freely(opened: ExitStack, pid: int) -> None:
    """Close what a stream of this process has opened, as far as that was not done before."""
    # A copy in a forked process has none of the threads, and must leave the workers alone.
    if os.getpid() == pid and not sys.is_finalizing():
        _collector.do_freely(opened.close)


class closing_in_time:  # noqa: N801  # used as a function
    """Calls ``close`` afterwards, unless the interpreter is finalizing, or garbage collection closes the stream.

    At finalization (of a stream that an exit handler began, say) daemon threads are frozen, with whatever locks
    they hold, so waiting for one would never end. Worker processes end with their parent. Nor does a forked
    copy close anything: it has none of the threads.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._pid = os.getpid()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> None:
        if os.getpid() == self._pid and not (sys.is_finalizing() or _collector.is_collecting()):
            self._close()
