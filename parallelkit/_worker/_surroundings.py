"""The state of the process that tasks find: set up like the parent's, and restored after a task that changes it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of, which would load enum
import builtins
import os
import posix
import sys
from _sitebuiltins import Quitter
from io import TextIOWrapper

from parallelkit._forked import end_child
from parallelkit._system import environment
from parallelkit._worker._importing import is_importing
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def furnish(setup: dict[str, Any]) -> None:
    """Make this fresh interpreter look like the parent."""
    sys.prefix, sys.exec_prefix = setup["prefix"], setup["exec_prefix"]
    if setup["site"]:
        import site

        site.main()
    else:
        for name in ("exit", "quit"):
            setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.path[:] = setup["path"]
    sys.dont_write_bytecode, sys.pycache_prefix = setup["bytecode"]
    if setup["off_path"]:
        from parallelkit._worker._finder import OffPathFinder

        sys.meta_path.insert(0, OffPathFinder(setup["off_path"]))
    flags = {name: getattr(sys.flags, name) for name in sys.flags.__match_args__}
    sys.flags = Flags(**(flags | setup["flags"]))  # type: ignore[assignment]  # its own type cannot be instantiated
    if setup["authkey"] is not None:
        from multiprocessing import process

        process.current_process().authkey = setup["authkey"]
    sys.argv[:] = setup["argv"]
    # The terminal is not ours. Without this, whatever asks there would stop us, with no end; now it gets an error.
    # Blocked, too: ssh handles these signals, and would ask again and again.
    asks = (_signal.SIGTTIN, _signal.SIGTTOU)
    for number in asks:
        _signal.signal(number, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, asks)
    for stream, (encoding, errors) in zip((sys.stdout, sys.stderr), setup["encodings"], strict=True):
        if stream is not None:
            try:
                stream.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]  # a text file at the start
            except LookupError:
                pass  # the codec is one that the program has registered itself
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]  # the same


def set_environment(environ: dict[str, str]) -> None:
    """Change the environment to this one, while other threads may be changing it, too."""
    for name in set(os.environ) - environ.keys():
        os.environ.pop(name, None)
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


_own_flags = sys.flags


class Flags(tuple):  # type: ignore[type-arg]  # of ints and bools, and no typing here
    """``sys.flags`` with the parent's values. Our own (-S, say) would be passed on to programs that joblib starts."""

    def __new__(cls, **fields: Any) -> Flags:
        self = super().__new__(cls, fields.values())
        self.__dict__.update(fields)
        return self

    def __getattr__(self, name: str) -> Any:
        """What is not in the tuple, such as ``gil``."""
        return getattr(_own_flags, name)

    def __reduce__(self) -> Any:
        """Sent by name: in the parent they are its own."""
        return getattr, (sys, "flags")


class WarningFilters:
    """The parent's warning filters; one whose category is of a module that is not loaded waits until it is.

    They stay ahead of those that modules add as they are imported, such as statsmodels.
    """

    def __init__(self, filters: list[tuple[Any, ...]] | None) -> None:
        self._filters = filters or []
        self._installed: dict[int, tuple[Any, ...]] = {}
        """By their places among the parent's filters."""
        if filters is not None:
            import warnings

            warnings.resetwarnings()
            self.apply()
            add, ours = warnings._add_filter, warnings.filters  # type: ignore[attr-defined]  # private; what simplefilter calls
            # Since Python 3.14 there may be a list for each context.
            present = getattr(warnings, "_get_filters", lambda: warnings.filters)

            def add_behind(*item: Any, append: bool) -> None:
                """Within ``catch_warnings``, where there is another list, a module needs what it adds as it is imported."""
                add(*item, append=append or (present() is ours and is_importing()))

            warnings._add_filter = add_behind  # type: ignore[attr-defined]  # the same

    def apply(self) -> None:
        """Install the filters that can be installed by now, each at its place among the parent's others."""
        if len(self._installed) == len(self._filters):
            return
        import warnings

        filters: list[tuple[Any, ...]] = warnings.filters  # type: ignore[assignment]  # declared a Sequence; it is a list
        for at in reversed(range(len(self._filters))):
            action, message, category_module, category, module, line = self._filters[at]
            if at not in self._installed and category_module in sys.modules:
                item = action, message, unpack(category), module, line
                others = {
                    number: filters.index(each) for number, each in self._installed.items() if each in filters
                }
                following = [place for number, place in others.items() if number > at]
                filters.insert(min(following) if following else 1 + max(others.values(), default=-1), item)
                self._installed[at] = item
        warnings._filters_mutated()  # type: ignore[attr-defined]  # private; what simplefilter calls


