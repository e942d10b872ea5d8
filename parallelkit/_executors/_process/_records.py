"""Handles the log records of tasks as if they had been logged in this process."""

from __future__ import annotations

import sys
from _pickle import loads
from typing import Any

from parallelkit._executors._process._lane import Record
from parallelkit._raised import is_of_signal, tolerated, traceback_of
from parallelkit._worker._faults import restore
from parallelkit._worker._travel import unpack


def handle(record: Record) -> None:
    """Handle a task's log record, in the run's thread."""
    import logging
    import traceback  # logging has loaded it

    try:
        made = logging.makeLogRecord(_unpack(record.packed))
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


def _unpack(packed: bytes) -> dict[str, Any]:
    """The record's attributes; its own texts stand for those that cannot be unpickled."""
    fields: dict[str, Any]
    fields, others, raised = loads(packed)
    for name, value in others.items():
        with tolerated():
            fields[name] = unpack(value)
    if raised is not None:
        error, text, _ = restore(raised, str)
        fields["exc_info"] = type(error), error, traceback_of(error)
        fields["exc_text"] = fields["exc_text"] or text.removesuffix("\n")
    return fields
