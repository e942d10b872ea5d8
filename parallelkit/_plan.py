"""A run that has been checked: build its parts, drive them, and conclude."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from parallelkit._errors import InputError, RunInterrupted
from parallelkit._executors import open_engine
from parallelkit._executors._contract import Engine, Job, Port
from parallelkit._ledger import Facts, Ledger, cancelled, failure
from parallelkit._loop import DirectSource, Interrupt, Loop, Source, Window, catch_interrupt
from parallelkit._options import Checked, check_options
from parallelkit._outcomes import Outcome
from parallelkit._progress import open_bar
from parallelkit._results import Results, sorted_by_key
from parallelkit._scheduler import Book, Scheduler
from parallelkit._stream import HandedSource, Outbox, Stream, ledger_of, stepwise
from parallelkit._tasks import UNSET, Intake, Portion


@dataclass(slots=True)
class Plan:
    """A run that has been checked and not begun."""

    options: Checked
    fn: Callable[..., Any] | None
    intake: Intake
    stop_note: str = ""
    ledger: Ledger = field(default_factory=Ledger)

    @classmethod
    def make(cls, fn: Any, items: Any, options: dict[str, Any], *, stream: bool = False) -> Plan:
        """Check everything that can be checked before anything runs."""
        checked = check_options(options, order="completion" if stream else "input")
        if stream and checked.order == "key":
            raise ValueError("order must be 'input' or 'completion' for a stream, got 'key'")
        tasks = items is UNSET
        source = fn if tasks else items
        if tasks and callable(fn):
            raise TypeError(f"items must be given together with a function, got only {fn!r}")
        if not tasks and isinstance(fn, Mapping):
            raise TypeError(
                "items must not be given together with a mapping of tasks, which holds all there is to do"
            )
        if not tasks and not callable(fn):
            raise TypeError(f"fn must be callable, got {fn!r}")
        if not isinstance(source, Iterable):
            raise TypeError(f"{'tasks' if tasks else 'items'} must be iterable, got {source!r}")
        intake = Intake(source, key=checked.key, tasks=tasks)
        plan = cls(checked, None if tasks else fn, intake)
        if checked.order == "key" and intake.sized_keys is not None:
            check_sortable(intake.sized_keys)
        return plan

    def collect(self) -> Results[Any, Any]:
        """Run to the end, or to the stop, and return or raise what has become of it."""
        interrupt = Interrupt()
        with catch_interrupt(interrupt):
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
        source = DirectSource(self.intake, self._window(engine), interrupt, self._admit)
        loop = self._loop(self.ledger, self.ledger.key, port, source)
        loop.interrupt = interrupt
        interrupted = False
        try:
            loop.drive()
        except KeyboardInterrupt:
            interrupted = True
            loop.stop("interrupted (Ctrl-C)")
        finally:
            port.close()
            loop.show()
            loop.bar.close()
        return self._conclude(loop, interrupted)

    def _open_ledger(self, engine: Engine) -> Ledger:
        executor = self.options.executor
        name = executor if isinstance(executor, str) else type(executor).__name__
        facts = Facts(name, engine.max_workers, time.monotonic(), timeouts_enforced=executor != "inline")
        facts.cpu_seconds = -time.process_time()
        completion = array("q") if self.options.order == "completion" else None
        return Ledger(facts, completion=completion)

    def _job(self, key: Callable[[int], Any], exact: bool = False) -> Job:
        options = self.options
        return Job(
            self.fn, options.args, options.kwargs, options.star, exact, lambda index: label(key(index))
        )

    def _loop(self, book: Book, key: Callable[[int], Any], port: Port, source: Source) -> Loop:
        options, now = self.options, time.monotonic()
        scheduler = Scheduler(
            book,
            label=lambda index: label(key(index)),
            timeout=options.timeout,
            policy=options.policy,
            end_at=None if options.run_timeout is None else now + options.run_timeout,
            end_reason=f"run_timeout of {options.run_timeout:g} s" if options.run_timeout is not None else "",
            raise_first=options.on_error == "raise",
            max_failures=options.max_failures,
        )
        return Loop(scheduler, port, source, time.monotonic, open_bar(options.progress), self._total)

    def _total(self) -> int | None:
        return self.intake.read_so_far if self.intake.exhausted else self.intake.size

    def _window(self, engine: Engine) -> Window:
        return Window(engine.max_workers, self.options.buffersize)

    def _admit(self, portion: Portion) -> None:
        self.ledger.admit(portion.keys, len(portion.items), time.monotonic())

    def _conclude(self, loop: Loop, interrupted: bool) -> Results[Any, Any]:
        """The results, or the error that carries them."""
        if loop.scheduler.stopped is not None:
            self._cancel_rest()
        facts = self.ledger.facts
        facts.ended_at = time.monotonic()
        facts.cpu_seconds += time.process_time()
        results = self._in_order()
        if interrupted:
            raise RunInterrupted(f"interrupted: {results!r}", results)
        if self.intake.error is not None:
            self.intake.error.results = results
            raise self.intake.error
        if self.options.on_error == "raise" and loop.scheduler.first_error is not None:
            raise noted(loop.scheduler.first_error, results)
        return results

    def _unread(self) -> range:
        """The positions of sized input that were never read."""
        size, error = self.intake.size, self.intake.error
        return range(self.intake.read_so_far, size if size is not None and error is None else 0)

    def _unread_keys(self) -> Sequence[Any]:
        keys, unread = self.intake.sized_keys, self._unread()
        return unread if keys is None else keys[unread.start : unread.stop]

    def _cancel_rest(self) -> None:
        """Sized input: what had not been read gets its outcome too. Any other is closed."""
        unread = self._unread()
        if unread:
            self.ledger.admit(self._unread_keys(), len(unread), time.monotonic())
            self.ledger.cancel(unread, {})
        self.intake.close()

    def _in_order(self) -> Results[Any, Any]:
        if self.options.order == "completion":
            return Results(self.ledger, self.ledger.completion)
        if self.options.order == "input":
            return Results(self.ledger)
        try:
            return Results(self.ledger, sorted_by_key(self.ledger))
        except TypeError as error:
            self.intake.error = InputError("order='key' needs keys that can be compared with each other")
            self.intake.error.__cause__ = error
            return Results(self.ledger)

    def stream(self) -> Iterator[Outcome[Any, Any]]:
        """The generator of ``iter_parallel``; its body runs from the first ``next()`` on."""
        return self._stream(*open_engine(self.options.executor, self.options.max_workers))

    def _stream(self, engine: Engine, owned: bool) -> Iterator[Outcome[Any, Any]]:
        outbox = Outbox(time.monotonic(), self.options.order == "input")
        port = engine.open(self._job(outbox.key))
        source = HandedSource(outbox)
        loop = self._loop(outbox, outbox.key, port, source)
        stream = Stream(loop, source, outbox, self.intake, self._window(engine))
        try:
            if self.options.executor == "inline":
                loop.source = DirectSource(
                    self.intake, self._window(engine), Interrupt(), outbox.admit_portion
                )
                yield from stepwise(loop, outbox)
            else:
                yield from stream.outcomes()
            yield from self._last_of(loop, outbox)
        except KeyboardInterrupt:
            stream.close("interrupted (Ctrl-C)")
            results = Results[Any, Any](ledger_of(stream.rest(), time.monotonic()))
            raise RunInterrupted(f"interrupted; not yet yielded: {results!r}", results) from None
        finally:
            stream.close("the stream was closed")
            port.close()
            loop.show()
            loop.bar.close()
            if owned:
                engine.close()

    def _last_of(self, loop: Loop, outbox: Outbox) -> Iterator[Outcome[Any, Any]]:
        """After the last settled task: what a stop left undone, or the error that ended the stream."""
        scheduler = loop.scheduler
        if self.options.on_error == "raise" and scheduler.first_error is not None:
            raise noted(scheduler.first_error, f"{scheduler.succeeded} succeeded")
        if self.intake.error is not None:
            self.intake.error.results = Results(Ledger())
            raise self.intake.error
        if scheduler.stopped is not None:
            for index, key in zip(self._unread(), self._unread_keys(), strict=True):
                yield failure(key, index, cancelled(scheduler.stopped, None), 0.0, 0.0)
            self.intake.close()


def noted(error: BaseException, done: object) -> BaseException:
    """The error that ends a run, with a note on what was done by then."""
    with suppress(Exception):  # an error class may override add_note; the error itself is what counts
        error.add_note(f"the run was stopped at this failure: {done}")
    return error


def label(key: Any) -> str:
    """A task's name in messages; a key whose ``repr`` fails is named by its type."""
    try:
        return f"task {key!r}"
    except Exception as broken:
        return f"task <{type(key).__name__}, whose repr raised {type(broken).__name__}>"


def check_sortable(keys: Iterable[Any]) -> None:
    """Raise TypeError unless the keys can be sorted."""
    try:
        sorted(keys)
    except TypeError as error:
        raise TypeError(f"key must give values that can be compared, for order='key': {error}") from None
