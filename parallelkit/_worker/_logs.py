"""Forwards log records of tasks to the parent, at once, so that they outlive the worker; the parent's handlers write them."""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import PathFinder
from _pickle import dumps
from collections.abc import Callable

from parallelkit._raised import tolerated
from parallelkit._worker._faults import capture_here
from parallelkit._worker._travel import describe, pack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from logging import LogRecord
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


def _install(send: Send, setup: dict[str, Any]) -> None:
    import logging

    # Here, since a worker that logs nothing needs none of it.
    from parallelkit._worker._loggers import agree

    class ToParent(logging.Handler):
        def emit(self, record: LogRecord) -> None:
            try:
                if not vars(record).get(_SENT):
                    send(_pack_record(record))
                    vars(record)[_SENT] = True
            except Exception:
                self.handleError(record)

    to_parent = ToParent()
    logging.root.handlers[:] = [to_parent]
    for name in setup["apart"]:  # which pass nothing on to the root
        logging.getLogger(name).handlers.append(to_parent)
    agree(setup, to_parent)
    logging.disable(setup["disabled"])
    logging.captureWarnings(setup["captured"])


_SENT = "_parallelkit_sent"
"""An attribute of records that have been sent: several handlers of a logger may pass one on."""


def _pack_record(record: LogRecord) -> bytes:
    """The record for ``handle`` in _records.py: its attributes, those that are not plain, each packed by itself, and what was raised."""
    message = record.getMessage()  # in any case: an error in it is told here, with the line that it is of
    fields = dict(vars(record))
    if not _is_plain(record.msg, record.args):
        fields["args"] = None
        if record.args or not isinstance(record.msg, dict):  # structlog wants the dict
            fields["msg"] = message
    if record.processName == "MainProcess":  # which multiprocessing takes this worker for
        fields["processName"] = f"process {os.getpid()}"  # the worker's name in outcomes
    raised = None
    if record.exc_info and (error := record.exc_info[1]) is not None:
        fields["exc_info"] = None
        raised = capture_here(error)
        if len(raised) > HEAVY:
            raised = capture_here(error, whole=False)
    others = {}
    for name, value in fields.items():
        if type(value) not in _PLAIN and name != "args":
            fields[name] = message if name == "msg" else describe(value)
            with tolerated():
                others[name] = pack(value)
    return dumps((fields, others, raised), 5)


HEAVY = 1 << 16
"""Bytes of an error from which on its text goes alone: it may hold a table, and be logged often."""

_PLAIN = frozenset([str, int, float, bool, type(None)])


def _is_plain(msg: object, args: object) -> bool:
    """Whether the program can make the message of these. Sentry takes records of one ``msg`` for one issue."""
    return type(msg) is str and type(args) is tuple and all(type(each) in _PLAIN for each in args)
