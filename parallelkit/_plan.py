"""A run that has been checked: build its parts, drive them, and conclude."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from parallelkit._book import Book
from parallelkit._checkpoint import Unrecorded
from parallelkit._endings import add_note, interruption, noted
from parallelkit._events import Observer
from parallelkit._executors import open_engine
from parallelkit._executors._contract import Engine, Job, Port
from parallelkit._executors._width import usable_cpus
from parallelkit._form import check_form, shape_of
from parallelkit._growth import Growth
from parallelkit._intake import Intake, Portion
from parallelkit._keys import check_keys
from parallelkit._ledger import Facts, Ledger, numbered
from parallelkit._loop import DirectSource, Interrupt, Loop, Source, Window, catch_interrupt
from parallelkit._marks import UNSET
from parallelkit._options import Checked, check_options
from parallelkit._outbox import HandedSource, Outbox
from parallelkit._outcomes import Outcome
from parallelkit._progress import open_bar
from parallelkit._ready import Gated
from parallelkit._recall import memory_recall
from parallelkit._results import Results, sorted_by_key
from parallelkit._scheduler import Scheduler
from parallelkit._stream import Stream, closed_at_exit, ledger_of, stepwise, unread
from parallelkit._world import World, the_world


@dataclass(slots=True)
class Plan:
    """A run that has been checked and not begun."""

    options: Checked
    fn: Callable[..., Any] | None
    intake: Intake
    world: World
    journal: Unrecorded = field(default_factory=Unrecorded)
    growth: Growth | None = None
    ledger: Ledger = field(default_factory=Ledger)

    @classmethod
    def make(cls, fn: Any, items: Any, options: dict[str, Any], *, stream: bool = False) -> Plan:
        """Check everything that can be checked before anything runs."""
        checked = check_options(options, order="completion" if stream else "input")
        if stream and checked.order == "key":
            raise ValueError("order must be 'input' or 'completion' for a stream, got 'key'")
        tasks = items is UNSET
        source = fn if tasks else items
        check_form(fn, items, checked)
        world = the_world.get()
        shape = shape_of(checked, None if tasks else fn, source)
        intake = Intake(source, shape, world.now, lazily=stream)
        if checked.order == "key" and intake.keys is not None:
            check_keys(numbered(intake.keys, 0))
        own_fn = None if tasks or checked.then is not None else fn
        plan = cls(world.stage(checked), own_fn, intake, world)
        if checked.checkpoint is not None:
            from parallelkit._recorder import Recording

            plan.journal = Recording(checked.checkpoint, None if tasks else fn, source, calls=own_fn is None)
        return plan

    # Collected runs.

    def collect(self) -> Results[Any, Any]:
        """Run to the end, or to the stop, and return or raise what has become of it."""
        interrupt = Interrupt()
        with catch_interrupt(interrupt), closing(self.journal):
            self.journal.open()
            engine, owned = open_engine(self.options.executor, self.options.max_workers)
            try:
                return self._collect(engine, interrupt)
            finally:
                if owned:
                    engine.close()

    def _collect(self, engine: Engine, interrupt: Interrupt) -> Results[Any, Any]:
        self.ledger = self._open_ledger(engine)
        port = engine.open(self._job(self.ledger.key))
        interrupt.wake = port.wake
        if hasattr(port, "guard"):  # an executor that runs the caller's code in this thread
            port.guard = interrupt.user_code
        enter = partial(self._enter, self.ledger)
        source = DirectSource(self.intake, self._window(engine), interrupt, enter)
        loop = self._loop(self.ledger, self.ledger.key, port, source)
        loop.interrupt = interrupt
        self._let_grow(loop, self.ledger, enter)
        interrupted = False
        try:
            loop.drive()
        except KeyboardInterrupt:
            interrupted = True
            loop.stop("interrupted (Ctrl-C)")
        finally:
            port.close()
            self.journal.close()
            loop.show()
            loop.bar.close()
        return self._conclude(loop, interrupted or interrupt.asked)

    def _open_ledger(self, engine: Engine) -> Ledger:
        executor = self.options.executor
        name = executor if isinstance(executor, str) else type(executor).__name__
        facts = Facts(name, engine.max_workers, self.world.now(), cpus=usable_cpus())
        facts.timeout, facts.timeouts_enforced = (
            self.options.timeout,
            executor != "inline" or self.world.staged,
        )
        facts.limits = tuple(map(repr, self.options.limits))
        facts.cpu_seconds = time.thread_time() - time.process_time()
        completion = array("q") if self.options.order == "completion" else None
        return Ledger(facts, completion=completion)

    def _conclude(self, loop: Loop, interrupted: bool) -> Results[Any, Any]:
        """The results, or the error that carries them."""
        if loop.scheduler.stopped is not None:
            self._cancel_rest(look=not interrupted)
        if self.journal.failure is not None:
            self.ledger.stopped = self.ledger.stopped or str(self.journal.failure)
        facts = self.ledger.facts
        facts.ended_at = self.world.now()
        facts.cpu_seconds += time.process_time() - time.thread_time()
        facts.input_seconds = self.intake.seconds
        if hasattr(loop.port, "measure"):  # an executor that has noted more
            loop.port.measure(facts)
        results = self._in_order()
        if interrupted:
            raise interruption("interrupted", results)
        if self.intake.error is not None:
            self.intake.error.results = results
            raise self.intake.error
        if self.options.on_error == "raise" and loop.scheduler.first_error is not None:
            raise noted(loop.scheduler.first_error, results)
        return results

    def _cancel_rest(self, *, look: bool) -> None:
        """Sized input: what had not been read gets its outcome too. Any other is closed."""
        unread, first = self.intake.count_unread(look=look), len(self.ledger)
        if unread:
            self.ledger.admit(self.intake.unread_keys(unread), unread, self.world.now())
            self.ledger.cancel(range(first, first + unread), {})
        self.intake.close()

    def _in_order(self) -> Results[Any, Any]:
        if self.options.order == "completion":
            return Results(self.ledger, self.ledger.completion)
        if self.options.order == "input":
            return Results(self.ledger, self.ledger.input_first())
        try:
            return Results(self.ledger, sorted_by_key(self.ledger))
        except TypeError as error:
            self.intake.fail("order='key' needs keys that can be compared with each other", error)
            return Results(self.ledger)

    # Streams.

    def stream(self) -> Generator[Outcome[Any, Any], None, None]:
        """The generator of ``iter_parallel``; its body runs from the first ``next()`` on."""
        self.journal.check()
        engine, owned = open_engine(self.options.executor, self.options.max_workers)
        return closed_at_exit(self._recorded(self._stream(engine, owned)))

    def _recorded(
        self, stream: Generator[Outcome[Any, Any], None, None]
    ) -> Generator[Outcome[Any, Any], None, None]:
        """The stream, with its journal open while it runs; a journal that could not be written is an error at its end."""
        try:
            with closing(self.journal), closing(stream):
                self.journal.open()
                yield from stream
        except GeneratorExit:  # closed by the caller, who hears of it all the same
            pass
        except BaseException as error:
            if self.journal.failure is not None:
                add_note(error, str(self.journal.failure))
            raise
        if self.journal.failure is not None:
            raise self.journal.failure

    def _stream(self, engine: Engine, owned: bool) -> Generator[Outcome[Any, Any], None, None]:
        raising = self.options.on_error == "raise"
        outbox = Outbox(self.world.now, self.options.order == "input", raising)
        port = engine.open(self._job(outbox.key))
        enter = partial(self._enter, outbox)
        source, window = HandedSource(enter), self._window(engine)
        loop = self._loop(outbox, outbox.key, port, source)
        self._let_grow(loop, outbox, enter)
        stream = Stream(loop, source, outbox, self.intake, window)
        try:
            if self.options.executor == "inline":
                loop.source = DirectSource(self.intake, window, Interrupt(), enter)
                yield from stepwise(loop, outbox, self.intake)
            else:
                yield from stream.outcomes()
            if raising and loop.scheduler.first_error is not None:
                raise noted(loop.scheduler.first_error, f"{loop.scheduler.succeeded} succeeded")
            if loop.scheduler.stopped is not None and self.intake.size is not None:
                yield from unread(self.intake, outbox, enter)
            if self.intake.error is not None:
                self.intake.error.results = Results(Ledger())
                raise self.intake.error
        except KeyboardInterrupt:
            reason = "interrupted (Ctrl-C)"
            stream.close(reason)
            self.intake.close()
            rest = ledger_of(stream.rest(), self.world.now() - outbox.began, reason)
            raise interruption("interrupted; not yet yielded", Results(rest)) from None
        finally:
            if not stream.is_fork:
                stream.close("the stream was closed")
                port.close()
                loop.show()
                loop.bar.close()
                if owned:
                    engine.close()
                self._close_input()

    def _close_input(self) -> None:
        """After whatever has ended the stream; an input that fails even then is no secret."""
        known = self.intake.error
        self.intake.close()
        if self.intake.error is not known and self.intake.error is not None:
            raise self.intake.error

    # What both are made of.

    def _enter(self, book: Ledger | Outbox, portion: Portion) -> None:
        """Tasks just read, or made by ``then``, get their keys and their places in the book."""
        self.intake.number(portion, len(book))
        book.admit(portion.keys, len(portion.items), self.world.now(), portion.parent)

    def _job(self, key: Callable[[int], Any]) -> Job:
        options, exact = self.options, self.intake.shape.gated
        star = options.star and self.fn is not None
        return Job(self.fn, options.args, options.kwargs, star, exact, lambda index: label(key(index)))

    def _loop(self, book: Book, key: Callable[[int], Any], port: Port, source: Source) -> Loop:
        options, now = self.options, self.world.now()
        scheduler = Scheduler(
            self.journal.record(book, self.intake.fail),
            label=lambda index: label(key(index)),
            timeout=options.timeout,
            policy=options.policy,
            end_at=None if options.run_timeout is None else now + options.run_timeout,
            end_reason=f"run_timeout of {options.run_timeout or 0:g} s",
            raise_first=options.on_error == "raise",
            max_failures=options.max_failures,
            gated=Gated(options.limits, wake=port.wake) if self.intake.shape.gated else None,
        )
        loop = Loop(scheduler, port, source, self.world.now, open_bar(options.progress), self._total)
        if options.on_event is not None:
            scheduler.news = []
            loop.observer = Observer(options.on_event, key, now, getattr(port, "fate", None))
        cache = memory_recall(self.fn, options.args, options.kwargs, options.star)
        loop.recalls = (*(() if cache is None else (cache,)), *self.journal.recalls)
        self.journal.stop_by(partial(ask_to_stop, loop))
        return loop

    def _total(self) -> int | None:
        size = self.intake.read_so_far if self.intake.exhausted else self.intake.size
        return size if size is None or self.growth is None else size + self.growth.children

    def _window(self, engine: Engine) -> Window:
        """How far to read ahead: with priorities all of a sized input, for any of it may come first."""
        whole = self.intake.size if self.options.priority is not None else None
        return Window(engine.max_workers, self.options.buffersize or whole)

    def _let_grow(self, loop: Loop, book: Ledger | Outbox, enter: Callable[[Portion], None]) -> None:
        if self.options.then is not None:
            book.keep_settled()
            self.growth = Growth(self.options.then, self.intake, loop, book, enter)
            loop.grow = self.growth


def ask_to_stop(loop: Loop, reason: str) -> None:
    """From any thread: stop at the next safe point."""
    loop.asked = reason
    loop.port.wake()


def label(key: Any) -> str:
    """A task's name in messages; a key whose ``repr`` fails is named by its type."""
    try:
        return f"task {key!r}"
    except Exception as broken:
        return f"task <{type(key).__name__}, whose repr raised {type(broken).__name__}>"
