"""The system's clock and files, even while a test of the user's own code has replaced them; and the environment.

``freezegun`` puts a clock that stands still into every module that has ``time.monotonic``, and a mock of ``open``
answers whatever is opened. A run would wait for ever, or take the mock's text for the number of cpus.
"""

from __future__ import annotations

import os
from _frozen_importlib import BuiltinImporter, module_from_spec
from collections.abc import Callable
from io import FileIO


def _own_clock() -> Callable[[], float]:
    """The clock of a private copy of the module ``time``.

    Before its version 3, time-machine changes the function ``monotonic`` itself, in every copy, but not
    ``perf_counter``, which reads the same clock on Linux.
    """
    spec = BuiltinImporter.find_spec("time")
    assert spec is not None, "it is built in"
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    same = (
        module.get_clock_info("perf_counter").implementation
        == module.get_clock_info("monotonic").implementation
    )
    clock: Callable[[], float] = module.perf_counter if same else module.monotonic
    return clock


monotonic = _own_clock()


def read(path: str) -> str:
    """The text of a file, whatever its bytes. Raises OSError."""
    with FileIO(path) as file:
        return file.readall().decode("latin-1")


def environment() -> dict[str, str]:
    """A copy of the environment, which other threads may be changing."""
    while True:
        try:
            return dict(os.environ)
        except KeyError:
            pass  # one has just deleted a variable
