"""``parallelkit run``: calls a function for each line, and writes the outcomes; bar and summary go to stderr."""

from __future__ import annotations

import os
import stat
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from types import ModuleType
from typing import Any

from parallelkit._command import FAILED, INTERRUPTED, WELL, UsageError, say
from parallelkit._command._arguments import function_of
from parallelkit._command._lines import Lines, NoJson, recall_no_json
from parallelkit._command._sink import OutputError, Sink, signals_heard
from parallelkit._command._stream_ledger import StreamLedger
from parallelkit._command._tally import Tally
from parallelkit._command._target import find_function
from parallelkit._errors import InputError, ParallelKitError, RunInterrupted
from parallelkit._input._prefetch import Prefetch
from parallelkit._limits import RateLimit
from parallelkit._outcomes import Outcome
from parallelkit._results import Results
from parallelkit._runs._plan import Plan
from parallelkit._runs._streamed import Streamed

SAME = ("executor", "max_workers", "timeout", "run_timeout", "retries", "order", "max_failures", "checkpoint")
"""Options that have the same names in ``iter_parallel``."""


def run_command(arguments: Namespace) -> int:
    """Check what can be checked beforehand, run, print the summary, and return the exit code."""
    check_together(arguments)
    with ExitStack() as at_the_end:
        to_screen = arguments.output is None and os.isatty(1)
        fd = None if arguments.output is not None else take_stdout(at_the_end)
        fn, module = find_function(arguments.target)
        lines = Lines(arguments.inputs, arguments.jsonl, arguments.null)
        if fd is not None:
            refuse_input(lines, os.fstat(fd), "INPUT")
        by, key = (function_of(name, getattr(arguments, name), vars(module)) for name in ("by", "key"))
        by, key = of_rows(by, lambda line: None), of_rows(key, lambda line: line.place)
        limits = tuple(RateLimit(calls, per, by=by) for calls, per in arguments.rate)
        run = Run(arguments, lines, limits)
        bar = os.isatty(2) and not (arguments.quiet or to_screen)
        stream = at_the_end.enter_context(closing(run.open(fn, key, bar)))
        check_files(arguments, lines, module)
        stale = False
        if fd is None:
            fd, stale = open_output(arguments.output, arguments.checkpoint is not None, at_the_end)
        if lines.from_stdin and not arguments.quiet and os.isatty(0):
            say("parallelkit: reading lines from the terminal; end them with Ctrl-D")
        if lines.from_stdin or arguments.executor != "inline":  # which may be for a debugger
            lines.take_stdin(at_the_end)
        return run.go(stream, Sink(fd, at_the_end.enter_context(signals_heard()), stale))


def check_together(arguments: Namespace) -> None:
    """Raise ``UsageError`` for an option that needs another, and for a file that could not be written at the end."""
    if arguments.by is not None and not arguments.rate:
        raise UsageError("argument --by: needs --rate, whose starts it counts by group")
    if arguments.checkpoint is not None and arguments.key is None:
        raise UsageError("argument --checkpoint: needs --key, for instance --key item; positions do not last")
    for name in ("report", "trace"):
        path = getattr(arguments, name)
        if path is not None:
            folder = os.path.dirname(path) or "."
            if not os.path.isdir(folder):
                raise UsageError(f"argument --{name}: {path} cannot be written: there is no folder {folder}")
            if os.path.isdir(path):
                raise UsageError(f"argument --{name}: {path} cannot be written: it is a folder")
            if not os.access(path if os.path.exists(path) else folder, os.W_OK):
                why = "no permission, or a read-only file system"
                raise UsageError(f"argument --{name}: {path} cannot be written: {why}")


def of_rows(
    function: Callable[[Any], Any] | None, otherwise: Callable[[NoJson], Any]
) -> Callable[[Any], Any] | None:
    """Return a function that calls ``function`` for rows, and ``otherwise`` for lines that are not JSON."""
    if function is None:
        return None
    asked = function
    return lambda item: otherwise(item) if isinstance(item, NoJson) else asked(item)


def take_stdout(at_the_end: ExitStack) -> int:
    """Return a descriptor of our own for stdout, and redirect stdout to stderr meanwhile, for what tasks print."""
    if sys.stdout is None:
        raise UsageError("there is no standard output; give --output")
    fd = os.dup(1)
    at_the_end.callback(os.close, fd)
    sys.stdout.flush()
    os.dup2(2, 1)
    at_the_end.callback(os.dup2, fd, 1)
    at_the_end.callback(sys.stdout.flush)
    return fd


def check_files(arguments: Namespace, lines: Lines, module: ModuleType) -> None:
    """Raise ``UsageError`` if one file is named for two purposes: to write it for one would destroy the other."""
    taken = {os.path.realpath(getattr(module, "__file__", None) or os.devnull): "the module"}
    for name in ("checkpoint", "output", "report", "trace"):
        path = getattr(arguments, name)
        if path is None or (os.path.exists(path) and not os.path.isfile(path)):  # a device may be named twice
            continue
        if os.path.exists(path):
            refuse_input(lines, os.stat(path), f"--{name}")
        other = taken.setdefault(os.path.realpath(path), f"--{name}")
        if other != f"--{name}":
            raise UsageError(f"argument --{name}: {path} is {other} as well")


