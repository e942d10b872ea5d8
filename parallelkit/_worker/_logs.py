"""Forwards log records of tasks to the parent, at once, so that they outlive the worker.

The parent's handlers write them. A module that attaches handlers as it is imported has attached them there, too, and so
has ``logging.config.dictConfig`` in an initializer: if both wrote, each record would be in the file twice, and the parent
would rotate a file in which workers write.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import PathFinder
from _pickle import dumps
from collections.abc import Callable

from parallelkit._worker._importing import is_importing
from parallelkit._worker._travel import describe, pack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from logging import Handler, Logger, LogRecord
    from typing import Any

    Send = Callable[[bytes], None]


def forward_logs(send: Send, setup: dict[str, Any]) -> None:
    """Send what is logged here to the parent, at the parent's levels; from now on, or once logging is imported.

    ``setup["captured"]``: have warnings logged, as the parent does by ``logging.captureWarnings(True)``.
    """
    if "logging" in sys.modules or setup["captured"]:
        _install(send, setup)
    else:
        sys.meta_path.insert(0, _Waiting(lambda: _install(send, setup)))


class _Waiting:
    """A finder that notices when ``logging`` is imported, so that workers need not import it themselves."""

    def __init__(self, install: Callable[[], None]) -> None:
        self.install = install

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        spec: Any = PathFinder.find_spec(name)
        load = spec.loader.exec_module

        def load_and_install(module: Any) -> None:
            load(module)
            self.install()

        spec.loader.exec_module = load_and_install
        return spec


def target(handler: Handler | Any, stdout: object, stderr: object) -> str | None:
    """The file or standard stream that a handler writes to, or a queue within its process; None if it is something else."""
    attributes = getattr(handler, "__dict__", {})
    path, stream, queue, other = map(attributes.get, ("baseFilename", "stream", "queue", "target"))
    if type(queue).__module__ in ("queue", "_queue", "multiprocessing.queues"):
        return "<queue>"  # only this process reads it, by a thread that would be killed with the worker
    if type(path) is str:
        return path
    if stream is None:
        return None if other is None else target(other, stdout, stderr)  # of a MemoryHandler
    return "<stdout>" if stream is stdout else "<stderr>" if stream is stderr else None


def _install(send: Send, setup: dict[str, Any]) -> None:
    import logging

    class ToParent(logging.Handler):
        def emit(self, record: LogRecord) -> None:
            try:
                if not vars(record).get(_SENT):
                    send(_pack_record(record))
                    vars(record)[_SENT] = True
            except Exception:
                self.handleError(record)

    to_parent = ToParent()
    attach = logging.Logger.addHandler

    def pass_on(record: LogRecord) -> bool:
        """A filter of handlers whose like the parent has: it is the parent's that write."""
        to_parent.handle(record)
        return False

    def attach_once(self: Logger, hdlr: Handler) -> None:  # the names of the standard method's arguments
        # An initializer may have put a file of the worker's own in place of sys.stdout.
        own = target(hdlr, sys.__stdout__, sys.__stderr__)
        if own and own in setup["targets"].get(self.name, ()):
            hdlr.filters.insert(0, pass_on)
        attach(self, hdlr)

    logging.Logger.addHandler = attach_once  # type: ignore[method-assign]  # modules call it wherever they attach one
    logging.root.handlers[:] = [to_parent]
    for name in setup["apart"]:  # which pass nothing on to the root
        logging.getLogger(name).handlers.append(to_parent)
    for name, level in setup["levels"].items():
        logging.getLogger(name).setLevel(level)
    unset = ("root", logging.WARNING)
    _keep_levels({name: level for name, level in setup["levels"].items() if (name, level) != unset})
    _give_classes(setup["classes"])
    _append_to({path for paths in setup["targets"].values() for path in paths})
    logging.disable(setup["disabled"])
    logging.captureWarnings(setup["captured"])


def _keep_levels(levels: dict[str, int]) -> None:
    """Let modules not change these as they are imported."""
    from logging import Logger

    set_level = Logger.setLevel

    def set_outside_imports(self: Logger, level: int | str) -> None:  # named as those of the method
        set_level(self, levels[self.name] if self.name in levels and is_importing() else level)

    Logger.setLevel = set_outside_imports  # type: ignore[method-assign]  # modules call it


def _give_classes(classes: dict[str, tuple[str, str]]) -> None:
    """Have these loggers be of the class that is set when somebody asks for them, or else of the one that they have there.

    They were made for their levels, or their children's. astropy, for one, sets a class of its own, asks for its logger, and
    calls what only that class has. And who has taken it from astropy may be asked for it first.
    """
    from logging import Logger, Manager, getLoggerClass

    get = Manager.getLogger

    def get_of_its_class(self: Manager, name: str) -> Logger:
        logger = get(self, name)
        if name in classes and type(logger) is Logger:
            kind = self.loggerClass or getLoggerClass()
            _become(logger, _class_named(*classes[name]) if kind is Logger else kind)
        return logger

    if classes:
        Manager.getLogger = get_of_its_class  # type: ignore[method-assign]  # ``logging.getLogger`` calls it


def _become(logger: Logger, kind: type[Logger]) -> None:
    """Make a logger one of this class, unless it is by now, as the class was imported."""
    if type(logger) is not kind:
        level, parent, handlers = logger.level, logger.parent, logger.handlers
        logger.__class__ = kind
        kind.__init__(logger, logger.name)
        logger.level, logger.parent = level, parent
        logger.handlers.extend(handlers)


def _class_named(module: str, name: str) -> type[Logger]:
    """A class of loggers; the usual one if it is of the script, or not found."""
    from logging import Logger

    try:
        __import__(module)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return Logger
    return found if isinstance(found, type) and issubclass(found, Logger) else Logger


def _append_to(paths: set[str | None]) -> None:
    """Have a handler with ``mode="w"``, which a module makes as it is imported, not empty the file that the program writes to."""
    from logging import FileHandler

    open_file = FileHandler._open

    def open_to_append(self: FileHandler) -> Any:
        if self.baseFilename in paths:
            self.mode = "a"
        return open_file(self)

    FileHandler._open = open_to_append  # type: ignore[method-assign]  # called as one is made


_SENT = "_parallelkit_sent"
"""An attribute of records that have been sent: several handlers of a logger may pass one on."""


def _pack_record(record: LogRecord) -> bytes:
    """The record's attributes, with the message formatted and the exception as text."""
    import logging

    fields = dict(vars(record))
    fields.update(msg=record.getMessage(), args=None, exc_info=None)
    if record.processName == "MainProcess":  # which multiprocessing takes this worker for
        fields["processName"] = f"process {os.getpid()}"  # the worker's name in outcomes
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    try:
        return pack(fields)
    except Exception:
        return dumps({name: _plain(value) for name, value in fields.items()}, 5)


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else describe(value)
