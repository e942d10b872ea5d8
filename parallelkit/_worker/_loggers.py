"""Makes the loggers and handlers of a worker agree with those of the program, which writes what is logged.

A module that sets up its logging as it is imported does so in the program and in each worker, and so does
``logging.config.dictConfig`` in an initializer. If both wrote, each record would be in the file twice, and the parent would
rotate, or empty, a file in which workers write. And what the program has set since would be undone here.
"""

from __future__ import annotations

import sys

from parallelkit._worker._importing import is_importing
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from logging import Handler, Logger, LogRecord
    from typing import Any


def agree(setup: dict[str, Any], to_parent: Handler) -> None:
    """Take over levels and classes of loggers, now and from now on; the program's own handlers leave writing to ``to_parent``."""
    from logging import WARNING, getLogger

    levels: dict[str, int] = setup["levels"]
    for name, level in levels.items():
        getLogger(name).setLevel(level)
    unset = ("root", WARNING)
    _keep_levels({name: level for name, level in levels.items() if (name, level) != unset})
    _give_classes(setup["classes"])
    _pass_on(setup["targets"], to_parent)
    _append_to({path for paths in setup["targets"].values() for path in paths})


def target(handler: Any, stdout: object, stderr: object) -> str | None:
    """The file or standard stream that a handler writes to, or a queue within its process; None if it is something else."""
    memory: Any = getattr(sys.modules.get("logging.handlers"), "MemoryHandler", None)
    if memory is not None and issubclass(type(handler), memory):
        handler = handler.target  # where it sends what it has collected
    attributes = getattr(handler, "__dict__", {})
    path, stream, queue = map(attributes.get, ("baseFilename", "stream", "queue"))
    if type(queue).__module__ in ("queue", "_queue", "multiprocessing.queues"):
        return "<queue>"  # only this process reads it, by a thread that would be killed with the worker
    if type(path) is str:
        return path
    return {id(stderr): "<stderr>", id(stdout): "<stdout>", id(None): None}.get(id(stream))


def _pass_on(targets: dict[str, list[str | None]], to_parent: Handler) -> None:
    """Have handlers whose like the same logger has in the program pass records on, in place of writing."""
    from logging import Logger

    attach = Logger.addHandler

    def pass_on(record: LogRecord) -> bool:
        """A filter."""
        to_parent.handle(record)
        return False

    def attach_once(self: Logger, hdlr: Handler) -> None:  # the names of the standard method's arguments
        # An initializer may have put a file of the worker's own in place of sys.stdout.
        own = target(hdlr, sys.__stdout__, sys.__stderr__)
        if own and own in targets.get(self.name, ()):
            hdlr.filters.insert(0, pass_on)
        attach(self, hdlr)

    Logger.addHandler = attach_once  # type: ignore[method-assign]  # modules call it wherever they attach one


def _keep_levels(levels: dict[str, int]) -> None:
    """Let modules not change these as they are imported."""
    from logging import Logger

    set_level = Logger.setLevel

    def set_outside_imports(self: Logger, level: int | str) -> None:  # named as those of the method
        set_level(self, levels.get(self.name, level) if is_importing() else level)

    Logger.setLevel = set_outside_imports  # type: ignore[method-assign]  # modules call it


def _give_classes(classes: dict[str, bytes]) -> None:
    """Have these loggers be of the class that is set when somebody asks for them, or else of the one that they have there.

    They were made for their levels, or their children's. astropy, for one, sets a class of its own, asks for its logger, and
    calls what only that class has. And who has taken it from astropy may be asked for it first.
    """
    from logging import Logger, Manager, getLoggerClass

    get = Manager.getLogger

    def get_of_its_class(self: Manager, name: str) -> Logger:
        logger = get(self, name)
        if name in classes and type(logger) is Logger:
            kind = getLoggerClass()
            if not _become(logger, _class_in(classes[name]) if kind is Logger else kind):
                classes.pop(name, None)
        return logger

    if classes:
        Manager.getLogger = get_of_its_class  # type: ignore[method-assign]  # ``logging.getLogger`` calls it


def _become(logger: Logger, kind: type[Logger]) -> bool:
    """Make a logger one of this class, unless it is by now, as the class was imported; False if it cannot be one."""
    if type(logger) is kind:
        return True
    usual, before = type(logger), dict(vars(logger))
    try:
        logger.__class__ = kind  # not with __slots__
        kind.__init__(logger, logger.name)  # not with more arguments
    except Exception:  # whatever it does there: a plain logger will do
        logger.__class__ = usual
        vars(logger).update(before)
        return False
    logger.level, logger.parent = before["level"], before["parent"]
    logger.handlers.extend(before["handlers"])
    return True


def _class_in(packed: bytes) -> type[Logger]:
    """What a class of loggers is here; the usual one if it cannot be had."""
    from logging import Logger

    try:
        found: type[Logger] = unpack(packed)
    except Exception:  # whatever its module does; who imports that will see it
        return Logger
    return found  # if it is another thing by now, no logger can become one


def _append_to(paths: set[str | None]) -> None:
    """Have a handler with ``mode="w"``, which a module makes as it is imported, not empty the file that the program writes to."""
    from logging import FileHandler

    open_file = FileHandler._open

    def open_to_append(self: FileHandler) -> Any:
        if self.baseFilename in paths:
            self.mode = "a"
        return open_file(self)

    FileHandler._open = open_to_append  # type: ignore[method-assign]  # called as one is made
