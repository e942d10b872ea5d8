"""What a worker is told first: how this interpreter is set up, as that is now."""

from __future__ import annotations

import os
import sys
from _pickle import dumps
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any
from weakref import WeakKeyDictionary

from parallelkit._executors._process._reserve import fd_share
from parallelkit._executors._process._search_path import modules_off, search_path
from parallelkit._raised import tolerated
from parallelkit._worker import _channel
from parallelkit._worker._channel import inherited_width
from parallelkit._worker._loggers import target
from parallelkit._worker._travel import is_plain, pack

SET_HERE = ("no_site", "safe_path")
"""Flags that every worker is started with; it is told what they are in this interpreter."""

MAPPINGS = 128
"""Blocks that all workers together may have for their results, up to their share: each costs a descriptor at both ends."""

# Finders that are usually there, or that find only modules that are loaded already.
_USUAL_FINDERS = ("_frozen_importlib", "_pytest.", "_distutils_hack", "six", "parallelkit.", "builtins")

_DEFAULT_WARNINGS: list[tuple[Any, ...]] = [
    ("default", None, DeprecationWarning, "__main__", 0),
    ("ignore", None, DeprecationWarning, None, 0),
    ("ignore", None, PendingDeprecationWarning, None, 0),
    ("ignore", None, ImportWarning, None, 0),
    ("ignore", None, ResourceWarning, None, 0),
]


FRESH = 0.1
"""Seconds for which workers are told the same: those of one start. In a program with two thousand modules it takes
two milliseconds to find out what to tell them, and they start one after another."""


class Setups:
    """Gives each worker its first frame: for those that start at the same time, for the same tasks, it is made once."""

    def __init__(self, width: int, initializer: bool) -> None:
        self._width, self._initializer = width, initializer
        self._filters: Any = None
        self._tasks = object()
        self.heed()
        self._latest: tuple[bytes, object, float] = b"", None, 0.0
        """The frame, for which tasks, and until when."""

    def outdate(self) -> None:
        """Tell that there are new tasks, which must find the program as it is now; any thread may."""
        self._tasks = object()

    def heed(self) -> None:
        """Take over the warning filters of the calling thread, which has made the executor or starts a run.

        Python 3.14 may keep those of ``catch_warnings`` in a context variable, as it does by default in free-threaded builds.
        """
        apart = getattr(sys.flags, "context_aware_warnings", False) and "warnings" in sys.modules
        self._filters = sys.modules["warnings"]._get_context() if apart else None

    def frame(self, now: float) -> bytes:
        """What a worker must be told that starts now."""
        frame, tasks, until = self._latest
        if tasks is not self._tasks or now >= until:
            tasks = self._tasks  # read before the look at the program: what changes from now on outdates it
            frame = setup_frame(self._width, self._initializer, self._filters)
            self._latest = frame, tasks, now + FRESH
        return frame


