"""A run of ``run_parallel``: driven in the caller's thread, all its outcomes kept in a ledger."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from parallelkit._executors._contract import Engine, Port
from parallelkit._input._keys import check_keys
from parallelkit._input._source import DirectSource
from parallelkit._interrupt import Interrupt, catch_interrupt
from parallelkit._ledger import Ledger
from parallelkit._loop import Loop
from parallelkit._marks import UNSET
from parallelkit._results import Results
from parallelkit._runs._endings import interruption, noted
from parallelkit._runs._interruptible import InterruptibleCall
from parallelkit._runs._plan import Plan


class Collected:
    """Drives a run to its end, or to its stop, and concludes it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._interrupt = Interrupt()
        self.ledger = Ledger()

    def run(self) -> Results[Any, Any]:
        """Return the results, or raise the error that carries them; whatever was opened for the run is closed by then."""
        results, error = self._ended()
        if error is None:
            return results
        try:
            raise error
        finally:  # The error's traceback refers to this frame, which would close a cycle that holds all values.
            del results, error

    def _ended(self) -> tuple[Results[Any, Any], BaseException | None]:
        """Do the run; return the results, and the error to raise in their place, if any."""
        with catch_interrupt(self._interrupt):
            # Not by way of variables: from the frames in an error's traceback, ``f_back`` leads to this one.
            return self._unless_interrupted(*self._done())

    def _done(self) -> tuple[Results[Any, Any], BaseException | None]:
        """Do the run, and close all that was opened for it."""
        journal = self._plan.journal
        with closing(journal), ExitStack() as opened:
            opened.callback(self._forget)
            journal.open(self._interrupt.user_code)
            engine, owned = self._plan.engine()
            if owned:
                opened.callback(engine.close)
            self.ledger = self._open_ledger(engine)
            port = engine.open(self._plan.job(self._key, whole=True, guard=self._interrupt.user_code))
            try:  # no ``with``, on the way into which a signal handler may raise
                try:
                    loop = self._loop(engine, port)
                    interrupted = self._drive(loop)
                finally:
                    port.close()
            finally:
                port.close()  # again, in case a second one raised in the first
            return self._conclude(loop, interrupted)

    def _unless_interrupted(
        self, results: Results[Any, Any], error: BaseException | None
    ) -> tuple[Results[Any, Any], BaseException | None]:
        if self._interrupt.asked:  # Ctrl-C came too late for the loop to obey it
            self._interrupt.asked = False
            error = interruption("interrupted", results)
        return results, error

    def _loop(self, engine: Engine, port: Port) -> Loop:
        plan, interrupt = self._plan, self._interrupt
        interrupt.wake = port.wake
        window, enter = plan.window(engine, direct=True), partial(plan.enter, self.ledger)
        source = DirectSource(plan.intake, window, interrupt, enter)
        loop = plan.loop(self.ledger, self._key, port, source, interrupt)
        if plan.intake.flows and port.flows and not loop.recalls:
            loop.flowing = source
        return loop

    def _drive(self, loop: Loop) -> bool:
        """Run to the end, or to the stop; return whether Ctrl-C stopped it."""
        interrupted = False
        try:
            loop.drive()
        except KeyboardInterrupt:
            interrupted = True
            loop.stop("interrupted (Ctrl-C)")
        finally:
            loop.port.close()
            self._let_go(loop)
            self._plan.journal.close()
            loop.show()
            loop.bar.close()
        return interrupted

    def _key(self, index: int) -> Any:
        return self.ledger.key(index)

    def _forget(self) -> None:
        """Let go of the results: a failure's traceback refers to the port, and the port to this object."""
        self.ledger = Ledger()
        self._plan.intake.error = None
        self._plan.growth = None

    def _let_go(self, loop: Loop) -> None:
        """Break the cycles between the parts, which would keep all values until the next garbage collection."""
        self._interrupt.wake = Interrupt().wake
        loop.grow = None

    def _open_ledger(self, engine: Engine) -> Ledger:
        facts = self._plan.facts(engine)
        facts.cpu_seconds = time.thread_time() - time.process_time()
        completion = array("q") if self._plan.options.order == "completion" else None
        return Ledger(facts, completion=completion)

    def _conclude(self, loop: Loop, interrupted: bool) -> tuple[Results[Any, Any], BaseException | None]:
        """Settle what is left; return the results, and the error that ends the run, if any."""
        call_user = InterruptibleCall(self._interrupt)
        self._cancel_unread(call_user, look=not interrupted)
        call_user(self._plan.intake.close)
        if not interrupted and self._is_whole():
            self.ledger.stopped = None
        if self._plan.journal.failure is not None:
            self.ledger.stopped = self.ledger.stopped or str(self._plan.journal.failure)
        facts = self.ledger.facts
        facts.ended_at = self._plan.world.now()
        facts.cpu_seconds += time.process_time() - time.thread_time()
        facts.input_seconds = self._plan.intake.seconds
        loop.port.measure(facts)
        results = self._in_order()
        if interrupted:
            return results, interruption("interrupted", results)
        if self._plan.options.on_error == "raise" and loop.scheduler.first_error is not None:
            return results, noted(loop.scheduler.first_error, results, self._plan.intake.error)
        if self._plan.intake.error is not None:
            self._plan.intake.error.results = results
            return results, self._plan.intake.error
        return results, None

    def _cancel_unread(self, call_user: InterruptibleCall, *, look: bool) -> None:
        """Cancel what had not been read of sized input when the run was stopped; ``look``: see ``Intake.count_unread``."""
        intake, first = self._plan.intake, len(self.ledger)
        unread = call_user(partial(intake.count_unread, look=look))
        if unread is UNSET:
            unread = intake.count_unread(look=False)
        if unread:
            self.ledger.admit(intake.unread_keys(unread), unread, self._plan.world.now())
            self.ledger.cancel(range(first, first + unread), {})

    def _is_whole(self) -> bool:
        """Whether the stop cut nothing off: every task was done, only the end of the input had not been seen yet."""
        plan = self._plan
        ended = plan.intake.size is not None and plan.intake.error is None and plan.options.then is None
        return ended and not self.ledger.cancelled

    def _in_order(self) -> Results[Any, Any]:
        if self._plan.options.order == "completion":
            return Results(self.ledger, self.ledger.completion)
        if self._plan.options.order == "input":
            return Results(self.ledger, self.ledger.input_first())
        try:
            return Results(self.ledger, sorted_by_key(self.ledger))
        except Exception as error:
            self._plan.intake.fail(str(error), error)
            return Results(self.ledger)


def sorted_by_key(ledger: Ledger) -> list[int]:
    """Return the indices in the order of their keys; raise TypeError, naming two, if keys cannot be compared."""
    by_key: Callable[[int], Any] = ledger.key
    try:
        return sorted(range(len(ledger)), key=by_key)
    except Exception:
        check_keys([*map(by_key, range(len(ledger)))])
        raise