def open_output(path: str, later: bool, at_the_end: ExitStack) -> tuple[int, bool]:
    """Open the output file and empty it; return its descriptor, and whether it is still to be emptied.

    ``later``: empty it when the run has its journal. Another run may have just begun with both files.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | (0 if later else os.O_TRUNC), 0o666)
    except OSError as error:
        raise UsageError(f"argument --output: {path} cannot be written: {error.strerror}") from None
    at_the_end.callback(os.close, fd)
    return fd, later and stat.S_ISREG(os.fstat(fd).st_mode)


def refuse_input(lines: Lines, output: os.stat_result, name: str) -> None:
    """Raise ``UsageError`` if the output would overwrite an input that is still to be read."""
    if (same := lines.same_file(output)) is not None:
        raise UsageError(f"argument {name}: {same} is the input and the output at once")


class Run:
    """One run of the command."""

    def __init__(self, arguments: Namespace, lines: Lines, limits: tuple[RateLimit, ...]) -> None:
        self._arguments = arguments
        self._lines = lines
        self._limits = limits
        self._tally = Tally()
        self._ledger: StreamLedger | None = None
        if arguments.report or arguments.trace:
            self._ledger = StreamLedger()
        self._all_read = False
        self._count_read = 0
        self._input_seconds = 0.0
        self._stopped: str | None = None
        self._in_hand: Outcome[Any, Any] | None = None
        self._prefetch: Prefetch | None = None
        if lines.may_wait() and arguments.executor != "inline":
            self._prefetch = Prefetch(self._read())

    def go(self, stream: Generator[Outcome[Any, Any], None, None], sink: Sink) -> int:
        """Run to the end, or to a stop or an interrupt, and return the exit code."""
        self._sink = sink
        began = time.monotonic()
        code = WELL
        trouble: InputError | OutputError | None = None
        try:
            with closing(stream):
                if self._prefetch is not None:
                    self._prefetch.start()
                self._drain(stream)
                self._stopped = self._streamed.stopped
        except RunInterrupted as interrupt:
            code, self._stopped = INTERRUPTED, "interrupted"
            trouble = self._take_rest(interrupt.results)
        except (InputError, OutputError) as error:
            code, trouble = FAILED, error
        except ParallelKitError as error:  # the checkpoint cannot be written any more: a full disk, say
            self._stopped = str(error)
        finally:
            if self._prefetch is not None:
                self._prefetch.close()
        sink.renew()
        if self._tally.failed or self._stopped is not None:
            code = code or FAILED
        return self._conclude(time.monotonic() - began, code, trouble)

    def open(self, fn: Any, key: Any, bar: bool) -> Generator[Outcome[Any, Any], None, None]:
        """Return the stream; raise ``UsageError`` for an option that the library refuses."""
        options = {name: getattr(self._arguments, name) for name in SAME}
        options |= {"key": key, "limits": self._limits}
        if self._ledger is not None:
            options["on_event"] = self._ledger.hear
        if bar:
            options["progress"] = {"file": sys.stderr, "unit": "line", "dynamic_ncols": True}
        try:
            plan = Plan.make(fn, self._prefetch or self._read(), options, stream=True)
            plan.recalls = (recall_no_json,) if self._arguments.jsonl else ()
            self._streamed = Streamed(plan)
            return self._streamed.outcomes()
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UsageError(with_option(error)) from None

    def _read(self) -> Iterator[Any]:
        before = time.monotonic()
        for item in self._lines:
            self._input_seconds += time.monotonic() - before
            self._count_read += 1
            yield item
            before = time.monotonic()
        self._all_read = True

    def _drain(self, stream: Any) -> None:
        try:
            for outcome in stream:
                self._in_hand = outcome
                self._write(outcome)
        except (TypeError, ValueError) as error:
            if str(error).startswith("checkpoint "):
                raise UsageError(with_option(error)) from None
            raise
        except RunInterrupted:
            raise
        except KeyboardInterrupt as interrupt:  # in our code: the stream may hold more outcomes
            self._sink.hurry()
            if self._in_hand is not None:
                self._write(self._in_hand)
            stream.throw(interrupt)

    def _write(self, outcome: Outcome[Any, Any]) -> None:
        wanted = self._tally.count(outcome)
        if self._ledger is not None:
            self._ledger.keep(outcome)
        self._in_hand = None
        if wanted:
            self._sink.write(outcome)

    def _take_rest(self, results: Results[Any, Any]) -> OutputError | None:
        self._sink.hurry()
        try:
            for outcome in results.outcomes.values():
                self._write(outcome)
            self._sink.finish()
        except OutputError as error:
            return error
        return None

    def _conclude(self, wall: float, code: int, trouble: InputError | OutputError | None) -> int:
        read = self._count_read if self._all_read else None
        if not self._arguments.quiet:
            for line in self._tally.summary(wall, self._stopped, read, in_colour()):
                say(line)
        elif self._stopped is not None and code != INTERRUPTED:  # lines are missing: say why
            say(f"parallelkit run: {self._tally.stop(self._stopped, read)}")
        if trouble is not None:
            say(f"parallelkit run: error: {with_option(trouble)}")
        return self._save(wall) or code

    def _save(self, wall: float) -> int:
        """Save the page and the trace; return the exit code if that fails, else 0."""
        if self._ledger is None:
            return WELL
        self._ledger.conclude(self._streamed.facts, wall, self._input_seconds, self._stopped)
        results: Results[Any, Any] = Results(self._ledger.ledger)
        code = WELL
        for name, save in (("report", results.save_html), ("trace", results.save_trace)):
            path = getattr(self._arguments, name)
            try:
                if path is not None:
                    save(path)
            except OSError as error:
                say(f"parallelkit run: error: --{name} {path}: {error.strerror}")
                code = FAILED
        return code


def with_option(error: Exception) -> str:
    """Return the library's message; if it begins with the name of an option, with that of the command line."""
    name, _, rule = str(error).partition(" ")
    if name in (*SAME, "key", "by"):
        return f"argument --{name.replace('_', '-')}: {rule}"
    return str(error)


def in_colour() -> bool:
    """Whether to use colours: on a terminal, unless the user wants none (https://no-color.org)."""
    return os.isatty(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