def setup_frame(width: int, initializer: bool, warnings_context: Any = None) -> bytes:
    """The first frame of a worker: what it must know of the parent, as that is now."""
    path = search_path()
    setup = {
        "prefix": sys.prefix,
        "exec_prefix": sys.exec_prefix,
        "site": _needs_site(),
        "flags": {name: getattr(sys.flags, name) for name in SET_HERE},
        "path": path,
        "off_path": modules_off(path),
        "argv": _arguments(),
        "bytecode": (sys.dont_write_bytecode, sys.pycache_prefix),
        "encodings": [_encoding(1, sys.stdout), _encoding(2, sys.stderr)],
        "warnings": _warning_filters(warnings_context),
        **_logging(),
        "captured": getattr(sys.modules.get("logging"), "_warnings_showwarning", None) is not None,
        "width": width * inherited_width(),
        "initializer": initializer,
        "blocks": max(2, min(32, MAPPINGS // width, fd_share() // width)),
        "authkey": _authkey(),
    }
    return _channel.frame(_channel.SETUP, pack(_plain(setup)))


def _arguments() -> list[object]:
    """``sys.argv``, if the program has one; paths in it as texts, for a new worker can import few of their classes."""
    arguments = getattr(sys, "argv", None) or ()
    return [os.fspath(each) if isinstance(each, os.PathLike) else each for each in arguments]


def _encoding(fd: int, stream: object) -> tuple[str | None, str | None]:
    """How the program writes text to a descriptor that its workers write to as well; nothing if not by this stream."""
    try:
        if isinstance(stream, TextIOWrapper) and stream.fileno() == fd:
            return stream.encoding, stream.errors
    except (OSError, ValueError):
        pass  # it is closed, detached or in memory only
    return None, None


_PLAIN = frozenset([str, int, bool, bytes, type(None)])


def _plain(thing: Any) -> Any:
    """The same with plain texts and numbers: a new worker cannot import the program's IntEnum, which a log level may be."""
    kind = type(thing)
    if kind in _PLAIN:
        return thing
    if kind is dict:
        return {_plain(key): _plain(value) for key, value in thing.items()}
    if kind in (list, tuple):
        return kind(map(_plain, thing))
    if issubclass(kind, str):
        return str.__str__(thing)
    return int.__int__(thing) if issubclass(kind, int) else thing


def _authkey() -> bytes | None:
    """The key with which proxies of a ``multiprocessing`` manager connect; None if no manager is in use."""
    if "multiprocessing.managers" not in sys.modules:
        return None
    return bytes(sys.modules["multiprocessing.process"].current_process().authkey)


def _needs_site() -> bool:
    """Whether imports here depend on what ``site`` does, such as the import hooks of editable installs."""
    if "sitecustomize" in sys.modules or "usercustomize" in sys.modules:
        return True
    finders = (finder if isinstance(finder, type) else type(finder) for finder in sys.meta_path)
    return not all(finder.__module__.startswith(_USUAL_FINDERS) for finder in finders)


def _logging() -> dict[str, Any]:
    """What a worker must know of loggers: levels, unusual classes, and which have handlers, with what these write to."""
    loggers = _loggers()
    if loggers is None:
        return {"levels": {}, "apart": [], "classes": {}, "targets": {}, "disabled": 0}
    manager: Any = sys.modules["logging"].Logger.manager
    with_handlers = {name: logger for name, logger in loggers.items() if getattr(logger, "handlers", None)}
    apart = [name for name, logger in with_handlers.items() if not logger.propagate]
    levels = {name: logger.level for name, logger in loggers.items() if logger.level}
    packed = {each: _by_name(each) or _of_script.get(each) for each in _unusual_classes(loggers)}
    classes = {name: packed.get(type(logger)) for name, logger in loggers.items()}
    with_handlers["root"] = manager.root
    return {
        "levels": {**levels, "root": manager.root.level},
        "apart": apart,
        "classes": {name: blob for name, blob in classes.items() if blob},
        "targets": {name: _targets(logger.handlers) for name, logger in with_handlers.items()},
        "disabled": manager.disable,
    }


def _loggers() -> dict[str, Any] | None:
    """The program's loggers by their names; None if it has not loaded ``logging``."""
    # Another thread may be loading it just now; then nobody has set anything yet.
    usual: Any = getattr(sys.modules.get("logging"), "Logger", None)
    manager = getattr(usual, "manager", None)
    if manager is None:
        return None
    # There are also places of loggers yet to be made and, in a test, perhaps mocks.
    return {name: each for name, each in list(manager.loggerDict.items()) if issubclass(type(each), usual)}


def _unusual_classes(loggers: dict[str, Any]) -> set[type]:
    return {type(each) for each in loggers.values()} - {getattr(sys.modules.get("logging"), "Logger", None)}


def pack_logger_classes() -> None:
    """Pickle the classes of loggers that are of the script, as functions are in a run's own thread.

    That runs what code the script has for it, and no worker would be killed while the supervisor's thread hung there.
    """
    for each in _unusual_classes(_loggers() or {}):
        if each not in _of_script and _by_name(each) is None:
            blob = b""
            with tolerated():
                blob = pack(each)
            _of_script[each] = blob if len(blob) <= MOST else b""


MOST = 1 << 16
"""Bytes up to which the class of a logger is sent to each worker: it may bring a table that one of its methods names."""

_of_script: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()
"""The classes that are not found by their names; nothing for one that cannot be sent."""


def _by_name(cls: type) -> bytes | None:
    """The pickle of a class that workers can import."""
    with tolerated():
        blob = dumps(cls, 5)
        return blob if is_plain(blob) else None
    return None


def _targets(handlers: Iterable[Any]) -> list[str | None]:
    return [target(handler, sys.stdout, sys.stderr) for handler in handlers]


def _warning_filters(context: Any) -> list[tuple[Any, ...]] | None:
    """The filters, each with its category's module and the pickled category; None if they are Python's defaults.

    ``context``: has them, if they are not the program's.
    """
    warnings: Any = sys.modules.get("warnings")
    if warnings is None:
        return None
    filters = warnings.filters if context is None else context._filters
    if filters == _DEFAULT_WARNINGS:
        return None
    return [
        (action, message, category.__module__, pack(category), module, line)
        for action, message, category, module, line in filters
    ]
