"""Handles the log records of tasks as if they had been logged in this process."""

from __future__ import annotations

import sys

from parallelkit._executors._process._lane import Record
from parallelkit._raised import is_of_signal, tolerated
from parallelkit._worker._travel import unpack


def handle(record: Record) -> None:
    """Handle a task's log record, in the run's thread."""
    import logging
    import traceback  # logging has loaded it

    try:
        made = logging.makeLogRecord(unpack(record.packed))
        made.task_index, made.task_attempt = record.ticket[:2] if record.ticket else (None, None)
        level = logging.getLevelName(made.levelno)  # the program may have a name of its own for the level
        made.levelname = made.levelname if level == f"Level {made.levelno}" else level
        logging.getLogger(made.name).handle(made)
    except Exception as error:  # as logging itself does: a record that fails must not end the program
        if is_of_signal(error):
            raise
        if logging.raiseExceptions and sys.stderr is not None:
            with tolerated():  # stderr may be closed
                traceback.print_exc()