def _hooks_of_threads() -> tuple[Any, Any]:
    """The trace and profile functions that new threads get."""
    threading = sys.modules.get("threading")
    return (None, None) if threading is None else (threading.gettrace(), threading.getprofile())


def flush(*streams: Any) -> None:
    """Pass on what was written to these streams."""
    for stream in streams:
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, it is closed, or nobody reads it any more


TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)


def _running_timers() -> set[int]:
    return {timer for timer in TIMERS if _signal.getitimer(timer)[0]}


class Surroundings:
    """Working directory, environment, timers, ``sys.path``, trace and profile functions, as each task is to find them.

    Changes of the first three set a flag, so that the check after each task costs next to nothing. What the
    initializer and the loading of a function change stays: ``keep`` is called once a function is loaded.
    """

    trace: Any = None
    profile: Any = None
    """What ``sys.gettrace`` and ``sys.getprofile`` are to return: perhaps a debugger, or a coverage tool."""

    def __init__(self, filters: list[tuple[Any, ...]] | None) -> None:
        self._filters = WarningFilters(filters)
        self.path: list[str] = []
        self.touched: list[object] = []
        """Has a None if something was changed, or if this is a forked child; not empty if something was printed."""
        self._pid = os.getpid()
        self._environ: dict[str, str] = {}
        self._directory: int | None = None
        for name in ("chdir", "fchdir", "putenv", "unsetenv"):
            self._watch(name, os, posix)
        for name in ("alarm", "setitimer"):
            self._watch(name, _signal, sys.modules.get("signal"))
        self._streams: dict[int, TextIOWrapper] = {}
        os.register_at_fork(after_in_child=lambda: self.touched.append(None))
        self.keep()

    def keep(self) -> None:
        """Take the present state as the one that later tasks are to find."""
        self._filters.apply()
        self.trace, self.profile = sys.gettrace(), sys.getprofile()
        self._hooks = _hooks_of_threads()
        self.path = list(sys.path)
        self._timers = _running_timers()
        self._environ = environment()
        if self._directory is not None:
            os.close(self._directory)
        try:
            self._directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it was deleted, or is not readable
            self._directory = None
        self._watch_streams()
        flush(*self._streams.values())
        self.touched.clear()

    def put_back(self, error: BaseException | None = None) -> None:
        """Undo what a task has changed, and flush what it has printed. A child that it forked, and that has returned or raised, ends here."""
        if os.getpid() != self._pid:
            end_child(error)
        self._put_back_hooks()
        if sys.path != self.path:
            sys.path = list(self.path)
        if self.touched:
            if None in self.touched:
                self._put_back_process()
            flush(*self._streams.values())
            self.touched.clear()

    def _put_back_process(self) -> None:
        """Restore timers, environment and directory."""
        for timer in _running_timers() - self._timers:  # its signal would hit the next task
            _signal.setitimer(timer, 0)
        set_environment(self._environ)
        try:
            if self._directory is not None:
                os.fchdir(self._directory)
        except OSError:
            pass  # the directory can no longer be entered

    def _put_back_hooks(self) -> None:
        """Restore trace and profile functions: those left by a failed task would slow down or break the next ones."""
        if sys.gettrace() is not self.trace:
            sys.settrace(self.trace)
        if sys.getprofile() is not self.profile:
            sys.setprofile(self.profile)
        if _hooks_of_threads() != self._hooks:
            import threading

            threading.settrace(self._hooks[0])
            threading.setprofile(self._hooks[1])

    def _watch_streams(self) -> None:
        """Watch the present streams, too: an initializer may have put a file in the place of one."""
        known = self._streams
        streams = (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr)
        self._streams = {id(stream): stream for stream in streams if isinstance(stream, TextIOWrapper)}
        for number in self._streams.keys() - known.keys():
            stream = self._streams[number]
            stream.write = self._noted(stream.write)  # type: ignore[method-assign]  # where ``print`` finds it

    def _noted(self, write: Callable[[str], int]) -> Callable[[str], int]:
        """Have a stream flushed after the task: what it has printed may not end in a newline, and this process be killed then."""

        def noted(text: str) -> int:
            if not self.touched:
                self.touched.append(write)
            return write(text)

        return noted

    def _watch(self, name: str, *modules: Any) -> None:
        """Have the flag set by a function, in each of the modules that have it: a script's ``from os import chdir`` arrives as ``posix.chdir``."""
        change = getattr(modules[0], name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.touched.append(None)
            return change(*args, **kwargs)

        watched.__name__ = name
        watched.__doc__ = change.__doc__
        for module in modules:
            if module is not None:
                setattr(module, name, watched)
